"""How far are the A/A twins of a run from 1, and what explains it?

    python bench/experiments/twins.py RUN FOLDER

Two suspects: the order in which the two functions were traced (the records of a block stand in that
order), and the process: a function's place in memory is drawn once in a process, so its offset stays for
all rounds of the block. The second shows as a spread between blocks that is wider than the spread within
them explains: that of the first half of a block's calls against the second. Writes FOLDER/twins.md.
"""

import math
import sys
from pathlib import Path

import numpy as np

from hiddencost import stats, store
from hiddencost.records import REFERENCE, TWIN


def offsets(run):
    """(mode, block, log ratio of the block, its standard error within it, twin traced first) of each twin."""
    table = stats.Table(run)
    traced = {
        (m.case, m.block): number
        for number, m in enumerate(run.measurements)
        if m.metric == "first_call_seconds"
    }
    for twin in table.cases("seconds", strategy=TWIN):
        reference = twin.with_(strategy=REFERENCE)
        for block in table.blocks(twin, "seconds"):
            if (twin, block) not in traced:  # predict over more examples runs what is traced
                continue
            calls = sorted(
                (place, m.case.strategy, math.log(value))
                for m in table.rotation(twin.group, block)
                for place, value in zip(m.places, m.values, strict=True)
            )
            halves = [offset(part) for part in (calls[: len(calls) // 2], calls[len(calls) // 2 :])]
            first = traced[twin, block] < traced[reference, block]
            yield twin.mode, block, offset(calls), abs(halves[0] - halves[1]) / 2, first


def offset(calls):
    """log(twin / reference) from calls in their order."""
    found, _ = stats.effects([name for _, name, _ in calls], [log for _, _, log in calls])
    return found[TWIN] - found[REFERENCE]


def main(run, folder):
    found = list(offsets(store.read(run)))
    lines = [
        "# The A/A twins: how far from 1, and why",
        "",
        f"From `{run}`, by `python bench/experiments/twins.py`. Offsets in percent, of block means.",
        "",
        "| mode | blocks | mean offset | twin traced first | reference traced first | sd between blocks "
        "| of it within blocks |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for mode in [*dict.fromkeys(row[0] for row in found), "all"]:
        rows = [row for row in found if mode in (row[0], "all")]
        ratios = np.array([row[2] for row in rows])
        first = np.array([row[4] for row in rows])
        within = math.sqrt(np.mean([row[3] ** 2 for row in rows]))
        lines.append(
            f"| {mode} | {len(rows)} | {ratios.mean():+.2%} | {_mean(ratios[first])} "
            f"| {_mean(ratios[~first])} | {ratios.std(ddof=1):.2%} | {within:.2%} |"
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
