"""How narrow does the gate's interval become with time?

    python bench/experiments/narrowing.py FOLDER

Two sides that are the same, side by side as `hiddencost gate --against` measures them, on the grid of
`make calibrate` with calls of more than ten milliseconds, for many blocks. Then the blocks are dealt, in the
order in which they were measured, to decisions of few blocks and of more: each decision of a length has
blocks of its own, and is judged as the gate judges first. (What it suspects it measures again.) Writes
FOLDER/narrowing.md.
"""

import sys
import tempfile
import time
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from statistics import median

import msgspec
import numpy as np

from hiddencost import environment, gate, grid, store, trees
from hiddencost.cli.gate import decide
from hiddencost.columns import columns_of, with_rows
from hiddencost.formatting import piped, quantity
from hiddencost.gate.outcome import REGRESSIONS

BLOCKS = 96
LENGTHS = (8, 16, 24, 32, 48, 96)
"""Blocks of a decision; the gate's grids have the first."""
BATCH = 16
WANTED = 0.005
"""Half-width."""


def measured(planned, text, folder):
    """Both sides, and the seconds of a block."""
    began = time.perf_counter()
    sides = trees.current(), trees.current()
    with redirect_stdout(StringIO()):
        decide(sides, planned, text, folder, {**grid.GATED, **planned.gate})
    taken = (time.perf_counter() - began) / planned.time.blocks
    return store.read(folder / "before"), store.read(folder / "after"), taken


def decisions(before, after, blocks, thresholds):
    """What is suspected of the times in each decision of so many blocks."""
    for first in range(0, BLOCKS - blocks + 1, blocks):
        dealt = range(first, first + blocks)
        sides = (with_rows(run, np.isin(columns_of(run).block, dealt)) for run in (before, after))
        yield [change for change in gate.between_sides(*sides, thresholds, gate.SUSPECT) if change.timed]


def main(folder):
    planned, text = grid.read(grid.grid_path("calibrate"))
    planned.memory.clear()
    for axes in planned.forward:
        axes.batch = [BATCH]
    planned = msgspec.structs.replace(planned, time=msgspec.structs.replace(planned.time, blocks=BLOCKS))
    with tempfile.TemporaryDirectory() as name:
        before, after, block_seconds = measured(planned, text, Path(name) / "run")
    rows, enough = [], None
    for blocks in LENGTHS:
        found = list(decisions(before, after, blocks, {**grid.GATED, **planned.gate}))
        told = [change for changes in found for change in changes]
        half = median((change.high - change.low) / 2 for change in told)
        seconds = quantity(blocks * block_seconds, unit="s")
        enough = enough or (half <= WANTED and seconds)
        rows.append(
            (
                str(blocks),
                seconds,
                f"{len(found)}",
                f"{half:.2%}",
                f"{median(change.smallest_detectable for change in told):.2%}",
                f"{max(abs(change.ratio - 1) for change in told):.2%}",
                f"{sum(any(change.word in REGRESSIONS for change in changes) for changes in found)}",
            )
        )
    call = median(change.before for change in told)
    verdict = f"{WANTED:.1%} takes {enough} here." if enough else f"{WANTED:.1%} was not reached here."
    header = ["blocks", "a decision takes", "decisions", "half-width", "smallest slowdown seen"]
    header += ["furthest from 1", "suspicions"]
    lines = [
        "# How narrow does the gate's interval become with time?",
        "",
        f"Identical code, {len(told)} cases, a call takes {quantity(call, unit='s')}. "
        f"{environment.processor()}, 2 sides in turns on one core, {BLOCKS} blocks dealt to decisions. By "
        "`make narrowing` (bench/experiments/narrowing.py).",
        "",
        f"Half-width of the 95 % interval, and the smallest slowdown that would have been seen with 80 % "
        f"power: medians of all cases of all decisions of a length. {verdict}",
        "",
        *piped(header, rows),
    ]
    (folder / "narrowing.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
