"""Look-ups of a layer: by name, by index, the `layers` property, and a dict made in advance."""

import pytest

from hiddencost.suites import REPLAY


@pytest.mark.benchmark(timer=REPLAY)
def test_lookup(task, times, benchmark):
    benchmark.group = f"{task.case.layers} layers, position {task.case.position}"
    benchmark.pedantic(REPLAY.play(times), rounds=len(times))
