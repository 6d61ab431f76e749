"""Cases of several backends that took turns, so that the time of one can be held against another's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain

from hiddencost.claims.beside import Meeting, Program, fastest, leanest, meetings
from hiddencost.formatting import NONE
from hiddencost.page.grids import Columns, Grid, Section, grid, ratio, reader, way
from hiddencost.records import OUTPUT, REFERENCE, Case
from hiddencost.stats import Table

PLAIN = "plain forward pass"


def together(table: Table) -> Section:
    """The fastest and the leanest way of every backend for each kind of points; then a table for each shape,
    with every way against the plain forward pass of its own backend and against that of the first."""
    met = meetings(table)
    note = (
        "Processes of several backends took turns, call by call, on the same weights and text. A backend is "
        "Keras's, or another library with ways of its own. Hidden states were compared before anything was "
        "timed (to 5e-3: KerasHub's BERT has the approximate gelu). A ratio to its own plain pass is what "
        "reading adds there; a ratio to the first one's is what a user gets in the end."
    )
    grids = (*chain.from_iterable(best_ways_of_all(table)), *(_shape(table, meeting) for meeting in met))
    return Section("Side by side: backends and other libraries", note, grids)


def best_ways_of_all(table: Table) -> tuple[tuple[Grid, ...], ...]:
    """The tables of `best_ways` for the plain forward pass, and for each kind of points that any backend
    read."""
    read = dict.fromkeys(case.points for meeting in meetings(table) for case in meeting.cases)
    return tuple(best_ways(table, points) for points in read)


def best_ways(table: Table, points: str) -> tuple[Grid, ...]:
    """The fastest way of each backend to read `points`, shape by shape, and its time over the first one's
    plain forward pass; then the way with the lowest peak heap, where that was read."""
    met = meetings(table)
    heap = reader(table, "peak_heap_bytes", "B")
    plain = points == OUTPUT
    found = (
        (
            f"{PLAIN if plain else f'fastest way to read: {points}'}, time over a {PLAIN} of {{backend}}",
            fastest(table, met, points),
            lambda case, meeting: _against_first(table, case, meeting),
        ),
        (
            f"{PLAIN if plain else f'leanest way to read: {points}'}, peak heap",
            leanest(table, met, points),
            lambda case, _: heap(case),
        ),
    )
    return tuple(
        _ways(ways, cell, title.format(backend=met[0].first.backend)) for title, ways, cell in found if ways
    )


def _ways(
    ways: Mapping[Program, Mapping[Meeting, Case]], cell: Callable[[Case, Meeting], str], title: str
) -> Grid:
    """A row for each program, a column for each shape."""
    shapes = list(dict.fromkeys(meeting for cases in ways.values() for meeting in cases))
    rows = tuple(
        (
            _backend(next(iter(cases.values())), shapes[0].first),
            ", ".join(dict.fromkeys(map(_way, cases.values()))),
            *(cell(cases[meeting], meeting) if meeting in cases else NONE for meeting in shapes),
        )
        for cases in ways.values()
    )
    return Grid(("backend", "way", *(f"{s.first.batch}x{s.first.length}" for s in shapes)), rows, title)


def _shape(table: Table, meeting: Meeting) -> Grid:
    first = meeting.first
    columns: Columns = {
        "backend": lambda case: _backend(case, first),
        "way": lambda case: _way(case) if case.strategy == REFERENCE else way(case),
        "ratio to its own plain pass": lambda case: (
            NONE if case.strategy == REFERENCE else ratio(table.compare(case))
        ),
        f"ratio to that of {first.backend}": lambda case: _against_first(table, case, meeting),
        "time": reader(table, "seconds", "s"),
        "peak heap": reader(table, "peak_heap_bytes", "B"),
    }
    return grid(meeting.cases, columns, f"{first.model} {first.batch}x{first.length}")


def _way(case: Case) -> str:
    return PLAIN if case.strategy == REFERENCE else case.strategy


def _against_first(table: Table, case: Case, meeting: Meeting) -> str:
    return "1" if case == meeting.first else ratio(table.compare(case, meeting.first))


def _backend(case: Case, first: Case) -> str:
    return f"{case.backend}, {case.mode}" + ("" if case.model == first.model else f" ({case.model})")
