"""Hidden states are found in models of every kind, exactly: the right blocks, in order, with their values."""

import numpy as np
import pytest
from backbones import AUDIO, SEEING, TEXT, inputs_of

from hiddencost import backends, points
from hiddencost.errors import UserError
from hiddencost.graph import flat_inputs
from hiddencost.plan import Plan


def values_of(model, states, inputs):
    """The values of points, by the library's own run of the graph."""
    return Plan(model, states).values(flat_inputs(model, inputs), {"training": False})


def captured(model, layers, inputs):
    """What each call of these layers returned during an untouched forward pass, in order of the calls."""
    import keras

    found = []
    for layer in dict.fromkeys(layers):

        def keep(*args, call=layer.call, **kwargs):
            outputs = call(*args, **kwargs)
            found.append(keras.tree.flatten(outputs)[0])
            return outputs

        object.__setattr__(layer, "call", keep)
    model(inputs)
    for layer in dict.fromkeys(layers):
        object.__delattr__(layer, "call")
    return found


# T5 itself tells at each call that masks end at its layers.
@pytest.mark.filterwarnings("ignore:.*with a mask attached to it", "ignore:.*looks like it has unbuilt state")
@pytest.mark.filterwarnings("ignore:The 'rwkv_ops' package is not installed")
@pytest.mark.parametrize("tiny", [*TEXT, *AUDIO, *SEEING], ids=lambda tiny: tiny.name)
def test_every_text_and_audio_backbone_and_three_that_see(process, tiny):
    model = tiny.model()
    right = tiny.blocks(model)
    found = points.all_stacks(model)
    assert list(found) == list(right)
    inputs = inputs_of(model)
    for stack, layers in right.items():
        states = found[stack]
        assert [point.layer for point in states.blocks] == list(layers)
        assert [point.name for point in states] == ["embeddings", *(f"block_{i}" for i in range(len(layers)))]
        mine = values_of(model, states.blocks, inputs)
        theirs = captured(model, layers, inputs)
        assert len(mine) == len(theirs)
        for one, other in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(*map(backends.to_numpy, (one, other)))


@pytest.fixture(scope="module")
def handwritten(process):
    import handwritten

    return handwritten


HANDWRITTEN = (
    "custom", "raw_weights", "shared", "models_as_blocks", "lstms", "bidirectional", "adapters", "hybrid",
    "sequential", "opaque", "nested", "nested_opaque", "deep",
)  # fmt: skip


@pytest.mark.parametrize("name", HANDWRITTEN)
def test_every_kind_of_handwritten_model(handwritten, name):
    model, blocks = getattr(handwritten, name)()
    states = points.hidden_states(model)
    assert [point.layer for point in states.blocks] == blocks
    x = handwritten.inputs()
    mine, theirs = values_of(model, states.blocks, x), captured(model, blocks, x)
    for one, other in zip(mine, theirs, strict=True):
        np.testing.assert_array_equal(*map(backends.to_numpy, (one, other)))
    assert [point.call for point in states.blocks] == ([0, 1, 2] if name == "shared" else [0] * len(blocks))
    assert {point.inside for point in states} == {name in ("opaque", "nested", "nested_opaque", "deep")}


@pytest.mark.parametrize("operators", [False, True])
@pytest.mark.parametrize("post", [False, True])
def test_a_transformer_written_with_plain_layers(handwritten, post, operators):
    model, right = handwritten.flat(post, operators)
    states = points.hidden_states(model)
    assert [point.tensor for point in states.blocks] == right
    assert states["embeddings"].tensor is model.inputs[0]
    assert (states.final_norm is None) == post


def test_one_block_of_plain_layers_cannot_be_told_apart(handwritten):
    model, _ = handwritten.flat(depth=1)
    with pytest.raises(UserError, match=r"has no stack of blocks .* hidden_states\(model, at=\[...\]\)"):
        points.hidden_states(model)


def test_several_stacks_are_listed_and_one_is_chosen(handwritten):
    import keras

    one, _ = handwritten.custom(2, "left_tower")
    other, second = handwritten.custom(3, "right_tower")
    x, y = handwritten.text(), handwritten.text("y")
    model = keras.Model([x, y], keras.layers.Add()([one(x), other(y)]))
    with pytest.raises(UserError, match=r"2 stacks: 'left_tower' \(2 blocks\), 'right_tower' \(3 blocks\)"):
        points.hidden_states(model)
    assert [point.layer for point in points.hidden_states(model, "right_tower").blocks] == second
    with pytest.raises(UserError, match=r"unknown stack 'left'; did you mean 'left_tower'\?"):
        points.hidden_states(model, "left")


def test_a_siamese_model_has_a_stack_for_each_of_its_calls(handwritten):
    import keras

    encoder, blocks = handwritten.custom(3)
    x, y = handwritten.text(), handwritten.text("y")
    model = keras.Model([x, y], keras.layers.Concatenate()([encoder(x), encoder(y)]))
    found = points.all_stacks(model)
    assert len(found) == 2
    inputs = [handwritten.inputs(2), 2 * handwritten.inputs(2)]
    theirs = captured(model, blocks, inputs)
    mine = [values_of(model, states.blocks, inputs) for states in found.values()]
    assert len(theirs) == 6
    for one, other in zip([*mine[0], *mine[1]], theirs, strict=True):
        np.testing.assert_array_equal(*map(backends.to_numpy, (one, other)))


def test_points_that_the_caller_names(handwritten):
    import keras

    x = keras.Input((4,))
    y = keras.layers.Dense(3, name="first")(x)
    model = keras.Model(x, keras.layers.Dense(2, name="second")(y))
    states = points.hidden_states(model, at=["first", model.outputs[0], model.layers[1]])
    assert [point.name for point in states] == ["first", "second", "first"]
    assert states[0].tensor is y
    with pytest.raises(UserError, match=r"has no layer 'firts'; did you mean 'first'\?"):
        points.hidden_states(model, at=["firts"])
    with pytest.raises(UserError, match="its layers with weights: first, second"):
        points.hidden_states(model)
    with pytest.raises(UserError, match="is no layer of its graph"):
        points.hidden_states(model, at=[keras.layers.Dense(1)])


def test_models_without_a_graph_are_refused(process):
    import keras

    class Own(keras.Model):
        pass

    with pytest.raises(UserError, match="is a subclassed model, which has no graph"):
        points.hidden_states(Own())
    with pytest.raises(UserError, match="is not built: call it once"):
        points.hidden_states(keras.Sequential([keras.layers.Dense(1)]))
    with pytest.raises(UserError, match="str is no Keras model"):
        points.hidden_states("bert")


@pytest.mark.parametrize(
    "name", ["VGG16", "ResNet50", "ResNet50V2", "DenseNet121", "MobileNetV2", "EfficientNetB0", "Xception"]
)
def test_convolutional_models_have_no_hidden_states(process, name):
    import keras

    model = getattr(keras.applications, name)(weights=None, include_top=False)
    with pytest.raises(UserError, match="has no stack of blocks"):
        points.hidden_states(model)
