"""`extractor`: named hidden states, reduced inside the model, from inputs that are checked."""

import itertools

import numpy as np
import pytest
from on_backend import BACKEND, COMPILED, MODES

import hiddencost
from hiddencost import backends, memory, recommended
from hiddencost.errors import UserError
from hiddencost.grid import COMPILED_MODES


@pytest.fixture(scope="module")
def bert(tiny):
    loaded, _ = tiny
    return loaded.model, loaded.inputs(3, 16)


def array(tensor):
    return np.asarray(backends.to_numpy(tensor))


def states_of(bert, **options):
    model, inputs = bert
    found = hiddencost.extractor(model, "all", mode="eager", **options)(inputs)
    return {name: array(tensor) for name, tensor in found.items()}


@pytest.mark.parametrize("strategy", ["auto", *recommended.BETWEEN])
@pytest.mark.parametrize("mode", ["auto", "eager", *(mode for mode in MODES if mode in COMPILED_MODES)])
def test_states_by_name_are_those_of_a_sub_model(bert, mode, strategy):
    import keras

    model, inputs = bert
    found = hiddencost.extractor(model, "block_1,embeddings", mode=mode, strategy=strategy)(inputs)
    assert list(found) == ["block_1", "embeddings"]
    points = hiddencost.hidden_states(model)
    right = keras.Model(model.inputs, [points["block_1"].tensor, points["embeddings"].tensor])(inputs)
    for one, other in zip(found.values(), right, strict=True):
        np.testing.assert_allclose(array(one), array(other), atol=2e-5)


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode in ("graph", "jit", "export")])
def test_a_batch_of_another_shape_is_read_too(process, tiny, mode):
    """torch.export records a graph for one shape: another shape gets a graph of its own."""
    import keras

    loaded, points = tiny
    read = hiddencost.extractor(loaded.model, "block_0", mode=mode)
    right = keras.Model(loaded.model.inputs, points["block_0"].tensor)
    for rows, length in ((2, 16), (3, 8), (2, 16)):
        inputs = loaded.inputs(rows, length)
        found = array(read(inputs)["block_0"])
        assert found.shape == (rows, length, 128)
        np.testing.assert_allclose(found, array(right(inputs)), atol=2e-5)


def test_auto_takes_what_the_reference_runs_recommend(bert, process, monkeypatch):
    from hiddencost.survey import handwritten

    rows = [
        recommended.Recommendation(backend=BACKEND, mode=mode, strategy=strategy, reads=())
        for mode, strategy in ((COMPILED, "functional_submodel"), ("eager", "functional_freed"))
    ]
    monkeypatch.setattr(recommended, "shipped", lambda: rows)
    model, _ = bert
    assert hiddencost.extractor(model, mode=COMPILED).strategy == "functional_submodel"
    assert hiddencost.extractor(model, mode="eager").strategy == "functional_freed"
    nested, _ = handwritten.nested()  # where no sub-model ends
    assert hiddencost.extractor(nested, mode=COMPILED).strategy == "functional_freed"
    with pytest.raises(UserError, match="block_2: inside a nested model or a layer: no sub-model ends there"):
        hiddencost.extractor(nested, strategy="functional_submodel")


def test_without_a_measurement_the_freed_run_is_taken(monkeypatch):
    monkeypatch.setattr(recommended, "shipped", lambda: ())
    assert recommended.strategy("tensorflow", "graph") == "functional_freed"


@pytest.mark.parametrize("strategy", recommended.BETWEEN)
def test_reductions_see_real_tokens_alone(bert, strategy):
    whole, mask = states_of(bert, strategy=strategy), bert[1]["padding_mask"].astype(bool)
    assert not mask.all()
    last = [row.nonzero()[0].max() for row in mask]
    right = {
        "mean": lambda s: np.stack([row[m].mean(0) for row, m in zip(s, mask, strict=True)]),
        "max": lambda s: np.stack([row[m].max(0) for row, m in zip(s, mask, strict=True)]),
        "cls": lambda s: s[:, 0],
        "last_token": lambda s: s[np.arange(3), last],
    }
    for name, reduce in right.items():
        found = states_of(bert, reduce=name, strategy=strategy)
        assert list(found) == ["embeddings", "block_0", "block_1"]
        for point, value in found.items():
            assert value.shape == (3, 128)
            np.testing.assert_allclose(value, reduce(whole[point]), atol=1e-5)


def test_a_scalar_mix_is_a_weighted_sum_whose_weights_can_be_trained(bert):
    model, inputs = bert
    reader = hiddencost.extractor(model, "all", reduce="scalar_mix", mode="eager")
    found = array(reader(inputs)["scalar_mix"])
    np.testing.assert_allclose(found, np.mean(list(states_of(bert).values()), axis=0), atol=1e-5)
    assert [weight.name for weight in reader.model.trainable_weights[:2]] == ["mix", "scale"]
    reader.model.mix.assign([9.0, -9.0, -9.0])
    reader.model.scale.assign(2.0)
    np.testing.assert_allclose(
        array(reader(inputs)["scalar_mix"]), 2 * states_of(bert)["embeddings"], atol=1e-3
    )


def test_a_reduction_of_ones_own_and_another_dtype(bert):
    import keras

    found = states_of(bert, reduce=lambda state, mask: keras.ops.min(state, axis=(1, 2)), dtype="float16")
    told = {name: (value.shape, str(value.dtype)) for name, value in found.items()}
    assert told == dict.fromkeys(("embeddings", "block_0", "block_1"), ((3,), "float16"))


def test_inputs_that_the_model_does_not_have_are_refused(bert):
    model, inputs = bert
    reader = hiddencost.extractor(model)
    with pytest.raises(UserError, match=r"inputs: unknown \['aaa'\]; the model takes \["):
        reader({**inputs, "aaa": inputs["token_ids"]})
    with pytest.raises(UserError, match=r"inputs: missing \['segment_ids'\]"):
        reader({name: value for name, value in inputs.items() if name != "segment_ids"})


def test_what_is_not_known_is_told_in_one_line(bert):
    model, _ = bert
    with pytest.raises(UserError, match=r"unknown reduction 'men'; did you mean 'mean'\?"):
        hiddencost.extractor(model, reduce="men")
    with pytest.raises(
        UserError, match=r"unknown strategy 'functional_fred'; did you mean 'functional_freed'\?"
    ):
        hiddencost.extractor(model, strategy="functional_fred")
    with pytest.raises(UserError, match="mode 'fast' is none of"):
        hiddencost.extractor(model, mode="fast")
    with pytest.raises(UserError, match="points 'last_four' needs 4 blocks, the model has 2"):
        hiddencost.extractor(model, "last_four")
    with pytest.raises(UserError, match=r"points \[3\]: give a selection"):
        hiddencost.extractor(model, [3])


@pytest.mark.parametrize("mode", [COMPILED, "eager"])
def test_the_weights_are_those_that_the_model_has_now_frozen_or_not(process, mode):
    import keras

    x = keras.Input((4,))
    model = keras.Model(x, keras.layers.Dense(4, name="b")(keras.layers.Dense(4, name="a")(x)))
    model.trainable = False
    read = hiddencost.extractor(model, hiddencost.hidden_states(model, at=["a", "b"]), mode=mode)
    assert array(read(np.ones((1, 4), "float32"))["b"]).any()
    model.set_weights([np.full(weight.shape, 2.0, "float32") for weight in model.weights])
    found = read(np.ones((1, 4), "float32"))
    np.testing.assert_array_equal(array(found["a"]), np.full((1, 4), 10.0))
    np.testing.assert_array_equal(array(found["b"]), np.full((1, 4), 82.0))


def test_points_of_several_stacks_are_told_apart_by_their_names(process):
    from hiddencost.points import all_stacks
    from hiddencost.survey import handwritten

    model, _ = handwritten.towers()
    stacks = all_stacks(model)
    chosen = [stacks["left_tower"]["block_1"], stacks["right_tower"]["block_1"]]
    x, y = handwritten.inputs(), 2 * handwritten.inputs()
    found = hiddencost.extractor(model, chosen, mode="eager")([x, y])
    alone = [hiddencost.extractor(model, point, mode="eager")([x, y])["block_1"] for point in chosen]
    assert list(found) == ["left_tower/block_1", "right_tower/block_1"]
    for one, other in zip(found.values(), alone, strict=True):
        np.testing.assert_array_equal(array(one), array(other))
    with pytest.raises(UserError, match="points left_tower/block_1: several of that name: read them one by"):
        hiddencost.extractor(model, [*chosen, chosen[0]])


def two_inputs(length):
    """Patches through one stack, that see no mask; tokens with a mask through the other."""
    import keras
    import keras_hub

    class Patches(keras_hub.layers.TransformerEncoder):
        pass

    patches, tokens = keras.Input((length, 8), name="patches"), keras.Input((None, 8), name="tokens")
    mask = keras.Input((None,), dtype="int32", name="padding_mask")
    x, y = patches, tokens
    for number in range(3):
        x = Patches(8, 2, name=f"vision_{number}")(x)
        y = keras_hub.layers.TransformerEncoder(8, 2, name=f"text_{number}")(y, padding_mask=mask)
    both = keras.layers.Concatenate(axis=1)([x, y])
    return keras.Model({"patches": patches, "tokens": tokens, "padding_mask": mask}, both)


def test_a_mask_is_of_the_stack_that_is_given_it(process):
    from hiddencost.points import all_stacks

    model = two_inputs(5)
    generator = np.random.default_rng(0)
    mask = np.array([[1, 1, 0, 0, 0], [1, 1, 1, 0, 0]], "int32")
    inputs = {name: generator.standard_normal((2, 5, 8)).astype("float32") for name in ("patches", "tokens")}
    inputs["padding_mask"] = mask
    stacks = {name: states["block_2"] for name, states in all_stacks(model).items()}
    assert sorted(stacks) == ["text", "vision"]
    points = [stacks["vision"], stacks["text"]]
    whole = [array(v) for v in hiddencost.extractor(model, points, mode="eager")(inputs).values()]
    means = [
        array(v) for v in hiddencost.extractor(model, points, reduce="mean", mode="eager")(inputs).values()
    ]
    np.testing.assert_allclose(means[0], whole[0].mean(1), atol=1e-5)
    weights = mask[..., None] / mask.sum(1)[:, None, None]
    np.testing.assert_allclose(means[1], (whole[1] * weights).sum(1), atol=1e-5)


def test_a_mask_of_another_length_is_refused_in_one_line(process):
    import keras

    x, mask = keras.Input((4, 8), name="x"), keras.Input((3,), name="padding_mask")
    h = keras.layers.Dense(8, name="a")(x) + keras.ops.mean(mask)
    model = keras.Model({"x": x, "padding_mask": mask}, h)
    read = hiddencost.extractor(model, hiddencost.hidden_states(model, at=["a"]), reduce="mean", mode="eager")
    with pytest.raises(UserError, match="point 'a' has 4 tokens, and the mask of padding 3: reduce it by a"):
        read({"x": np.ones((1, 4, 8), "float32"), "padding_mask": np.ones((1, 3), "float32")})


@pytest.mark.parametrize("inside", [True, False])
def test_states_are_pooled_with_the_mask_that_keras_carries(process, inside):
    """The last one inside a layer too, which is not run to its end; and those whose mask the next block takes
    off."""
    import keras
    import keras_hub

    class Holder(keras.layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.supports_masking = True
            self.blocks = [keras_hub.layers.TransformerEncoder(8, 2) for _ in range(3)]

        def call(self, x):
            for block in self.blocks:
                x = block(x)
            return x

    ids = keras.Input((None,), dtype="int32")
    embedded = keras.layers.Embedding(9, 8, mask_zero=True)(ids)
    model = keras.Model(ids, Holder()(embedded) if inside else Holder().call(embedded))
    given = np.array([[1, 2, 0, 0], [3, 4, 5, 0]], "int32")
    weights = (given > 0)[..., None] / (given > 0).sum(1)[:, None, None]
    ways = ("auto", *(() if inside else recommended.BETWEEN))
    modes = ("eager",) if BACKEND == "torch" else ("eager", COMPILED)  # torch.compile traces no mask of Keras
    for mode, strategy in itertools.product(modes, ways):
        options = {"mode": mode, "strategy": strategy}
        whole = hiddencost.extractor(model, "all", **options)(given)
        means = hiddencost.extractor(model, "all", reduce="mean", **options)(given)
        assert list(means) == ["embeddings", "block_0", "block_1", "block_2"]
        for name, state in whole.items():
            np.testing.assert_allclose(array(means[name]), (array(state) * weights).sum(1), atol=1e-5)


def test_a_model_inside_a_layer_is_read(process):
    import keras

    from hiddencost.survey import handwritten

    class Tower(keras.layers.Layer):
        def __init__(self, encoder, **kwargs):
            super().__init__(**kwargs)
            self.encoder = encoder

        def call(self, x):
            return self.encoder(x)

    encoder, blocks = handwritten.custom()
    x = handwritten.text()
    model = keras.Model(x, Tower(encoder)(x))
    found = hiddencost.extractor(model, "all", mode="eager")(handwritten.inputs())
    assert list(found) == ["embeddings", "block_0", "block_1", "block_2"]
    right = handwritten.inputs()
    for number, block in enumerate(blocks):
        right = block(right)
        np.testing.assert_allclose(array(found[f"block_{number}"]), array(right), atol=1e-5)


def test_points_of_another_model_are_refused_in_one_line(bert):
    import keras

    model, _ = bert
    other = keras.models.clone_model(model)
    for strategy in recommended.BETWEEN:
        with pytest.raises(
            UserError, match=r"point 'block_1' is of another model than .*: take hidden_states"
        ):
            hiddencost.extractor(other, hiddencost.hidden_states(model).last, strategy=strategy)
    with pytest.raises(UserError, match=r"dtype 'flaot16' is none of Keras's, such as float32 or bfloat16"):
        hiddencost.extractor(model, dtype="flaot16")


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # Keras's own, as it writes weights
def test_points_that_the_caller_named_are_saved_too(process, tmp_path):
    import keras

    x = keras.Input((4,), name="x")
    shared = keras.layers.Dense(4, name="block_1")
    last = keras.layers.LSTM(4, return_state=True, name="lstm")(keras.ops.expand_dims(shared(shared(x)), 1))
    model = keras.Model(x, last)
    points = hiddencost.hidden_states(model, at=["block_1", last[2], x])
    assert [point.call for point in points] == [0, 0, 0]
    reader = hiddencost.extractor(model, points, mode="eager")
    given = np.random.default_rng(0).standard_normal((2, 4)).astype("float32")
    reader.model.save(tmp_path / "reader.keras")
    loaded = keras.models.load_model(tmp_path / "reader.keras")
    right = [shared(given), model(given)[2], given]
    for one, other in zip(loaded(given), right, strict=True):
        np.testing.assert_allclose(array(one), np.asarray(backends.to_numpy(other)), atol=1e-6)


def test_predict_gives_arrays_by_name(bert):
    model, inputs = bert
    found = hiddencost.extractor(model, "all", reduce="mean").predict(inputs, batch_size=2, verbose=0)
    for name, value in states_of(bert, reduce="mean").items():
        np.testing.assert_allclose(found[name], value, atol=2e-5)


@pytest.mark.filterwarnings("ignore:Gradients do not exist")  # for the pooler, which no point needs
@pytest.mark.filterwarnings("ignore:__array__ implementation")  # Keras's own
def test_a_head_on_top_is_trained_and_the_gradient_reaches_the_blocks(bert):
    import keras

    model, inputs = bert
    own = keras.models.clone_model(model)
    own.set_weights(model.get_weights())
    reader = hiddencost.extractor(own, "all", reduce="scalar_mix").model
    given = {name: keras.Input(array.shape[1:], dtype="int32", name=name) for name, array in inputs.items()}
    head = keras.Model(given, keras.layers.Dense(1)(reader(given)[0][:, 0]))
    before = [array(weight.value).copy() for weight in own.trainable_weights]
    head.compile(keras.optimizers.SGD(0.1), "mse")
    head.fit(inputs, np.ones((3, 1), "float32"), verbose=0)
    moved = [
        bool((array(w.value) != old).any()) for w, old in zip(own.trainable_weights, before, strict=True)
    ]
    blocks = [m for m, w in zip(moved, own.trainable_weights, strict=True) if "transformer_layer_1" in w.path]
    assert blocks
    assert all(blocks)
    assert array(reader.mix.value).any()


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # Keras's own, as it writes weights
@pytest.mark.parametrize("strategy", recommended.BETWEEN)
def test_it_is_saved_and_loaded_with_its_model(bert, tmp_path, strategy):
    import keras

    model, inputs = bert
    reader = hiddencost.extractor(model, "block_0", reduce="mean", mode="eager", strategy=strategy)
    reader.model.save(tmp_path / "reader.keras")
    loaded = keras.models.load_model(tmp_path / "reader.keras")
    assert loaded.strategy == strategy
    np.testing.assert_array_equal(array(loaded(inputs)[0]), array(reader(inputs)["block_0"]))


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode in ("jit", "export")])
def test_a_compiled_run_gives_a_wide_tensor_up_after_its_last_use(process, mode):
    """Of 16, 6 and 16 MiB never two at once. (Inductor, left to itself, keeps the first for the last. On
    TensorFlow what is live does not show here: oneDNN keeps an arena.)"""
    import keras

    tensor = given = keras.Input((16,))
    for width in (1024, 16, 384, 16, 1024, 16):
        tensor = keras.layers.Dense(width, activation="gelu")(tensor)
    model = keras.Model(given, tensor)
    run = backends.Compiled(model, mode, model)
    rows = 4096
    placed = backends.place({"given": np.ones((rows, 16), "float32")}, mode, rows)["given"]
    for _ in range(2):
        run(placed)
    peak, _ = memory.peak_heap(lambda: run(placed))
    assert 16 <= peak / 2**20 < 18
