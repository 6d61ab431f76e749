"""Keras's own run of a whole model, and the same graph with each tensor dropped after its last use."""

from __future__ import annotations

from dataclasses import dataclass

from hiddencost.records import OUTPUT, REFERENCE, STACK, Case, Comparison
from hiddencost.stats import Table

FREED = "functional_freed"


@dataclass(frozen=True)
class Freeing:
    """Of one model on one backend, in one mode and dtype. held: the freed run at the largest shape whose peak
    is known; own_bytes, freed_bytes: the peaks of Keras's own run there, and its own. floor_bytes: the
    live-set floor there, where the model has blocks. time: the freed run against Keras's own, at the largest
    shape that was timed. Each is None where it was not measured."""

    model: str
    backend: str
    mode: str
    dtype: str
    held: Case | None
    own_bytes: float | None
    freed_bytes: float | None
    floor_bytes: float | None
    timed: Case | None
    time: Comparison | None

    @property
    def times_less(self) -> float | None:
        """How often the freed run's peak goes into Keras's own."""
        return self.own_bytes / self.freed_bytes if self.own_bytes and self.freed_bytes else None


def freeings(table: Table) -> list[Freeing]:
    """One for each model, backend, mode and dtype in which a whole model was run freed: the largest gain
    first, with all of its model."""
    peaks = [case for case in table.cases("peak_heap_bytes", strategy=FREED) if case.points == OUTPUT]
    times = [case for case in table.cases("seconds", strategy=FREED) if case.points == OUTPUT]
    found = []
    for of in dict.fromkeys(map(_what, [*peaks, *times])):

        def largest(cases: list[Case], of: tuple[str, ...] = of) -> Case | None:
            mine = [case for case in cases if _what(case) == of]
            return max(mine, key=lambda case: (case.batch * case.length, str(case)), default=None)

        model, backend, mode, dtype = of
        held, timed = largest(peaks), largest(times)
        own = held and table.center(held.with_(strategy=REFERENCE, points=OUTPUT), "peak_heap_bytes")
        freed = held and table.center(held, "peak_heap_bytes")
        found.append(
            Freeing(
                model=model.partition(STACK)[0],
                backend=backend,
                mode=mode,
                dtype=dtype,
                held=held,
                own_bytes=own[0] if own else None,
                freed_bytes=freed[0] if freed else None,
                floor_bytes=table.live_set_floor(held) if held else None,
                timed=timed,
                time=table.compare(timed) if timed else None,
            )
        )
    most = {one.model: max((o.times_less or 0) for o in found if o.model == one.model) for one in found}
    return sorted(found, key=lambda one: (-most[one.model], list(most).index(one.model)))


def _what(case: Case) -> tuple[str, str, str, str]:
    return case.model, case.backend, case.mode, case.dtype
