"""Cases of several backends that took turns, shape by shape, and the fastest way of each program."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from hiddencost.records import REFERENCE, TOGETHER, TWIN, Case
from hiddencost.stats import Table


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
    for cases in members.values():
        first = next((case for case in cases if case.strategy == REFERENCE), None)
        if first is not None:
            found.append(Meeting(first, tuple(cases)))
    return found


def fastest(table: Table, met: Iterable[Meeting], points: str) -> dict[Program, dict[Meeting, Case]]:
    """The case of each program's fastest way to read `points`, at each shape that it was measured at."""
    found: dict[Program, dict[Meeting, Case]] = defaultdict(dict)
    best: dict[tuple[Program, Meeting], float] = {}
    for meeting in met:
        for case in meeting.cases:
            if case.points != points or case.reduction != "none":
                continue
            who, comparison = program(case), table.compare(case, meeting.first)
            if comparison and comparison.ratio < best.get((who, meeting), math.inf):
                best[who, meeting] = comparison.ratio
                found[who][meeting] = case
    return dict(found)
