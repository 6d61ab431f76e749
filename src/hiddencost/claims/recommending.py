"""Which way to take on each backend and in each mode, from a run that has both ways."""

from __future__ import annotations

from hiddencost.recommended import BETWEEN, Read, Recommendation
from hiddencost.records import OUTPUT, Case, Figure
from hiddencost.stats import Table

MUCH = 0.01
"""Share by which a time or a peak heap is less, from which on that counts."""


def recommendations(table: Table) -> tuple[Recommendation, ...]:
    """One for each backend and mode in which the same points were read both ways: the better one, or the
    first of BETWEEN."""
    first, second = BETWEEN
    cases = [
        case
        for case in table.cases("seconds", strategy=first)
        if case.points != OUTPUT and table.compare(case.with_(strategy=second), case)
    ]
    found = []
    for backend, mode in dict.fromkeys((case.backend, case.mode) for case in cases):
        mine = [case for case in cases if (case.backend, case.mode) == (backend, mode)]
        chosen = second if _is_better(table, mine, second, first) else first
        other = first if chosen == second else second
        reads = tuple(
            read for case in mine if (read := _read(table, case.with_(strategy=chosen), other)) is not None
        )
        if reads:
            found.append(Recommendation(backend=backend, mode=mode, strategy=chosen, reads=reads))
    return tuple(found)


def _is_better(table: Table, cases: list[Case], way: str, other: str) -> bool:
    """Whether a way is clearly faster for some of the points and for none clearly slower; or, where no time
    tells them apart, holds less for some and more for none."""
    pairs = [(case.with_(strategy=way), case.with_(strategy=other)) for case in cases]
    times = [table.compare(*pair) for pair in pairs]
    faster = [t for t in times if t and t.high is not None and t.high < 1 - MUCH]
    slower = [t for t in times if t and t.low is not None and t.low > 1 + MUCH]
    if faster or slower:
        return bool(faster) and not slower
    heaps = [
        (mine, theirs)
        for mine_at, theirs_at in pairs
        if (mine := _heap(table, mine_at)) and (theirs := _heap(table, theirs_at))
    ]
    less = any(mine.value < (1 - MUCH) * theirs.value for mine, theirs in heaps)
    return less and not any(theirs.value < (1 - MUCH) * mine.value for mine, theirs in heaps)


def _heap(table: Table, case: Case) -> Figure | None:
    """The peak heap of the same way and points, at the largest shape that has one."""
    alike = [
        one
        for one in table.cases("peak_heap_bytes", strategy=case.strategy)
        if one.with_(batch=case.batch, length=case.length) == case
    ]
    largest = max(alike, key=lambda one: one.batch * one.length, default=None)
    center = largest and table.center(largest, "peak_heap_bytes")
    return Figure(name="peak_heap_bytes", value=center[0], scope=largest) if center else None


def _read(table: Table, case: Case, other: str) -> Read | None:
    mine, theirs = table.compare(case), table.compare(case.with_(strategy=other))
    heap, other_heap = _heap(table, case), _heap(table, case.with_(strategy=other))
    if not mine or not theirs or mine.low is None or mine.high is None:
        return None
    if not heap or not other_heap or heap.scope is None:
        return None
    return Read(
        points=case.points,
        timed=_place(case),
        held=_place(heap.scope),
        ratio=round(mine.ratio, 4),
        low=round(mine.low, 4),
        high=round(mine.high, 4),
        other_ratio=round(theirs.ratio, 4),
        peak_heap_bytes=round(heap.value),
        other_peak_heap_bytes=round(other_heap.value),
    )


def _place(case: Case) -> str:
    return f"{case.model} {case.batch}x{case.length}"
