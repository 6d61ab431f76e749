"""Changes -> one outcome and its exit code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from hiddencost.records import Case, Change

REGRESSIONS = ("slower", "larger")
NO_REGRESSION, REGRESSION, USAGE, MISSING, NOT_COMPARABLE, NOTHING_MEASURED = range(6)
SENTENCES = {
    NO_REGRESSION: "No regression.",
    REGRESSION: "Regression.",
    MISSING: "Cases are missing or failed.",
    NOTHING_MEASURED: "Nothing was measured.",
}


@dataclass(frozen=True)
class Outcome:
    """What the gate found. notes: what a reader must know beside the changes. timings_advisory: times are
    told and do not fail. strict: what is unclear fails like a regression."""

    changes: Sequence[Change]
    notes: Sequence[str] = field(default_factory=tuple)
    timings_advisory: bool = False
    strict: bool = False

    def enforced(self, change: Change) -> bool:
        """Whether the change counts for the exit code."""
        return not (change.timed and self.timings_advisory)

    @property
    def exit_code(self) -> int:
        """0 no regression, 1 regression (or unclear, where strict), 3 missing or failed cases, 5 nothing
        measured. A regression comes before a missing case, so that the worst is told."""
        counted = [change for change in self.changes if self.enforced(change) or change.word == "missing"]
        if not any(change.word != "missing" for change in self.changes):
            return NOTHING_MEASURED
        failing = (*REGRESSIONS, "unclear") if self.strict else REGRESSIONS
        if any(change.word in failing for change in counted):
            return REGRESSION
        return MISSING if any(change.word == "missing" for change in counted) else NO_REGRESSION


def suspects(changes: Sequence[Change]) -> list[Case]:
    """The cases whose regression is to be measured again before it is reported."""
    return list(dict.fromkeys(change.case for change in changes if change.word in REGRESSIONS))


def confirmed(first: Sequence[Change], again: Sequence[Change]) -> list[Change]:
    """The changes of the first measurement, with what was suspected replaced by what the second one says.
    A suspicion that the second does not bear out is told in its reason; a case that is missing there stays
    suspected."""
    found = {(change.case, change.metric): change for change in again}
    changes = []
    for change in first:
        second = found.get((change.case, change.metric))
        if change.word not in REGRESSIONS or second is None or second.word == "missing":
            changes.append(change)
        elif second.word in REGRESSIONS:
            changes.append(second)
        else:
            first_ratio = f" ({change.ratio:.3f})" if change.ratio else ""
            seen = f"seemed {change.word} at first{first_ratio}, not when measured again"
            changes.append(msgspec.structs.replace(second, reason=seen))
    return changes
