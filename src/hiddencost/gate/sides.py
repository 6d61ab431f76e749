"""Two runs whose workers took turns, side by side -> changes: absolute times, block by block."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import groupby

import numpy as np

from hiddencost.gate.judging import Evidence, judge
from hiddencost.gate.lookups import SLOPE, SLOPED, UNIT, log_slopes
from hiddencost.gate.missing import EXACT, missing, reasons
from hiddencost.records import Case, Change, Run
from hiddencost.stats import Table, effects, interval

BEFORE, AFTER = 0, 1


def between_sides(before: Run, after: Run, thresholds: Mapping[str, float], alpha: float) -> list[Change]:
    """What moved from one side to the other. Cases that only one side has are missing, or new."""
    tables = Table(before), Table(after)
    found = [*_times(tables), *_lookups(tables), *exact(*tables)]
    return [*judge(found, thresholds, alpha), *missing(reasons(before), reasons(after))]


def exact(before: Table, after: Table) -> Iterator[Evidence]:
    """Metrics that do not vary: the largest of all blocks on each side."""
    for metric in EXACT:
        for case in before.cases(metric):
            mine, theirs = (
                [value for values in table.blocks(case, metric).values() for value in values]
                for table in (before, after)
            )
            if mine and theirs:
                yield Evidence(case, metric, max(mine), max(theirs))


def _times(tables: tuple[Table, Table]) -> Iterator[Evidence]:
    shifts: dict[Case, list[float]] = defaultdict(list)
    for together, block in tables[BEFORE].rotations() & tables[AFTER].rotations():
        names, logs = _visits(tables, together, block)
        found, _ = effects(names, logs)
        for side, case in found:
            if side == AFTER and (BEFORE, case) in found:
                shifts[case].append(found[AFTER, case] - found[BEFORE, case])
    for case in tables[BEFORE].cases("seconds"):
        if shifts[case]:
            before, after = (interval(table.medians(case, "seconds"))[0] for table in tables)
            yield Evidence(case, "seconds", before, after, shifts=sorted(shifts[case]))


def _visits(
    tables: tuple[Table, Table], together: str, block: int
) -> tuple[list[tuple[int, Case]], list[float]]:
    """The calls of both sides in the order made, those that a side made in one turn as one: their median."""
    calls = sorted(
        (
            (place, (side, m.case), value)
            for side, table in enumerate(tables)
            for m in table.rotation(together, block)
            for place, value in zip(m.places, m.values, strict=True)
        ),
        key=lambda call: call[0],
    )
    names, logs = [], []
    for name, turn in groupby(calls, key=lambda call: call[1]):
        names.append(name)
        logs.append(float(np.median(np.log([value for _, _, value in turn]))))
    return names, logs


def _lookups(tables: tuple[Table, Table]) -> Iterator[Evidence]:
    """How much longer a look-up takes for each layer, the `layers` property's own among them: their ratio
    would call a look-up slower because that property got faster."""
    for way in (*SLOPED, UNIT):
        earlier, later = (log_slopes(table, way) for table in tables)
        if earlier and later:
            yield Evidence(
                Case(model="lookup", strategy=way),
                SLOPE,
                math.exp(np.mean(earlier)),
                math.exp(np.mean(later)),
                earlier=earlier,
                later=later,
            )
