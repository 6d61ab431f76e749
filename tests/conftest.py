"""Fixtures that load a model once for all tests; the backend starts in this process at the first of them."""

import pytest
from on_backend import BACKEND

from hiddencost import backends, measure, points
from hiddencost.grid import Time
from hiddencost.records import REFERENCE, Case


@pytest.fixture(scope="session")
def process():
    """A measuring process: one block, few rounds."""
    backends.start(BACKEND, threads=1)
    return measure.Process(block=0, seed=1, settings=Time(blocks=5, seconds=0.2, min_rounds=4))


@pytest.fixture(scope="session")
def tiny(process):
    """bert_tiny and its points: 2 blocks, 128 wide."""
    loaded, every = process.of(Case(model="bert_tiny", strategy=REFERENCE, backend=BACKEND))
    assert every == points.hidden_states(loaded.model)
    return loaded, every
