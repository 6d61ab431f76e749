"""What `graph` reads of Keras's private attributes is as it takes it: each line of this canary names the one
that a new Keras has changed."""

import ast
from pathlib import Path

import numpy as np
import pytest

from hiddencost import backends, graph

SOURCE = Path(graph.__file__).parent


@pytest.fixture(scope="module")
def model(process):
    import keras

    x = keras.Input((4,), name="x")
    dense = keras.layers.Dense(4, name="dense")
    return keras.Model(x, keras.layers.Dropout(0.5, name="drop")(dense(dense(x))))


def test_nodes_by_depth_hold_every_node_once_in_the_order_of_running(model):
    names = [call.operation.name for call in graph.calls(model)]
    assert names == ["dense", "dense", "drop"], "Function._nodes_by_depth"


def test_a_node_knows_its_operation_arguments_and_outputs(model):
    node = model._nodes_by_depth[0][0]
    assert node.operation.name == "drop", "Node.operation"
    assert node.outputs == model.outputs, "Node.outputs"
    assert node.is_input is False, "Node.is_input"
    args, kwargs = node.arguments.fill_in({id(node.arguments.args[0]): 7})
    assert (args, kwargs) == ((7,), {"training": False}), "Node.arguments"


def test_a_layer_knows_its_calls_and_a_tensor_its_maker(model):
    dense = model.get_layer("dense")
    assert [graph.which_call(call) for call in graph.calls(model)] == [0, 1, 0], "Operation._inbound_nodes"
    second = dense._inbound_nodes[1].outputs[0]
    assert graph.maker(second) == (dense, 1), "KerasTensor._keras_history"


def test_inputs_are_standardized(model):
    (found,) = graph.flat_inputs(model, np.ones((2, 4), "float64"))
    assert backends.to_numpy(found).dtype == "float32", "Function._standardize_inputs"


def test_a_built_sequential_has_a_functional_model(process):
    import keras

    sequential = keras.Sequential([keras.layers.Dense(2)])
    assert not graph.is_graph(sequential), "Sequential._functional"
    sequential.build((None, 3))
    assert graph.is_graph(sequential), "Sequential._functional"


def test_layers_inside_a_layer_are_found_at_any_depth(process):
    import keras

    layer = keras.layers.Bidirectional(keras.layers.LSTM(2))
    names = {type(one).__name__ for one in graph.sub_layers(layer)}
    assert names == {"LSTM", "LSTMCell"}, "Layer._layers, ._flatten_layers"
    assert graph.sub_layers(keras.ops) == []


def test_training_is_passed_on_to_layers_that_know_it(model):
    assert graph.passed_on(model.get_layer("drop"), {"training": True}) == {"training": True}, (
        "Operation._call_context_args"
    )


def test_an_attribute_call_takes_the_place_of_the_method(process):
    import keras

    outer = keras.layers.TimeDistributed(keras.layers.Dense(2, name="inner"))
    seen = []
    with graph.watched(outer, lambda n, layer, _: seen.append((n, layer.name)), lambda *_: None):
        outer(np.ones((1, 3, 4), "float32"))
    assert {name for _, name in seen} == {"inner"}, "Operation.__call__ looks up self.call"
    assert "call" not in vars(graph.sub_layers(outer)[0])


def test_a_mask_is_carried_by_the_tensor(process):
    import keras

    found = keras.layers.Embedding(3, 2, mask_zero=True)(np.array([[1, 0]]))
    assert np.asarray(graph.mask_of(found)).tolist() == [[True, False]], "get_keras_mask"


def test_private_attributes_of_keras_are_read_in_one_file_alone():
    known = {
        "_nodes_by_depth", "_inbound_nodes", "_outbound_nodes", "_keras_history", "_standardize_inputs",
        "_functional", "_layers", "_flatten_layers", "_call_context_args", "get_keras_mask", "set_keras_mask",
        "_convert_input_args",
    }  # fmt: skip
    for path in sorted(SOURCE.rglob("*.py")):
        used = {
            node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)
        }
        assert path.name == "graph.py" or not used & known, f"{path.name}: {sorted(used & known)}"
