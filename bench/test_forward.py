"""Forward passes: every way to read hidden states against the plain forward pass, in one rotation."""

import pytest

from hiddencost.suites import REPLAY


@pytest.mark.benchmark(timer=REPLAY)
def test_forward(task, times, benchmark):
    benchmark.group = str(task.case.group)
    benchmark.pedantic(REPLAY.play(times), rounds=len(times))
