"""Every strategy gives the right values in every mode, and does what its name says."""

import gc
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from on_backend import BACKEND, COMPILED, MODES

from hiddencost import backends, growth, measure, models, points, strategies
from hiddencost.chain import steps_to
from hiddencost.errors import UserError
from hiddencost.graph import flat_inputs
from hiddencost.plan import Plan
from hiddencost.records import OUTPUT, REFERENCE, TWIN, Case

GOOD = json.loads((Path(__file__).parent / "data" / "minilm_hidden_states.json").read_text())
CASE = Case(model="bert_tiny", strategy=REFERENCE, backend=BACKEND, batch=2, length=16)
WAYS = [strategy.name for strategy in strategies.STRATEGIES if strategy.name not in (REFERENCE, TWIN)]


def values(process, case):
    """What a case returns, run in its mode, and the layer-by-layer values."""
    inputs = process.inputs(case)
    extraction = process.built(case)
    run = backends.compile_(extraction, case.mode, process.of(case)[0].model)
    result = run(backends.place(inputs, case.mode, case.batch))
    return result, extraction, measure.expected_values(process, case, inputs)


SELECTIONS = ("middle", "all") + ("last", "block_1,embeddings", "0,-1") * (BACKEND == "tensorflow")
EVERY = [
    CASE.with_(strategy=name, points=points_, mode=mode, examples=4 if mode == "predict" else None)
    for name in WAYS
    for points_ in SELECTIONS
    for mode in MODES
    if points_ == "all" or mode not in ("compile", "export")  # which take seconds for each
]


@pytest.mark.parametrize(
    "case", [case for case in EVERY if not strategies.find(case.strategy).skipped(case)], ids=str
)
def test_values_agree_with_the_layers_called_one_by_one(process, tiny, case):
    result, extraction, expected = values(process, case)
    assert measure.difference(case, result, extraction, process, expected) <= measure.TOLERANCE["float32"]
    rows = case.examples or case.batch
    assert [tuple(state.shape) for state in extraction.states(result)] == [(rows, 16, 128)] * (
        len(tiny[1].select(case.points))
    )


TRAINED = CASE.with_(points="all", mode="train")


def train(process, strategy, selection, dtype="float32"):
    """The gradients of a loss on these points, and the strategy that they came through."""
    case = CASE.with_(strategy=strategy, points=selection, mode="train", dtype=dtype)
    extraction, run, _ = process.compiled(case)
    return case, run(backends.place(process.inputs(case), "train", 2)), extraction


@pytest.mark.parametrize("selection", ["middle", "all"])
@pytest.mark.parametrize("name", [name for name in WAYS if not strategies.find(name).skipped(TRAINED)])
def test_gradients_agree_with_those_of_the_layers_called_one_by_one(process, tiny, name, selection):
    case, result, extraction = train(process, name, selection)
    assert measure.difference(case, result, extraction, process, {}) <= 1e-4
    assert len(result) == len(tiny[0].model.trainable_variables)


@pytest.mark.parametrize("dtype", ["bfloat16", "mixed_bfloat16"])
def test_gradients_in_bfloat16_agree_to_its_digits_and_those_of_other_points_do_not(process, tiny, dtype):
    case, result, extraction = train(process, "functional_submodel", "all", dtype)
    measure.difference(case, result, extraction, process, {})
    with pytest.raises(measure.WrongValuesError, match="gradients differ by"):
        measure.difference(case.with_(points="last"), result, extraction, process, {})


def test_gradients_of_another_loss_are_wrong(process, tiny):
    case, result, extraction = train(process, "functional_submodel", "all")
    with pytest.raises(measure.WrongValuesError, match="gradients differ by"):
        measure.difference(case.with_(points="last"), result, extraction, process, {})
    own = case.with_(strategy=REFERENCE, points=OUTPUT)
    with pytest.raises(measure.WrongValuesError, match="gradients differ by"):
        measure.difference(own, result, extraction, process, {})


@pytest.mark.parametrize("name", [REFERENCE, "on_request"])
def test_output_only_is_the_models_own_output(process, tiny, name):
    case = CASE.with_(strategy=name)
    result, extraction, expected = values(process, case)
    assert extraction.states(result) == []
    assert measure.difference(case, result, extraction, process, expected) <= measure.TOLERANCE["float32"]
    assert len(expected[OUTPUT]) == 2  # BERT returns the sequence and the pooled output


def test_streamed_states_lie_in_files_batch_by_batch_and_nothing_is_returned(process, tiny):
    case = CASE.with_(strategy="streamed", points="all", mode="predict", examples=5)
    result, extraction, expected = values(process, case)
    assert measure.difference(case, result, extraction, process, expected) <= measure.TOLERANCE["float32"]
    assert [file.name for file in result] == ["0.safetensors", "1.safetensors", "2.safetensors"]
    assert backends.tensors(result) == []
    assert [state.shape for state in extraction.states(result)] == [(5, 16, 128)] * 3
    folder = result[0].parent
    del extraction
    gc.collect()
    assert not folder.exists()


def test_the_mean_in_the_model_leaves_padding_out(process, tiny):
    case = CASE.with_(
        strategy="functional_submodel", points="all", reduction="mean", mode="predict", examples=4
    )
    result, extraction, expected = values(process, case)
    assert measure.difference(case, result, extraction, process, expected) <= measure.TOLERANCE["float32"]
    mask = process.inputs(case)["padding_mask"]
    assert 0 < mask.sum() < mask.size  # there is padding to leave out
    by_hand = expected["block_1"][0][mask[0] == 1].mean(0)
    assert np.abs(result[-1][0] - by_hand).max() < 1e-5


@pytest.mark.parametrize("dtype", ["bfloat16", "mixed_bfloat16"])
def test_a_neighbouring_block_is_told_apart_in_bfloat16_too(process, tiny, dtype):
    case = CASE.with_(strategy="functional_submodel", points="middle", dtype=dtype)
    expected = measure.expected_values(process, case, process.inputs(case))
    shifted = process.built(case.with_(points="last"))
    result = shifted(backends.place(process.inputs(case), "eager", 2))
    with pytest.raises(measure.WrongValuesError, match="values differ by"):
        measure.difference(case, result, shifted, process, expected)


def test_a_difference_is_found(process, tiny):
    """The control of the equivalence check: states shifted by one block, or cut short, are wrong."""
    case = CASE.with_(strategy="functional_submodel", points="middle")
    expected = measure.expected_values(process, case, process.inputs(case))
    shifted = process.built(case.with_(points="last"))
    result = shifted(backends.place(process.inputs(case), "eager", 2))
    with pytest.raises(measure.WrongValuesError, match="values differ by"):
        measure.difference(case, result, shifted, process, expected)
    with pytest.raises(measure.WrongValuesError, match="2 states where 1 were asked for"):
        measure.difference(case, [result, result], shifted, process, expected)
    with pytest.raises(measure.WrongValuesError, match=r"float32\(2, 15, 128\) where float32\(2, 16, 128\)"):
        measure.difference(case, [result[:, 1:]], shifted, process, expected)


def counted(monkeypatch, model, name):
    """How often a method of the model is called from now on."""
    calls = []
    original = getattr(model, name)
    monkeypatch.setattr(model, name, lambda *a, **k: calls.append((a, k)) or original(*a, **k))
    return calls


@pytest.mark.parametrize(
    ("name", "lookups"),
    [("get_layer_name", 8), ("get_layer_index", 8), ("indexed_in_advance", 0), ("functional_submodel", 0)],
)
def test_look_ups_happen_at_call_time_where_they_should(process, tiny, monkeypatch, name, lookups):
    loaded, every = tiny
    extraction = strategies.find(name).build(loaded.model, every, every.select("all"))
    calls = counted(monkeypatch, loaded.model, "get_layer")
    extraction(backends.place(process.inputs(CASE), "eager", 2))
    assert len(calls) == lookups  # every layer but the three input layers and the pooler
    assert all(("index" in named) == (name == "get_layer_index") for _, named in calls)


def test_a_sub_model_per_call_is_a_new_one_each_time(process, tiny, monkeypatch):
    import keras

    loaded, every = tiny
    extraction = strategies.functional_submodel_per_call(loaded.model, every, every.select("last"))
    built = []
    original = keras.Model
    monkeypatch.setattr(keras, "Model", lambda *a, **k: built.append(a) or original(*a, **k))
    placed = backends.place(process.inputs(CASE), "eager", 2)
    extraction(placed)
    extraction(placed)
    assert len(built) == 2


def test_an_early_end_runs_no_later_block(tiny):
    loaded, every = tiny
    names = [step.name for step in steps_to(loaded.model, [every.select("middle")[0].tensor])]
    assert "transformer_layer_0" in names
    assert "transformer_layer_1" not in names
    assert "pooled_dense" not in names


def test_always_return_returns_every_state_whatever_is_asked_for(process, tiny):
    loaded, every = tiny
    wanted = every.select("middle")
    placed = backends.place(process.inputs(CASE), "eager", 2)
    listed = strategies.always_return_all(loaded.model, every, wanted)(placed)
    assert len(listed) == 3
    stacked = strategies.always_return_stacked(loaded.model, every, wanted)
    assert tuple(stacked(placed).shape) == (2, 3, 16, 128)
    assert len(stacked.states(stacked(placed))) == 1


def test_the_chain_keeps_no_state_that_nothing_reads_any_more(tiny, process):
    loaded, every = tiny
    steps = steps_to(loaded.model, [every[-1].tensor])
    block = next(step for step in steps if step.name == "transformer_layer_1")
    assert id(every[1].tensor) in block.frees  # block_0's output, used up by block_1
    assert id(every[-1].tensor) not in block.frees  # asked for


def test_on_request_is_one_model_traced_once_off_and_once_on(process, tiny):
    case = CASE.with_(strategy="on_request", points="all", mode=COMPILED)
    call, traces = growth.growth_call(process, case)
    results = [call() for _ in range(4)]
    assert traces() == 2 or BACKEND == "torch"  # which compiles a model in several pieces
    assert [len(backends.tensors(result)) for result in results] == [2, 5, 2, 5]


def test_a_sub_model_built_at_each_call_is_traced_at_each_call(process, tiny):
    case = CASE.with_(strategy="functional_submodel_per_call", points="middle", mode=COMPILED)
    call, traces = growth.growth_call(process, case)
    for _ in range(3):
        call()
    assert traces() == 3 or BACKEND == "torch"
    call, traces = growth.growth_call(process, case.with_(strategy="functional_submodel"))
    for _ in range(3):
        call()
    assert traces() == 1 or BACKEND == "torch"


@pytest.mark.parametrize(
    ("name", "mode", "selection", "reason"),
    [
        ("functional_submodel_per_call", COMPILED, "all", "a compiled function builds the sub-model once"),
        ("functional_submodel_per_call", "predict", "all", "predict needs a model to call it on"),
        ("functional_submodel_per_call", "eager", "all", ""),
        ("on_request", "predict", "all", "predict passes no arguments to call"),
        ("on_request", "predict", OUTPUT, ""),
        ("functional_submodel", "predict", "all", ""),
    ],
)
def test_what_makes_no_sense_is_skipped_with_the_reason(name, mode, selection, reason):
    found = strategies.find(name).skipped(CASE.with_(strategy=name, mode=mode, points=selection))
    assert found.startswith(reason)
    assert bool(found) == bool(reason)


def test_minilm_gives_the_hidden_states_that_transformers_gives(process):
    """Known-good values made once by tests/data/make_minilm_hidden_states.py with transformers'
    `output_hidden_states=True`. Tolerance 5e-3: KerasHub's BERT uses the approximate gelu."""
    loaded, every = process.of(CASE.with_(model="minilm"))
    inputs = {
        "token_ids": np.array(GOOD["token_ids"], "int32"),
        "padding_mask": np.array(GOOD["padding_mask"], "int32"),
        "segment_ids": np.zeros((2, 16), "int32"),
    }
    placed = backends.place(inputs, "eager", 2)
    found = Plan(loaded.model, every).values(flat_inputs(loaded.model, placed), {})
    assert [point.name for point in every] == list(GOOD["points"])
    for point, state in zip(every, found, strict=True):
        known = GOOD["points"][point.name]
        positions = tuple(np.array(known["positions"]).T)
        assert np.abs(backends.to_numpy(state)[positions] - known["values"]).max() < 5e-3, point.name
        real = backends.to_numpy(state)[inputs["padding_mask"] == 1]
        assert abs(real.mean() - known["mean"]) < 1e-3
        assert abs(real.std() - known["standard_deviation"]) < 5e-3


def test_without_dropout_attention_is_fused_and_the_hidden_states_are_the_same(process):
    """With a rate of dropout, Keras's attention computes its scores apart, even where nothing is dropped."""
    import keras

    found = []
    for name, dropout in (("minilm", 0.1), ("minilm_fused", 0.0)):
        case = CASE.with_(model=name, strategy="functional_submodel", points="all", batch=2, length=64)
        layers = process.of(case)[0].model._flatten_layers()
        rates = {x._dropout for x in layers if isinstance(x, keras.layers.MultiHeadAttention)}
        assert rates == {dropout}
        inputs = process.inputs(case)
        states = process.built(case)(backends.place(inputs, "eager", 2))
        found.append([backends.to_numpy(state)[inputs["padding_mask"] == 1] for state in states])
    for one, other in zip(*found, strict=True):
        assert np.abs(one - other).max() < 1e-4


def test_minilms_own_tokenizer_gives_the_token_ids_that_transformers_gives(process):
    loaded, _ = process.of(CASE.with_(model="minilm"))
    loaded.inputs(1, 16)
    for text, known in zip(GOOD["texts"], GOOD["token_ids"], strict=True):
        ids = np.asarray(loaded.text.tokenizer(text)).tolist()
        assert [101, *ids, 102] == [i for i in known if i != 0]


def test_inputs_are_whole_sentences_with_true_padding(process, tiny):
    loaded, _ = tiny
    inputs = loaded.inputs(6, 64)
    ids, mask = inputs["token_ids"], inputs["padding_mask"]
    assert ids.shape == mask.shape == (6, 64)
    assert ids.dtype == mask.dtype == np.int32
    assert (ids[:, 0] == 101).all()
    for row, kept in zip(ids, mask, strict=True):
        assert row[kept == 1][-1] == 102
        assert (row[kept == 0] == 0).all()
        assert kept.sum() > 32  # packed: a row is mostly text
    assert len({tuple(row) for row in ids}) == 6


def test_a_selection_that_the_model_does_not_have_is_told(tiny):
    _, every = tiny
    with pytest.raises(UserError, match="points 'last_four' needs 4 blocks, the model has 2"):
        every.select("last_four")
    with pytest.raises(UserError, match="unknown point 'block_2'; did you mean 'block_1'"):
        every.select("block_2")
    with pytest.raises(UserError, match="point 3: the model has 3 points, 0 to 2"):
        every.select("3")


def test_selections_name_the_points_that_they_say(process):
    _, every = process.of(CASE.with_(model="minilm"))

    def names(selection):
        return [point.name for point in every.select(selection)]

    assert names("middle") == ["block_2"]
    assert names("last") == ["block_5"]
    assert names("last_four") == ["block_2", "block_3", "block_4", "block_5"]
    assert names("all") == ["embeddings", *(f"block_{i}" for i in range(6))]
    assert names("block_3,0,-1") == ["block_3", "embeddings", "block_5"]


def test_the_decoder_has_its_blocks_and_is_given_the_text(process, monkeypatch):
    small = models.decoder(2, 32, 4, 2, 64)
    monkeypatch.setattr(
        models,
        "MODELS",
        tuple(replace(m, load=small) if m.name == "decoder_1b" else m for m in models.MODELS),
    )
    models.find.cache_clear()
    loaded = models.LoadedModel("decoder_1b")
    models.find.cache_clear()
    every = points.hidden_states(loaded.model)
    assert [point.name for point in every.named] == ["embeddings", "block_0", "block_1", "final_norm"]
    assert set(loaded.inputs(2, 8)) == {"token_ids", "padding_mask"}


def test_the_normed_final_state_is_a_point_of_its_own(process):
    import keras_hub

    gpt = keras_hub.models.GPT2Backbone(
        vocabulary_size=20, num_layers=2, num_heads=2, hidden_dim=8, intermediate_dim=8
    )
    every = points.hidden_states(gpt)
    assert [point.name for point in every.named] == ["embeddings", "block_0", "block_1", "final_norm"]
    assert every.final_norm.tensor is gpt.outputs[0]
    assert every.select("last")[0].name == "block_1"
    assert "final_norm" not in [point.name for point in every.select("all")]
