"""The shape of all tables of the page: cases x columns. A column is a function of a case."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from hiddencost.claims.evidence import at, in_order, where
from hiddencost.formatting import NONE, quantity
from hiddencost.records import OUTPUT, Case, Comparison
from hiddencost.stats import Table

Columns = Mapping[str, Callable[[Case], str]]


@dataclass(frozen=True)
class Grid:
    """A table as text. With a title it can be folded, and is at first where `folded`."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""
    folded: bool = False


@dataclass(frozen=True)
class Section:
    """A title, a line on how to read what follows, and tables; those without rows are not shown. always: the
    line is told where there is no table, too."""

    title: str
    note: str
    grids: tuple[Grid, ...]
    always: bool = False

    @property
    def full(self) -> bool:
        """Whether there is anything to show."""
        return self.always or any(grid.rows for grid in self.grids)


def grid(cases: Iterable[Case], columns: Columns, title: str = "", folded: bool = False) -> Grid:
    """A row for each case, a column for each function of a case."""
    rows = tuple(tuple(cell(case) for cell in columns.values()) for case in cases)
    return Grid(tuple(columns), rows, title, folded)


def by_group(cases: Iterable[Case], columns: Columns) -> tuple[Grid, ...]:
    """A folded table for each group of the cases, in their order."""
    groups: dict[Case, list[Case]] = defaultdict(list)
    for case in cases:
        groups[case.group].append(case)
    return tuple(grid(found, columns, scene(group), True) for group, found in groups.items())


def planned_order(table: Table, cases: Iterable[Case]) -> list[Case]:
    """The cases by scene; within one, in the order of the plan (the measuring order is shuffled)."""
    place = {case: i for i, case in enumerate(table.run.header.planned)}

    def key(case: Case) -> tuple[int, str]:
        return (place[case], "") if case in place else (len(place), str(case))

    return in_order(sorted(set(cases), key=key))


def way(case: Case) -> str:
    """Strategy, points and reduction: `functional_submodel middle`."""
    points = "" if case.points == OUTPUT else case.points
    reduced = "" if case.reduction == "none" else f"({case.reduction})"
    return " ".join(filter(None, (case.strategy, points, reduced)))


def scene(case: Case) -> str:
    """What all cases of a group share: `minilm 4x128, in graph`."""
    return f"{at(case)}, {where(case)}"


def reader(table: Table, metric: str, unit: str) -> Callable[[Case], str]:
    """A column: the metric's value with its interval."""

    def cell(case: Case) -> str:
        found = table.center(case, metric)
        return NONE if found is None else quantity(*found, unit)

    return cell


def ratio(comparison: Comparison | None) -> str:
    """`1.05 [1.03, 1.07]`."""
    return NONE if comparison is None else quantity(comparison.ratio, comparison.low, comparison.high)
