"""Models and ways of one's own: named, loaded, measured beside ours; their mistakes are told as theirs."""

import sys
import textwrap

import numpy as np
import pytest

from hiddencost import measure, models, own, rotation, strategies
from hiddencost.errors import UserError
from hiddencost.grid.planning import Task
from hiddencost.records import REFERENCE, TWIN, Case

CODE = """
import keras
import numpy as np

NUMBER = 3

def _made():
    ids = keras.Input((None,), dtype="int32", name="ids")
    x = keras.layers.Embedding(7, 8)(ids)
    for _ in range(3):
        x = keras.layers.Add()([x, keras.layers.Dense(8, "relu")(keras.layers.LayerNormalization()(x))])
    return keras.Model(ids, x)

def alone():
    return _made()

def with_inputs():
    return _made(), {"ids": np.array([[1, 2, 3, 4, 5, 6]])}

def with_function():
    return _made(), lambda rows, length: np.full((rows, length), 5)

def with_other_names():
    return _made(), {"tokens": np.zeros((1, 6))}

def failing():
    raise ValueError("no weights here")

def a_model(model, points, wanted):
    return keras.Model(model.inputs, [point.tensor for point in wanted])

def a_function(model, points, wanted):
    inner = a_model(model, points, wanted)
    return lambda inputs: inner(inputs)

def a_number(model, points, wanted):
    return 3

def raises_when_called(model, points, wanted):
    def run(inputs):
        return inputs["ids"].no_such_thing
    return run
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A folder with a module of one's own, which is where we are."""
    (tmp_path / "mine.py").write_text(textwrap.dedent(CODE))
    package = tmp_path / "mypackage"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "inner.py").write_text("from elsewhere import *")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(own, "_folders", set())
    caches = models.find, own.load
    yield tmp_path
    for cached in caches:
        cached.cache_clear()
    sys.modules.pop("mine", None)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("mine:alone", None),
        ("mypackage.inner:anything", None),  # what comes in by * is told when it is loaded
        ("mine:alonee", "'mine:alonee': {folder}/mine.py has no 'alonee'; did you mean 'alone'?"),
        (
            "nomine:model",
            "module 'nomine' is not found: name it as seen from the current folder, {folder}, "
            "or put its folder on PYTHONPATH",
        ),
        (
            "mine.inner:model",
            "module 'mine.inner' is not found: name it as seen from the current folder, {folder}, "
            "or put its folder on PYTHONPATH",
        ),
        (
            "mypackage.other:model",
            "module 'mypackage.other' is not found: package 'mypackage' has no such module",
        ),
        ("mine:a:b", "'mine:a:b': what is your own is named package.module:function"),
    ],
)
def test_a_name_is_checked_without_running_anything(mine, name, line):
    if line is None:
        own.check(name)
        return
    with pytest.raises(UserError) as caught:
        own.check(name)
    assert str(caught.value) == line.format(folder=mine)


def test_code_that_is_no_python_is_told(mine):
    (mine / "mine.py").write_text("def broken(:")
    with pytest.raises(UserError, match=r"'mine:broken': .*mine.py cannot be read: invalid syntax"):
        own.check("mine:broken")


def test_what_is_no_function_is_told(mine, process):
    with pytest.raises(UserError, match="'mine:NUMBER': is no function"):
        own.load("mine:NUMBER")


def test_a_model_alone_gets_random_inputs_within_its_vocabulary(mine, process):
    loaded = models.LoadedModel("mine:alone")
    inputs = loaded.inputs(40, 9)
    assert {name: array.shape for name, array in inputs.items()} == {"ids": (40, 9)}
    assert set(np.unique(inputs["ids"])) == set(range(7))
    np.testing.assert_array_equal(inputs["ids"], loaded.inputs(40, 9)["ids"])
    assert (
        loaded.model.dtype_policy.name,
        models.LoadedModel("mine:alone", "bfloat16").model.dtype_policy.name,
    ) == (
        "float32",
        "bfloat16",
    )


def test_inputs_that_came_with_a_model_are_repeated_and_cut(mine, process):
    inputs = models.LoadedModel("mine:with_inputs").inputs(2, 4)
    assert inputs["ids"].tolist() == [[1, 2, 3, 4], [1, 2, 3, 4]]
    assert models.LoadedModel("mine:with_function").inputs(2, 3)["ids"].tolist() == [[5, 5, 5], [5, 5, 5]]
    with pytest.raises(UserError, match=r"input 'ids' came with shape \(1, 6\): \(2, 7\) was asked for"):
        models.LoadedModel("mine:with_inputs").inputs(2, 7)
    with pytest.raises(UserError, match=r"takes inputs \['ids'\], and came with \['tokens'\]"):
        models.LoadedModel("mine:with_other_names").inputs(2, 4)


def test_what_is_no_functional_model_is_refused(mine, process):
    (mine / "mine.py").write_text("def three():\n    return 3\n")
    with pytest.raises(UserError, match="int is no Keras model"):
        models.LoadedModel("mine:three")


@pytest.mark.parametrize("way", ["a_model", "a_function"])
def test_a_way_of_ones_own_is_measured_beside_ours_and_a_failing_one_costs_one_case(mine, process, way):
    plain = Case(model="mine:alone", strategy=REFERENCE, batch=1, length=8)
    names = [f"mine:{way}", "mine:raises_when_called", "mine:a_number", "functional_submodel"]
    cases = [plain, plain.with_(strategy=TWIN), *(plain.with_(strategy=n, points="last") for n in names)]
    tasks = [Task(suite="forward", case=case, seconds=0.1) for case in cases]
    found = {m.case.strategy: m for m in rotation.rotation(process, tasks) if m.metric == "seconds"}
    ok = {REFERENCE, TWIN, f"mine:{way}", "functional_submodel"}
    assert {name for name, m in found.items() if m.state == "ok"} == ok
    assert found["mine:raises_when_called"].state == "crashed"
    assert found["mine:raises_when_called"].reason.startswith(
        'in your code, mine.py, line 41, in run: return inputs["ids"].no_such_thing: AttributeError: '
    )
    assert found["mine:a_number"].reason == (
        "'mine:a_number' returned int: a strategy returns a keras.Model, or a function of inputs"
    )


def test_a_model_that_fails_is_told_as_theirs(mine, process):
    with pytest.raises(ValueError, match="no weights here") as caught:
        models.LoadedModel("mine:failing")
    assert measure.told(caught.value) == (
        'in your code, mine.py, line 27, in failing: raise ValueError("no weights here"): '
        "ValueError: no weights here"
    )


def test_predict_needs_a_model(mine, process):
    from hiddencost import backends
    from hiddencost.points import hidden_states

    loaded = models.LoadedModel("mine:alone")
    states = hidden_states(loaded.model)
    way = strategies.find("mine:a_function").build(loaded.model, states, states.select("last"))
    with pytest.raises(UserError, match="predict needs a Keras model, and this way is a function"):
        backends.compile_(way, "predict", loaded.model)


def test_one_stack_of_several_is_named_after_the_model(mine, process):
    assert models.stack_of("preset:folder#encoder") == "encoder"
    assert models.stack_of("minilm") is None
    assert models.find("minilm#main") is models.find("minilm#main")
    _, states = process.of(Case(model="bert_tiny#main", strategy=REFERENCE))
    assert [point.name for point in states] == ["embeddings", "block_0", "block_1"]
    with pytest.raises(UserError, match="unknown stack 'mian'; did you mean 'main'"):
        process.of(Case(model="bert_tiny#mian", strategy=REFERENCE))


@pytest.mark.parametrize("name", ["preset:bert_base_en", "keras_hub:bert_base_en", "keras_nlp:bert_base_en"])
def test_a_preset_by_its_name_is_no_module(name):
    assert own.is_own(name)  # by its looks
    assert models.find(name).is_preset
    models.check(name)  # only loading it can tell more


def test_a_preset_that_kerashub_does_not_have_is_told_with_the_nearest():
    with pytest.raises(UserError) as refusal:
        models.LoadedModel("preset:bert_bse_en")
    assert str(refusal.value).startswith(
        "preset 'bert_bse_en' is none of KerasHub's; the nearest are 'bert_base_en', '"
    )
