"""Look-ups of a layer as a gate compares them: how fast their time grows with the number of layers."""

from __future__ import annotations

from math import log
from statistics import median

from hiddencost.records import Case
from hiddencost.stats import Table, line_fit

SLOPE, SLOPE_RATIO = "lookup_seconds_per_layer", "lookup_slope_ratio"
SLOPED = ("get_layer_name", "get_layer_index")
"""Look-ups whose time grows with the number of layers, as that of the `layers` property does."""
UNIT = "layers_property"


def log_slopes(table: Table, way: str) -> list[float]:
    """log of the seconds per layer of a look-up of the last layer: of each block the median of its rounds."""
    found = ([log(one) for one in rounds if one > 0] for _, rounds in sorted(_slopes(table, way).items()))
    return [median(logs) for logs in found if logs]


def slope_ratios(table: Table, way: str) -> list[float]:
    """log of the slope of a look-up of the last layer over the number of layers, against the slope of the
    `layers` property: of each round the ratio, of each block their median."""
    mine, theirs = _slopes(table, way), _slopes(table, UNIT)
    found = []
    for block in sorted(mine.keys() & theirs.keys()):
        pairs = zip(mine[block], theirs[block], strict=False)
        ratios = [log(a / b) for a, b in pairs if a > 0 and b > 0]
        if ratios:
            found.append(median(ratios))
    return found


def _slopes(table: Table, way: str) -> dict[int, list[float]]:
    """Seconds per layer of each round, by block."""
    cases: list[Case] = [
        case
        for case in table.cases("lookup_seconds", strategy=way)
        if case.layers is not None and case.position == case.layers - 1
    ]
    layers = [case.layers or 0 for case in cases]
    if len(set(layers)) < 2:
        return {}
    by_case = [table.blocks(case, "lookup_seconds") for case in cases]
    return {
        block: [
            line_fit(layers, seconds)[0]
            for seconds in zip(*(found[block] for found in by_case), strict=False)
        ]
        for block in set.intersection(*(set(found) for found in by_case))
    }
