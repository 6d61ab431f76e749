"""What a plot shows: the setting, the shape and the sweep are chosen from the data, never typed."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hiddencost.plots.style import COLOURS, MARKERS
from hiddencost.records import REFERENCE, Case
from hiddencost.stats import RESOLVED, Table

MODES = ("graph", "jit", "compile", "xla", "eager", "predict")
"""Which mode a title speaks of, when it can choose."""
SHOWN = ("eager", "eager_grad", "graph", "xla", "jit", "compile", "predict", "train")
"""The order in which panels of modes stand."""
FEWEST = 3
"""A line with fewer values is no sweep."""


class Setting(NamedTuple):
    """What all cases of one plot share."""

    model: str
    backend: str
    device: str
    dtype: str


class Row(NamedTuple):
    """A way, whatever the mode and shape."""

    strategy: str
    points: str
    reduction: str


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


def setting_of(case: Case) -> Setting:
    """The setting of a case."""
    return Setting(case.model, case.backend, case.device, case.dtype)


def row_of(case: Case) -> Row:
    """The row of a case."""
    return Row(case.strategy, case.points, case.reduction)


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


def modes_of(cases: Iterable[Case], order: Sequence[str] = SHOWN) -> list[str]:
    """The modes of the cases, in `order`; unknown ones last, by name."""
    return sorted({case.mode for case in cases}, key=lambda mode: (place(mode, order), mode))


def place(mode: str, order: Sequence[str]) -> int:
    """Where a mode stands in an order; unknown ones at its end."""
    return order.index(mode) if mode in order else len(order)


def forward_cases(table: Table, metric: str) -> list[Case]:
    """The cases of the forward suite that have this metric.

    Where `predict` ran data sets of several sizes at one shape, those are the data-set suite, save for
    a size that has more ways than any other: the forward suite ran that one too.
    """
    cases = [case for case in table.cases(metric) if case.batch and case.length and case.layers is None]
    ways: dict[Case, Counter[int | None]] = defaultdict(Counter)
    for case in cases:
        ways[case.group.with_(examples=None)][case.examples] += 1
    kept: dict[Case, int | None] = {}
    for key, sizes in ways.items():
        (size, most), *others = sizes.most_common()
        if not others or others[0][1] < most:
            kept[key] = size
    chosen = object()
    return [case for case in cases if kept.get(case.group.with_(examples=None), chosen) == case.examples]


def most_common(cases: Iterable[Case]) -> list[Case]:
    """The cases of the setting that has the most of them (the first measured among equals)."""
    by_setting: dict[Setting, list[Case]] = defaultdict(list)
    for case in cases:
        by_setting[setting_of(case)].append(case)
    return max(by_setting.values(), key=len, default=[])


def sweep(cases: Iterable[Case], swept: str, fixed: str) -> list[Panel]:
    """The cases along the field `swept` (`length` or `batch`): one panel for each mode that has at
    least FEWEST values of it at one value of the field `fixed`, all of the setting with the most of
    them. Each mode takes the fixed value with the most swept values; among equals, the one that serves
    the most modes, then the smallest."""
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
        members = [
            case
            for case in cases
            if setting_of(case) == chosen and case.mode == mode and getattr(case, fixed) == best
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


def by_shape(cases: Iterable[Case]) -> dict[tuple[int, int], list[Case]]:
    """Cases by (batch, length)."""
    shapes: dict[tuple[int, int], list[Case]] = defaultdict(list)
    for case in cases:
        shapes[case.batch, case.length].append(case)
    return shapes


def fullest_shape(
    cases: Iterable[Case], worth: Callable[[list[Case]], tuple[float, ...]]
) -> tuple[int, int] | None:
    """The shape with the most ways; among equals, the one whose cases are worth the most."""
    shapes = by_shape(cases)
    if not shapes:
        return None
    return max(shapes, key=lambda key: (len({row_of(case) for case in shapes[key]}), *worth(shapes[key])))


def precise(table: Table, cases: Iterable[Case]) -> bool:
    """Whether at least half of the comparisons of these cases would have shown a difference of 2 %."""
    known = []
    for case in cases:
        comparison = table.compare(case)
        if case.strategy != REFERENCE and comparison is not None:
            smallest = comparison.smallest_detectable
            known.append(smallest is not None and smallest <= RESOLVED)
    return bool(known) and 2 * sum(known) >= len(known)


def find(cases: Iterable[Case], strategy: str, points: str, mode: str | None = None) -> Case | None:
    """The first case of a way, or None."""
    for case in cases:
        if case.strategy == strategy and case.points == points and mode in (None, case.mode):
            return case
    return None
