"""Cases of several backends that took turns, shape by shape, and the fastest way of each program."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import NamedTuple

from hiddencost.records import REFERENCE, SINGLE_BLOCK, TOGETHER, TWIN, Case
from hiddencost.stats import Table

NO_WAYS = (TWIN, SINGLE_BLOCK)
"""What is measured beside the ways, and reads nothing."""


class Meeting(NamedTuple):
    """What took turns at one shape. first: the plain forward pass of the backend that the plan names
    first; cases: all, in the plan's order, but the A/A twins."""

    first: Case
    cases: tuple[Case, ...]


class Program(NamedTuple):
    """What runs a model, whatever is read from it."""

    backend: str
    mode: str
    model: str


def program(case: Case) -> Program:
    """The program of a case."""
    return Program(case.backend, case.mode, case.model)


def meetings(table: Table) -> list[Meeting]:
    """The shapes at which backends took turns; those whose first plain pass is missing are left out."""
    return table.once(_meetings)


def _meetings(table: Table) -> list[Meeting]:
    members: dict[str, list[Case]] = defaultdict(list)
    measured = set(table.cases("seconds"))
    for case in table.run.header.planned:
        name = table.note(case, "seconds", TOGETHER)
        if name and case in measured and case.strategy != TWIN:
            members[name].append(case)
    found = []
    planned_first = table.run.header.planned[0].backend if table.run.header.planned else ""
    for cases in members.values():
        passes = (case for case in cases if case.strategy == REFERENCE and case.backend == planned_first)
        first = next(passes, None)
        if first is not None:
            found.append(Meeting(first, tuple(cases)))
    return found


def fastest(table: Table, met: Iterable[Meeting], points: str) -> dict[Program, dict[Meeting, Case]]:
    """The case of each program's fastest way to read `points`, at each shape that it was timed at."""

    def ratio(case: Case, meeting: Meeting) -> float | None:
        comparison = table.compare(case, meeting.first)
        return comparison.ratio if comparison else None

    return _least(((meeting, meeting.cases) for meeting in met), points, ratio)


def leanest(table: Table, met: Iterable[Meeting], points: str) -> dict[Program, dict[Meeting, Case]]:
    """The case of each program's way with the lowest peak heap to read `points`, at each shape where that was
    read: of all ways, also those that took no turns."""

    def heap(case: Case, _: Meeting) -> float | None:
        found = table.center(case, "peak_heap_bytes")
        return found[0] if found else None

    measured = set(table.cases("peak_heap_bytes"))
    held = [case for case in table.run.header.planned if case in measured]
    at_shapes = (
        (meeting, [case for case in held if _circumstances(case) == _circumstances(meeting.first)])
        for meeting in met
    )
    return _least(at_shapes, points, heap)


def _circumstances(case: Case) -> tuple[int, int | None, str, str]:
    return case.batch, case.length, case.device, case.dtype


def _least(
    ways: Iterable[tuple[Meeting, Iterable[Case]]],
    points: str,
    value: Callable[[Case, Meeting], float | None],
) -> dict[Program, dict[Meeting, Case]]:
    found: dict[Program, dict[Meeting, Case]] = defaultdict(dict)
    least: dict[tuple[Program, Meeting], float] = {}
    for meeting, cases in ways:
        for case in cases:
            if case.points != points or case.reduction != "none" or case.strategy in NO_WAYS:
                continue
            who, taken = program(case), value(case, meeting)
            if taken is not None and taken < least.get((who, meeting), math.inf):
                least[who, meeting] = taken
                found[who][meeting] = case
    return dict(found)
