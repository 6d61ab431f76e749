"""The cases of the calibration as a plain pytest-benchmark file measures them: one after the other, each by
itself. What the gate is compared with.

    pytest test_plain.py --hiddencost-slower 0.03 --benchmark-json=after.json ...
"""

import time

import pytest

from hiddencost import backends, grid, measure, rotation
from hiddencost.grid import planning

SLOWED = "always_return_all"
PLANNED, _ = grid.read(grid.grid_path("calibrate"))
TASKS = [task for task in planning.timed_jobs(PLANNED)[0].tasks if task.case.strategy != "reference_again"]


@pytest.fixture(scope="module")
def process():
    backends.start("tensorflow", PLANNED.time.threads)
    return measure.Process(0, 1, PLANNED.time)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: str(task.case))
def test_plain(task, process, benchmark, request):
    case = task.case
    placed = backends.place(process.inputs(case), case.mode, case.batch)
    _, run, _ = process.compiled(case)
    share = request.config.getoption("--hiddencost-slower") if case.strategy == SLOWED else 0.0
    fault = planning.Fault(strategy=case.strategy, slower=share)

    def call():
        began = time.perf_counter_ns()
        backends.synchronize(run(placed))
        rotation.seconds_since(began, fault)

    call()
    benchmark(call)
