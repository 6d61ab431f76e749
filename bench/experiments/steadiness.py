"""How steady is this machine's speed, and how narrow an interval does it allow?

    python bench/experiments/steadiness.py FOLDER

The same work is done over and over on one core: additions, which touch no memory; copies of a size that
stays in the core's own cache, in the one that cores share, and in neither; and calls of the model that
`make calibrate` measures. Nothing is compared: the calls are dealt to two sides that do not exist, in turns
as long as the gate's, and judged as the gate judges two sides. So the interval that comes out is the
narrowest that its order and its estimator can give on this machine, without a second process. The kinds of
work take turns, a block of the gate's length each. Writes FOLDER/steadiness.md.
"""

import gc
import itertools
import math
import sys
import time
from itertools import groupby
from pathlib import Path
from statistics import median

import numpy as np

from hiddencost import backends, environment, grid, measure, stats
from hiddencost.formatting import piped, quantity
from hiddencost.grid import planning
from hiddencost.records import REFERENCE, TWIN
from hiddencost.rotation import VISIT_SECONDS, on_one_core

DECISIONS = 3
"""For how many decisions of the gate each kind of work has blocks."""
SLOW = 1.1
"""Of the usual time of the fastest tenth of the calls, from which on the machine is called slow."""
COPIED = {"copies in the core's cache": 2**18, "in the shared cache": 2**22, "in memory": 2**26}
"""Bytes of source and target together."""


def additions():
    return sum(range(10_000))


def copies(size):
    source, target = np.ones(size // 16), np.zeros(size // 16)
    return lambda: np.copyto(target, source)


def model(planned):
    """A call of the reference that the grid measures."""
    (case,) = {task.case for task in planning.timed_jobs(planned)[0].tasks if task.case.strategy == REFERENCE}
    process = measure.Process(0, 1, planned.time)
    placed = backends.place(process.inputs(case), case.mode, case.batch)
    run = process.compiled(case)[1]
    return lambda: backends.synchronize(run(placed))


def seconds_of(work):
    """Of one time, from a tenth of a second of it."""
    began, count = time.perf_counter(), 0
    while (spent := time.perf_counter() - began) < 0.1:
        work()
        count += 1
    return spent / count


def traced(work, times, seconds):
    """What each call took, which does the work so many times, for so many seconds."""
    taken = []
    gc.collect()
    gc.disable()
    began = now = time.perf_counter()
    while now < began + seconds:
        for _ in range(times):
            work()
        then = time.perf_counter()
        taken.append(then - now)
        now = then
    gc.enable()
    return np.array(taken)


def slowness(blocks):
    """The share of the time in which the machine was slow, and for how long at a time (median)."""
    usual = np.median(np.sort(np.concatenate(blocks))[: max(1, sum(map(len, blocks)) // 10)])
    slow = [
        math.fsum(stretch)
        for block in blocks
        for is_slow, stretch in groupby(block, key=lambda taken: taken > SLOW * usual)
        if is_slow
    ]
    return math.fsum(slow) / sum(block.sum() for block in blocks), median(slow or [0.0])


def shifts(taken, cases):
    """What one side of two that are the same seems to take more (log) in each case, from the calls of a
    block: cases and sides take turns as the gate's do."""
    turn = max(1, round(VISIT_SECONDS / np.median(taken)))
    order = [(case, side) for case in range(cases) for side in (0, 1, 1, 0) for _ in range(turn)]
    called = zip(itertools.cycle(order), np.log(taken), strict=False)
    visits = [
        (name, median(log for _, log in visit)) for name, visit in groupby(called, key=lambda call: call[0])
    ]
    found, _ = stats.effects(*zip(*visits, strict=True))
    return [found[case, 1] - found[case, 0] for case in range(cases)]


def half_widths(shifted, blocks):
    """Of the interval of every case of as many decisions as there are blocks for, each of so many."""
    for first in range(0, len(shifted) - blocks + 1, blocks):
        for case in zip(*shifted[first : first + blocks], strict=True):
            _, low, high = stats.t_interval(case)
            yield (math.exp(high) - math.exp(low)) / 2


def main(folder):
    _, threads = backends.start("tensorflow", 1)
    planned, _ = grid.read(grid.grid_path("calibrate"))
    captured = environment.capture(0, threads, own_load=1)
    cases = len({task.case for task in planning.timed_jobs(planned)[0].tasks if task.case.strategy != TWIN})
    length, blocks = planned.time.seconds, planned.time.blocks
    works = {
        "additions": additions,
        **{name: copies(size) for name, size in COPIED.items()},
        "calls of the model": model(planned),
    }
    found = {name: [] for name in works}
    with on_one_core():
        each = {name: min(seconds_of(work) for _ in range(5)) for name, work in works.items()}
        call = each["calls of the model"]
        for _ in range(DECISIONS * blocks):
            for name, work in works.items():
                found[name].append(traced(work, max(1, round(call / each[name])), length))
    rows = []
    for name, taken in found.items():
        share, slow_seconds = slowness(taken)
        rows.append(
            (
                name,
                quantity(float(np.median(np.concatenate(taken))), unit="s"),
                f"{share:.0%}",
                quantity(slow_seconds, unit="s"),
                f"{np.std(np.concatenate([np.diff(np.log(block)) for block in taken])):.1%}",
                f"{median(half_widths([shifts(block, cases) for block in taken], blocks)):.2%}",
            )
        )
    lines = [
        "# How steady is this machine, and how narrow an interval does it allow?",
        "",
        f"{captured.processor}, {captured.cores} cores, load average {captured.load[0]:g}; on one core, "
        f"{DECISIONS * blocks} blocks of {length:g} s of each kind of work, by turns. By `make steadiness` "
        "(bench/experiments/steadiness.py).",
        "",
        "A call is as much of the work as takes about as long as one of the model. Slow: "
        f"{SLOW:g} times the usual time of the fastest tenth of the calls, or more. A step: from a call to "
        "the next, log ratio. A/A half-width: the calls, dealt to two sides that are the same, in turns of "
        f"{quantity(VISIT_SECONDS, unit='s')} among {cases} cases, judged as the gate judges two sides: the "
        f"median of {DECISIONS} decisions of {blocks} blocks, {cases} cases each.",
        "",
        *piped(
            (
                "work",
                "a call takes",
                "of the time slow",
                "slow for (median)",
                "sd of a step",
                "A/A half-width",
            ),
            rows,
        ),
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "steadiness.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
