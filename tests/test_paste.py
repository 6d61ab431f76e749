"""The lines that the page gives to paste are run as they stand: they must leave the hidden states."""

import numpy as np
import pytest
from on_backend import BACKEND, MODES

from hiddencost import hidden_states
from hiddencost.page.choosing import WAYS, paste
from hiddencost.records import REFERENCE, TWIN, Case
from hiddencost.strategies import STRATEGIES

BY_NAME = {strategy.name: strategy for strategy in STRATEGIES}


def test_every_way_but_the_reference_has_lines():
    files = {"streamed"}  # for which there is `hiddencost extract`
    assert set(WAYS) == BY_NAME.keys() - {REFERENCE, TWIN} - files


def test_other_libraries_and_own_ways_have_none():
    assert paste("output_hidden_states", "eager", "transformers", "all") == ""
    assert paste("functional_submodel", "eager", "nnsight", "all") == ""
    assert paste("mine:'); import os #", "eager", "tensorflow", "all") == ""


def test_points_cannot_become_code():
    lines = paste("functional_submodel", "eager", "tensorflow", 'x"); import os #')
    assert 'select("x\\"); import os #")' in lines


@pytest.fixture(scope="module")
def bert(tiny):
    import keras

    loaded, points = tiny
    inputs = loaded.inputs(2, 8)
    every = keras.Model(loaded.model.inputs, {point.name: point.tensor for point in points})
    expected = every.predict(inputs, verbose=0)
    return loaded.model, inputs, expected


CASES = [
    (strategy, mode, points)
    for strategy in WAYS
    for mode in MODES
    for points in ("middle", "all", "block_0,-1")
    if (points == "middle" or (mode == "eager" and strategy != "functional_submodel_per_call"))
    and not BY_NAME[strategy].skipped(Case(model="m", strategy=strategy, mode=mode, points=points))
]


@pytest.mark.parametrize(("strategy", "mode", "points"), CASES)
def test_the_lines_leave_the_hidden_states(bert, strategy, mode, points):
    import keras

    backbone, inputs, expected = bert
    names = {"backbone": backbone, "inputs": inputs}
    exec(paste(strategy, mode, BACKEND, points), names)
    wanted = hidden_states(backbone).select(points)
    assert list(names["states"]) == [point.name for point in wanted]
    for name, state in names["states"].items():
        np.testing.assert_allclose(keras.ops.convert_to_numpy(state), expected[name], atol=2e-5)
