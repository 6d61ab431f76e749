"""Data sets through `predict`: final output, all hidden states, and all of them pooled in the model."""

import pytest

from hiddencost.suites import REPLAY


@pytest.mark.benchmark(timer=REPLAY)
def test_dataset(task, times, benchmark):
    benchmark.group = str(task.case.group)
    benchmark.pedantic(REPLAY.play(times), rounds=len(times))
