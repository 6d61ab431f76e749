"""How far are the A/A twins of a run from 1, and what explains it?

    python bench/experiments/twins.py RUN FOLDER

Three suspects: which of the two functions was traced first (the records of a block stand in that order);
the place that a function has in memory, which stays for all calls of a process and is shared by functions
that are traced one after the other; and the calls within a process, of which the first half is held against
the second. Writes FOLDER/twins.md.
"""

import math
import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hiddencost import stats, store
from hiddencost.records import REFERENCE, TWIN

HEADER = (
    "group",
    "blocks",
    "mean offset",
    "twin traced first",
    "reference traced first",
    "sd between blocks",
    "of it within blocks",
    "correlation of neighbours",
)

FEWEST_CALLS = 9
"""With fewer of the twin in a block its halves are no measure."""


class Offset(NamedTuple):
    """log(twin / reference) of one block, and its standard error within it. neighbours: products of the
    effects, less their mean, of full passes that were traced one after the other; and their squares."""

    log_ratio: float
    within: float
    twin_first: bool
    neighbours: float
    squares: float


def offsets(run):
    """group -> an Offset for each block."""
    table, measured = stats.Table(run), tuple(run.measurements)
    found = defaultdict(list)
    for twin in table.cases("seconds", strategy=TWIN):
        group = twin.group
        for block in table.blocks(twin, "seconds"):
            traced = [
                m.case
                for m in measured
                if m.metric == "first_call_seconds" and m.block == block and m.case.group == group
            ]
            if not traced:  # predict over more examples runs what is traced
                continue
            calls = sorted(
                (place, m.case.strategy, math.log(value))
                for m in table.rotation(str(group), block)
                for place, value in zip(m.places, m.values, strict=True)
            )
            few = len(table.blocks(twin, "seconds")[block]) < FEWEST_CALLS
            halves = [offset(part) for part in (calls[: len(calls) // 2], calls[len(calls) // 2 :])]
            effects = table.block_effects(str(group), block)
            full = np.array([effects[case] for case in traced if case in effects and case.points != "middle"])
            full -= full.mean()
            found[group].append(
                Offset(
                    effects[twin] - effects[group],
                    math.nan if few else abs(halves[0] - halves[1]) / 2,
                    traced.index(twin) < traced.index(group),
                    float((full[1:] * full[:-1]).mean()),
                    float((full**2).mean()),
                )
            )
    return found


def offset(calls):
    """log(twin / reference) from calls in their order."""
    found, _ = stats.effects([name for _, name, _ in calls], [log for _, _, log in calls])
    return found[TWIN] - found[REFERENCE]


def main(run, folder):
    lines = [
        "# The A/A twins: how far from 1, and why",
        "",
        f"From `{run}`, by `python bench/experiments/twins.py`. Offsets in percent, of block means. "
        "Within blocks: the first half of the calls against the second. Neighbours: full passes that were "
        "traced one after the other; where they are alike, a function's place in memory decides, and only "
        "more processes help.",
        "",
        f"| {' | '.join(HEADER)} |",
        "|" + " --- |" * len(HEADER),
    ]
    for group, rows in offsets(store.read(run)).items():
        ratios = np.array([row.log_ratio for row in rows])
        first = np.array([row.twin_first for row in rows])
        within = math.sqrt(np.mean([row.within**2 for row in rows]))
        told = "–" if math.isnan(within) else f"{within:.2%}"
        alike = sum(row.neighbours for row in rows) / sum(row.squares for row in rows)
        lines.append(
            f"| {group.mode} {group.batch} x {group.length} | {len(rows)} | {ratios.mean():+.2%} "
            f"| {_mean(ratios[first])} | {_mean(ratios[~first])} | {ratios.std(ddof=1):.2%} | {told} "
            f"| {alike:+.2f} |"
        )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "twins.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def _mean(ratios):
    if len(ratios) < 2:
        return "–"
    error = ratios.std(ddof=1) / math.sqrt(len(ratios))
    return f"{ratios.mean():+.2%} ± {error:.2%} ({len(ratios)})"


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
