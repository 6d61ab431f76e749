"""Hidden states on a device, and what it takes to have them on the host, in passes of the model."""

from __future__ import annotations

from dataclasses import dataclass

from hiddencost.claims.evidence import Triple, in_order, over
from hiddencost.records import TWIN, Case
from hiddencost.stats import Table

TO_NUMPY, TO_PINNED = "host_copy_seconds", "host_copy_pinned_seconds"


@dataclass(frozen=True)
class Copied:
    """One way on a device other than the CPU. plain_seconds: the plain forward pass of its group. The others
    are times that pass, each with its interval: the call itself (paired), and then bringing what it returned
    to NumPy and to page-locked memory (unpaired; None where not measured)."""

    case: Case
    plain_seconds: float
    call: Triple | None
    to_numpy: Triple | None
    to_pinned: Triple | None


def copied(table: Table) -> list[Copied]:
    """Every way whose states were computed on a device and copied from there."""

    def passes(case: Case, metric: str, plain: Triple) -> Triple | None:
        copy = table.center(case, metric)
        return over(copy, plain) if copy else None

    return [
        Copied(case, plain[0], _call(table, case), *(passes(case, to, plain) for to in (TO_NUMPY, TO_PINNED)))
        for case in in_order(table.cases(TO_NUMPY))
        if case.device != "cpu" and case.strategy != TWIN and (plain := table.center(case.group, "seconds"))
    ]


def in_numpy(table: Table, case: Case) -> Triple | None:
    """The time of a call on a device with the copy of what it returned to NumPy, over that of the plain pass
    with the copy of its own output; None where one of them was not measured."""
    mine, theirs = _with_copy(table, case), _with_copy(table, case.group)
    return over(mine, theirs) if mine and theirs else None


def _with_copy(table: Table, case: Case) -> Triple | None:
    call, copy = table.center(case, "seconds"), table.center(case, TO_NUMPY)
    if call is None or copy is None:
        return None
    if call[1] is None or call[2] is None or copy[1] is None or copy[2] is None:
        return call[0] + copy[0], None, None
    return call[0] + copy[0], call[1] + copy[1], call[2] + copy[2]


def _call(table: Table, case: Case) -> Triple | None:
    compared = table.compare(case)
    return (compared.ratio, compared.low, compared.high) if compared else None
