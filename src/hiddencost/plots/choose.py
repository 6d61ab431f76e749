"""What a plot shows: the setting, the shape and the sweep are chosen from the data, never typed."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from hiddencost.claims.scenes import (
    MODES,
    SHOWN,
    Row,
    Setting,
    by_shape,
    forward_cases,
    fullest_shape,
    modes_of,
    most_common,
    place,
    precise,
    row_of,
    setting_of,
    told_shape,
)
from hiddencost.formatting import evenly
from hiddencost.plots.style import COLOURS, MARKERS
from hiddencost.records import Case

__all__ = [
    "FEWEST",
    "MODES",
    "SHOWN",
    "Panel",
    "Row",
    "Setting",
    "by_shape",
    "find",
    "forward_cases",
    "fullest_shape",
    "modes_of",
    "most_common",
    "ordered",
    "place",
    "precise",
    "row_of",
    "setting_of",
    "sweep",
    "told_shape",
]

FEWEST = 3
"""A line with fewer values is no sweep."""
MOST_SWEPT = 16
"""Of a longer one as many values are drawn."""


@dataclass(frozen=True)
class Panel:
    """One mode of a sweep: `series` maps a row to its cases by the swept value, in ascending order.
    `fixed` is the batch (or length) that all of them share."""

    mode: str
    fixed: int
    series: dict[Row, dict[int, Case]]

    @property
    def values(self) -> list[int]:
        """The swept values of all series."""
        return sorted({value for cases in self.series.values() for value in cases})


def ordered(rows: Iterable[Row]) -> list[Row]:
    """Rows in the order of the known strategies and points; unknown ones last, by name."""
    strategies, points = list(COLOURS), list(MARKERS)

    def key(row: Row) -> tuple[int, str, int, str, str]:
        return (
            strategies.index(row.strategy) if row.strategy in COLOURS else len(strategies),
            row.strategy,
            points.index(row.points) if row.points in MARKERS else len(points),
            row.points,
            row.reduction,
        )

    return sorted(set(rows), key=key)


def sweep(cases: Iterable[Case], swept: str, fixed: str) -> list[Panel]:
    """The cases along the field `swept` (`length` or `batch`), at MOST_SWEPT values of it evenly where there
    are more: one panel for each mode that has at least FEWEST values of it at one value of the field `fixed`,
    all of the setting with the most of them. Each mode takes the fixed value with the most swept values;
    among equals, the one that serves the most modes, then the smallest."""
    reach: dict[Setting, dict[str, dict[int, set[int]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(set))
    )
    cases = list(cases)
    for case in cases:
        reach[setting_of(case)][case.mode][getattr(case, fixed)].add(getattr(case, swept))
    if not reach:
        return []
    chosen = max(reach, key=lambda setting: _reach(reach[setting]))
    modes = reach[chosen]
    served = Counter(value for by_fixed in modes.values() for value in by_fixed)
    panels = []
    for mode in modes_of(case for case in cases if setting_of(case) == chosen):
        by_fixed = modes[mode]
        best = max(by_fixed, key=lambda value: (len(by_fixed[value]), served[value], -value))
        shown = evenly(sorted(by_fixed[best]), MOST_SWEPT)
        members = [
            case
            for case in cases
            if setting_of(case) == chosen
            and case.mode == mode
            and getattr(case, fixed) == best
            and getattr(case, swept) in shown
        ]
        if len(by_fixed[best]) >= FEWEST:
            panels.append(Panel(mode, best, _series(members, swept)))
    return panels


def _reach(modes: dict[str, dict[int, set[int]]]) -> int:
    """How many points of sweeps a setting would show: the sum of the longest sweep of each mode."""
    longest = (max(map(len, by_fixed.values())) for by_fixed in modes.values())
    return sum(length for length in longest if length >= FEWEST)


def _series(cases: Iterable[Case], swept: str) -> dict[Row, dict[int, Case]]:
    """Rows in order, each with its cases by swept value; shorter ones are left out."""
    found: dict[Row, dict[int, Case]] = defaultdict(dict)
    for case in sorted(cases, key=lambda case: int(getattr(case, swept))):
        found[row_of(case)][getattr(case, swept)] = case
    return {row: found[row] for row in ordered(found) if len(found[row]) >= FEWEST}


def find(cases: Iterable[Case], strategy: str, points: str, mode: str | None = None) -> Case | None:
    """The first case of a way, or None."""
    for case in cases:
        if case.strategy == strategy and case.points == points and mode in (None, case.mode):
            return case
    return None
