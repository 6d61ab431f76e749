"""A run beside another, for the page: what the gate says of each metric that travels, and the two values."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from hiddencost import gate, grid
from hiddencost.errors import NotComparableError, UserError
from hiddencost.gate import Outcome
from hiddencost.gate.baseline import changed_versions
from hiddencost.gate.told import COLUMNS, row, verdict, worst_first
from hiddencost.page.grids import Grid
from hiddencost.records import Run

STILL = ("same", "unclear")


@dataclass(frozen=True)
class Compared:
    """before: the name of the other run. verdict: the gate's, in a sentence. moved, still: its changes.
    notes: what differs beside them."""

    before: str
    verdict: str
    moved: Grid
    still: Grid
    notes: tuple[str, ...]


def compare(run: Run, other: Run, name: str) -> Compared:
    """What moved from the other run to this one, by the gate's rules for runs that were measured apart:
    ratios within a run, bytes and counts, no seconds. Where the gate holds them not comparable, that is the
    verdict."""
    try:
        before = gate.keep(other, name)
        planned = msgspec.json.decode(before.plan, type=grid.Grid) if before.plan else None
        thresholds = planned.thresholds if planned else grid.GATED
        changes = gate.against_baseline(before, run, thresholds, gate.SURE)
    except (NotComparableError, UserError, msgspec.DecodeError) as error:
        empty = Grid(COLUMNS, ())
        return Compared(name, f"Not comparable: {error}", empty, empty, ())
    outcome = Outcome(worst_first(changes))
    moved, still = (
        tuple(row(change, outcome) for change in outcome.changes if (change.word in STILL) == kept)
        for kept in (False, True)
    )
    return Compared(
        before=name,
        verdict=verdict(outcome),
        moved=Grid(COLUMNS, moved),
        still=Grid(COLUMNS, still, f"{len(still)} that did not move, or cannot be told", True),
        notes=tuple(changed_versions(before, run)),
    )
