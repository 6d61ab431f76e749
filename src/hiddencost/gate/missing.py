"""What vanished, crashed or became wrong: never a pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hiddencost.columns import columns_of
from hiddencost.grid.planning import METRIC_OF_SUITE
from hiddencost.records import OTHER_SIDE, Case, Change, Run

Reasons = Mapping[tuple[Case, str], str]
EXACT = (
    "peak_heap_bytes",
    "peak_device_bytes",
    "payload_bytes",
    "traces",
    "compiled_temp_bytes",
    "compiled_output_bytes",
    "compiled_flops",
    "compiled_operations",
)
"""Metrics that do not vary."""
MISSED = (*METRIC_OF_SUITE.values(), *EXACT)
"""Metrics of which each case has to have values: also those that are not compared."""
GONE = "measured before, and not after"


def reasons(run: Run) -> Reasons:
    """(case, metric) of all that is missed -> why a block has no values of it, or '' where all have."""
    found: dict[tuple[Case, str], str] = {}
    columns = columns_of(run)
    for m in columns.only(columns.of(MISSED)):
        reason = "" if m.state == "ok" else f"{m.state}: {m.reason}"
        found[m.case, m.metric] = found.get((m.case, m.metric)) or reason
    return found


def failed(reason: str) -> bool:
    """Whether a reason (see `reasons`) tells of a failure: what is skipped has not failed."""
    return bool(reason) and not reason.startswith("skipped")


def missing(before: Reasons, after: Reasons) -> Iterator[Change]:
    """A change `missing` for each that failed after, is gone, or failed before in any block, which the reason
    then says. What is skipped, before as well as after, is not missed."""
    for (case, metric), reason in after.items():
        earlier = before.get((case, metric), "")
        if failed(earlier) and (not reason or OTHER_SIDE in reason):
            reason = f"before: {earlier}"
        skipped = reason.startswith("skipped") and before.get((case, metric), reason).startswith("skipped")
        if reason and not skipped:
            yield Change(case=case, metric=metric, word="missing", reason=reason)
    for (case, metric), reason in before.items():
        if (case, metric) not in after and not reason.startswith("skipped"):
            told = f"before: {reason}" if reason else GONE
            yield Change(case=case, metric=metric, word="missing", reason=told)
