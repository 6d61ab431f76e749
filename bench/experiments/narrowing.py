"""How narrow does the gate's interval become with time, in many short blocks or in few long ones?

    python bench/experiments/narrowing.py FOLDER

Two sides that are the same, side by side as `hiddencost gate --against` measures them, on the grid of
`make calibrate` with calls of more than ten milliseconds, in many long blocks. Then the blocks are dealt, in
the order in which they were measured, to decisions that take so long, each with blocks of its own; and cut to
their first seconds, of which more fit into that time. Each decision is judged as the gate judges first. (What
it suspects it measures again.) Writes FOLDER/narrowing.md.
"""

import sys
import tempfile
import time
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from statistics import median

import msgspec

from hiddencost import environment, gate, grid, store, trees
from hiddencost.cli.gate import decide
from hiddencost.formatting import piped, quantity
from hiddencost.gate.outcome import REGRESSIONS
from hiddencost.stats import FEWEST_BLOCKS

BLOCKS = 48
CALLED = (1, 2, 3, 5, 8)
"""Seconds of calls in a block: the last is measured, the others are its beginning."""
DECIDED = (45, 90, 180, 360)
"""Seconds of a decision."""
BATCH = 16
WANTED = 0.005
"""Half-width."""


def measured(planned, text, folder):
    """Both sides, and the seconds that a block takes beside its calls: starting, tracing, checking values."""
    began = time.perf_counter()
    sides = trees.current(), trees.current()
    with redirect_stdout(StringIO()):
        decide(sides, planned, text, folder, {**grid.GATED, **planned.gate})
    beside = (time.perf_counter() - began) / planned.time.blocks - planned.time.seconds
    return store.read(folder / "before"), store.read(folder / "after"), beside


def beginnings(runs, share):
    """Both runs with the first calls alone, that share of all that were made in a block."""
    ends = {}
    for run in runs:
        for m in run.measurements:
            if m.metric == "seconds" and m.places:
                ends[m.block] = max(ends.get(m.block, 0), m.places[-1] + 1)

    def cut(m):
        kept = [pair for pair in zip(m.places, m.values, strict=True) if pair[0] < share * ends[m.block]]
        places, values = zip(*kept, strict=True)
        return msgspec.structs.replace(m, places=places, values=values)

    for run in runs:
        times = tuple(cut(m) for m in run.measurements if m.metric == "seconds")
        yield msgspec.structs.replace(run, measurements=times)


def decisions(runs, blocks, thresholds):
    """What is suspected in each decision of so many blocks."""
    for first in range(0, BLOCKS - blocks + 1, blocks):
        dealt = [
            msgspec.structs.replace(
                run, measurements=tuple(m for m in run.measurements if first <= m.block < first + blocks)
            )
            for run in runs
        ]
        yield [change for change in gate.between_sides(*dealt, thresholds, gate.SUSPECT) if change.timed]


def main(folder):
    planned, text = grid.read(grid.grid_path("calibrate"))
    planned.memory.clear()
    for axes in planned.forward:
        axes.batch = [BATCH]
    planned.time.blocks, planned.time.seconds = BLOCKS, CALLED[-1]
    with tempfile.TemporaryDirectory() as name:
        before, after, beside = measured(planned, text, Path(name) / "run")
    thresholds = {**grid.GATED, **planned.gate}
    rows, told, shortest = [], [], {}
    for called in CALLED:
        runs = list(beginnings((before, after), called / CALLED[-1]))
        row = [quantity(called, unit="s")]
        for seconds in DECIDED:
            blocks = int(seconds / (beside + called))
            if not FEWEST_BLOCKS <= blocks <= BLOCKS:
                row.append("–")
                continue
            found = list(decisions(runs, blocks, thresholds))
            told += found
            half = median((c.high - c.low) / 2 for changes in found for c in changes)
            row.append(f"{half:.2%} ({blocks} blocks, {len(found)} times)")
            if half <= WANTED:
                shortest.setdefault(seconds, (called, blocks))
        rows.append(row)
    least = min(shortest, default=None)
    verdict = f"No decision of these has {WANTED:.1%}."
    if least:
        called, blocks = shortest[least]
        verdict = f"{WANTED:.1%} takes {least} s here, in {blocks} blocks of {called} s."
    call = median(change.before for changes in told for change in changes)
    suspected = sum(any(change.word in REGRESSIONS for change in changes) for changes in told)
    lines = [
        "# How narrow does the gate's interval become with time?",
        "",
        f"Identical code, {len(told[0])} cases, a call takes {quantity(call, unit='s')}. "
        f"{environment.processor()}, 2 sides in turns on one core, {BLOCKS} blocks of "
        f"{CALLED[-1]} s of calls, each of which takes {quantity(beside, unit='s')} beside them. By "
        "`make narrowing` (bench/experiments/narrowing.py).",
        "",
        "Half-width of the 95 % interval: the median of all cases of all decisions. A decision that takes so "
        f"long has as many blocks as fit into it, with so many seconds of calls. {verdict} Suspicions (all "
        f"are false): in {suspected} of {len(told)} decisions.",
        "",
        *piped(["calls of a block", *(f"a decision of {seconds} s" for seconds in DECIDED)], rows),
    ]
    (folder / "narrowing.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
