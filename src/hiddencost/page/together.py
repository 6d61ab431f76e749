"""Cases of several backends that took turns, so that the time of one can be held against another's."""

from __future__ import annotations

from collections.abc import Sequence

from hiddencost.formatting import NONE
from hiddencost.page.grids import Columns, Grid, Section, grid, ratio, reader, way
from hiddencost.records import REFERENCE, TOGETHER, TWIN, Case
from hiddencost.stats import Table


def together(table: Table) -> Section:
    """A table for each shape: every way of every backend against the plain forward pass of its own, and
    against that of the first."""
    measured = {case for case in table.cases("seconds") if _meeting(table, case)}
    cases = [case for case in table.run.header.planned if case in measured]
    grids = []
    for name in dict.fromkeys(_meeting(table, case) for case in cases):
        mine = [case for case in cases if _meeting(table, case) == name and case.strategy != TWIN]
        first = _first(table, mine)
        if first is not None:
            grids.append(_grid(table, mine, first))
    note = (
        "Processes of several backends took turns, call by call, on the same weights and text. A backend is "
        "Keras's, or another library with ways of its own. Hidden states were compared before anything was "
        "timed (to 5e-3: KerasHub's BERT has the approximate gelu). A ratio to its own plain pass is what "
        "reading adds there; a ratio to the first one's is what a user gets in the end."
    )
    return Section("Side by side: backends and other libraries", note, tuple(grids))


def _meeting(table: Table, case: Case) -> str:
    """What names the turns that the case took part in; nothing where it took none."""
    return table.note(case, "seconds", TOGETHER)


def _first(table: Table, cases: Sequence[Case]) -> Case | None:
    """The plain pass of the backend that the plan names first."""
    plain = {case for case in cases if case.strategy == REFERENCE}
    return next((case for case in table.run.header.planned if case in plain), None)


def _grid(table: Table, cases: Sequence[Case], first: Case) -> Grid:
    columns: Columns = {
        "backend": lambda case: f"{case.backend}, {case.mode}" + _model(case, first),
        "way": lambda case: "plain forward pass" if case.strategy == REFERENCE else way(case),
        "ratio to its own plain pass": lambda case: (
            NONE if case.strategy == REFERENCE else ratio(table.compare(case))
        ),
        f"ratio to that of {first.backend}": lambda case: (
            "1" if case == first else ratio(table.compare(case, first))
        ),
        "time": reader(table, "seconds", "s"),
        "peak heap": reader(table, "peak_heap_bytes", "B"),
    }
    return grid(cases, columns, f"{first.model} {first.batch}x{first.length}", False)


def _model(case: Case, first: Case) -> str:
    return "" if case.model == first.model else f" ({case.model})"
