"""A freed model has the values of the model it is made from, holds less, and changes nothing of it."""

import gc
import weakref

import numpy as np
import pytest

from hiddencost import backends, points
from hiddencost.errors import UserError


def arrays(result):
    return [np.asarray(backends.to_numpy(tensor)) for tensor in backends.tensors(result)]


def same(model, *inputs, **kwargs):
    from hiddencost.layers import Freed

    mine, theirs = Freed(model)(*inputs, **kwargs), model(*inputs, **kwargs)
    import keras

    assert keras.tree.map_structure(lambda _: 0, mine) == keras.tree.map_structure(lambda _: 0, theirs)
    for one, other in zip(arrays(mine), arrays(theirs), strict=True):
        np.testing.assert_array_equal(one, other)


def tokens(rows=3, length=5):
    return np.array([[4, 2, 1, 3, 0], [1, 0, 0, 0, 0], [2, 2, 2, 2, 2]], "int32")[:rows, :length]


def masked():
    """A mask that an embedding makes, used by a recurrent layer and by attention."""
    import keras

    x = keras.Input((None,), dtype="int32")
    h = keras.layers.Embedding(6, 4, mask_zero=True)(x)
    h = keras.layers.Dropout(0.5)(h)
    a = keras.layers.LSTM(4, return_sequences=True)(h)
    h = keras.layers.MultiHeadAttention(1, 4)(query=a, value=h, key=a)
    return keras.Model(x, keras.layers.GlobalAveragePooling1D()(h))


def structured():
    """Outputs as a dict, of a layer with several outputs."""
    import keras

    x = keras.Input((4,))
    h = keras.layers.Reshape((2, 2))(x)
    h, state, cell = keras.layers.LSTM(3, return_sequences=True, return_state=True)(h)
    return keras.Model(x, {"sequence": h, "state": [state, cell], "input": x})


def keywords():
    """Operators, a tensor in a keyword argument, a shared layer."""
    import keras

    class Scaled(keras.layers.Layer):
        def call(self, x, *, by):
            return x * by

    x, y = keras.Input((3,), name="x"), keras.Input((3,), name="y")
    dense = keras.layers.Dense(3)
    h = Scaled()(dense(x), by=dense(y))
    return keras.Model({"x": x, "y": y}, [h + 1, keras.ops.mean(h, axis=-1)])


def inside_another():
    """A model with a mask and several outputs inside another."""
    import keras

    inner = masked()
    both = keras.Model(inner.inputs, [inner.outputs[0], inner.layers[1].output])
    x = keras.Input((None,), dtype="int32")
    pooled, states = both(x)
    seq = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2), keras.layers.Dense(2)])
    return keras.Model(x, [seq(pooled), states])


def test_values_are_equal_for_every_kind_of_node(process):
    same(masked(), tokens())
    same(structured(), np.ones((2, 4), "float32"))
    same(keywords(), {"x": np.ones((2, 3), "float32"), "y": 2 * np.ones((2, 3), "float32")})
    same(inside_another(), tokens())


def given_a_mask(dtype):
    """A model inside another that is given a mask which its input does not carry, or which a cast loses."""
    import keras

    inside = keras.Input((None, 4))
    inner = keras.Model(inside, keras.layers.GlobalAveragePooling1D()(inside))
    x = keras.Input((None,), dtype="int32")
    h = keras.layers.Embedding(6, 4, mask_zero=dtype != "float32", dtype=dtype)(x)
    pooled = inner(h) if dtype != "float32" else inner(h, mask=keras.ops.not_equal(x, 0))
    return keras.Model(x, pooled)


@pytest.mark.filterwarnings("ignore:Layer 'functional")  # Keras says that it supports no masking, and does
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_a_nested_model_gets_the_mask_that_it_is_given(process, dtype):
    same(given_a_mask(dtype), tokens())


def test_a_sequential_model(process):
    import keras

    same(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2)]), np.ones((2, 4)))


def test_dropout_draws_the_same_numbers_from_the_same_seed(process):
    import keras

    from hiddencost.layers import Freed

    def run(wrap):
        keras.utils.set_random_seed(3)
        x = keras.Input((50,))
        model = keras.Model(x, keras.layers.Dropout(0.5, seed=7)(keras.layers.Dropout(0.2, seed=8)(x)))
        run = wrap(model)
        return [
            arrays(run(np.ones((1, 50), "float32"), training=training))[0] for training in (True, False, True)
        ]

    mine, theirs = run(Freed), run(lambda model: model)
    for one, other in zip(mine, theirs, strict=True):
        np.testing.assert_array_equal(one, other)
    assert (mine[0] == 0).any()
    assert (mine[1] == 1).all()
    assert (mine[0] != mine[2]).any()


class Alive:
    """How many of the tensors that watched layers returned are alive when the next is called."""

    def __init__(self):
        self.made, self.most = [], 0

    def layer(self):
        import keras

        watcher = self

        class Watched(keras.layers.Layer):
            def call(self, x):
                watcher.most = max(watcher.most, sum(one() is not None for one in watcher.made))
                y = x + 1
                watcher.made.append(weakref.ref(y))
                return y

        return Watched()


def test_each_tensor_is_dropped_after_its_last_use_inside_nested_models_too(process):
    import keras

    from hiddencost.layers import Freed

    alive = Alive()
    x = keras.Input((3,))
    h = x
    for _ in range(4):
        h = alive.layer()(h)
    inner = keras.Model(x, h)
    y = keras.Input((3,))
    model = keras.Model(y, alive.layer()(inner(alive.layer()(y))))
    most = {}
    for name, one in (("keras", model), ("freed", Freed(model))):
        alive.made.clear()
        alive.most = 0
        one(np.ones((1, 3), "float32"))
        most[name] = alive.most
    assert most == {"keras": 4, "freed": 2}  # what the inner model was given, and what its last layer was


def test_layers_that_return_several_tensors_leave_none_of_them_behind(process):
    """Keras's walk through what they return leaves cycles on torch, which would hold all of it: T5's encoder
    took 29 MiB instead of 17 (4x128)."""
    import keras

    from hiddencost.layers import Freed

    made, alive = [], []

    class Pair(keras.layers.Layer):
        def call(self, x, bias):
            alive.append(sum(one() is not None for one in made))
            y = x + bias
            made.append(weakref.ref(y))
            return y, bias

    given, more = keras.Input((3,)), keras.Input((3,))
    x, bias = given, more
    for _ in range(5):
        x, bias = Pair()(x, bias)
    model = Freed(keras.Model([given, more], x))
    made.clear()
    alive.clear()
    gc.disable()
    try:
        model([np.ones((1, 3), "float32")] * 2)
    finally:
        gc.enable()
    assert alive == [0, 1, 1, 1, 1]


def fingerprint(model):
    """Everything about a model that a reader could change: layers, nodes, attributes, weights."""
    found = []
    for layer in model._flatten_layers():
        nodes = len(layer._inbound_nodes), len(layer._outbound_nodes)
        found.append((id(layer), nodes, sorted(vars(layer)), [id(w) for w in layer.weights]))
    return found, arrays([weight.value for weight in model.weights])


@pytest.mark.parametrize("name", ["nested", "opaque", "nested_opaque", "custom"])
def test_the_model_is_left_as_it_was(process, name):
    from hiddencost.layers import Freed, Reader
    from hiddencost.survey import handwritten

    model, _ = getattr(handwritten, name)()
    x = handwritten.inputs()
    model(x)
    before, weights = fingerprint(model)
    states = points.hidden_states(model)
    readers = [Freed(model), Reader(model, states.select("middle")), Reader(model, states.all)]
    if not states.last.inside:
        readers.append(Reader(model, states.all, strategy="functional_submodel"))
    for number in range(1000 if name == "nested_opaque" else 150):  # the one that is looked into most
        readers[number % len(readers)](x)
    after, values = fingerprint(model)
    assert before == after
    for one, other in zip(weights, values, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ["custom", "nested", "opaque", "nested_opaque", "deep"])
def test_no_block_runs_after_the_last_that_is_needed(process, name):
    from hiddencost.layers import Reader
    from hiddencost.survey import handwritten

    model, blocks = getattr(handwritten, name)(4)
    reader = Reader(model, points.hidden_states(model).select("middle"))
    ran = []
    for index, block in enumerate(blocks):
        object.__setattr__(block, "call", lambda *a, i=index, c=block.call, **k: ran.append(i) or c(*a, **k))
    reader(handwritten.inputs())
    assert ran == [0, 1]


@pytest.mark.parametrize("name", ["custom", "nested", "opaque"])
def test_a_reader_works_with_predict_and_inside_a_larger_model(process, name):
    from hiddencost.layers import Reader
    from hiddencost.survey import handwritten

    model, _ = getattr(handwritten, name)()
    states = points.hidden_states(model)
    reader = Reader(model, states.all)
    x = handwritten.inputs()
    right = arrays(reader(x))
    for mine in (reader.predict(x, verbose=0), _outer(reader).predict(x, verbose=0)):
        for one, other in zip(arrays(mine), right, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)


def _outer(reader):
    import keras

    from hiddencost.survey import handwritten

    x = handwritten.text()
    return keras.Model(x, reader(x))


def test_a_subclassed_model_cannot_be_freed(process):
    import keras

    from hiddencost.layers import Freed

    class Own(keras.Model):
        pass

    with pytest.raises(UserError, match="is a subclassed model, which has no graph"):
        Freed(Own())
