"""The fastest way to read each kind of points, scene by scene, and the ways that it is not told apart from.

Ways are held against each other within each block, never by their medians: two of them may both stand well
apart from the reference and still not be told apart from one another.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from hiddencost.claims.evidence import NO_TWIN, in_order
from hiddencost.claims.scenes import MODES, forward_cases, most_common, place, precise, told_shape
from hiddencost.records import OUTPUT, REFERENCE, SINGLE_BLOCK, TWIN, Case, Comparison
from hiddencost.stats import FEW_BLOCKS, Table, judge

NO_WAYS = (REFERENCE, TWIN, SINGLE_BLOCK)
KINDS = ("last", "middle", "last_four", "all")
"""The order in which kinds of points stand; other points come after."""


@dataclass(frozen=True)
class Fastest:
    """The fastest way to read some points in one scene.

    case: the way, and with it points, reduction and scene. comparison: against the plain forward pass of its
    group; None where they share no block. slower: the other ways that are clearly slower. rivals: those that
    are not; `why` tells where that is for want of an interval.
    """

    case: Case
    comparison: Comparison | None
    rivals: tuple[Case, ...]
    slower: tuple[Case, ...]
    why: str = ""

    @property
    def scene(self) -> Case:
        """What all of the group share: model, backend, device, dtype, mode and shape."""
        return self.case.group

    @property
    def kind(self) -> tuple[str, str]:
        """What is read: the points, and how they are reduced."""
        return self.case.points, self.case.reduction


def fastest(table: Table) -> list[Fastest]:
    """One for each scene and kind of points that was timed, in order. Data sets have a table of their own."""
    by_kind: dict[tuple[Case, str, str], list[Case]] = defaultdict(list)
    for case in readings(table):
        by_kind[case.group, case.points, case.reduction].append(case)
    in_turn = {scene: place for place, scene in enumerate(in_order({group for group, _, _ in by_kind}))}
    found = [among(table, ways) for ways in by_kind.values()]
    return sorted(found, key=lambda one: (in_turn[one.scene], _kind_order(one.kind)))


def of_run(table: Table) -> list[Fastest]:
    """One for each kind of points: in the scene that the plots tell of too, where the kind was read there,
    else in the one that stands for all that read it."""
    cases = readings(table)
    main = _scene(table, cases)
    found = []
    for kind in sorted({(case.points, case.reduction) for case in cases}, key=_kind_order):
        alike = [case for case in cases if (case.points, case.reduction) == kind]
        here = [case for case in alike if case.group == main]
        if not here:
            scene = _scene(table, alike)
            here = [case for case in alike if case.group == scene]
        found.append(among(table, here))
    return found


def readings(table: Table) -> list[Case]:
    """The timed cases of the forward suite that read hidden states."""
    return [
        case
        for case in forward_cases(table, "seconds")
        if case.points != OUTPUT and case.strategy not in NO_WAYS
    ]


def among(table: Table, ways: Sequence[Case]) -> Fastest:
    """The fastest of some ways of one group: the one that the others come least close to, pair by pair. Where
    some have an interval against the reference, one of those."""
    compared = {case: table.compare(case) for case in ways}
    sure = [case for case, found in compared.items() if found is not None and found.low is not None]
    best = min(sure or ways, key=lambda case: _worst(table, case, ways))
    beside = [(case, table.compare(case, best)) for case in ways if case != best]
    beside.sort(key=lambda pair: (pair[1].ratio if pair[1] else math.inf, str(pair[0])))  # the closest first
    others = [case for case, _ in beside]
    slower = tuple(case for case in others if clearly_slower(table, case, best))
    rivals = tuple(case for case in others if case not in slower)
    few = any(comparison is not None and comparison.low is None for _, comparison in beside)
    why = "" if not rivals else FEW_BLOCKS if few else NO_TWIN if table.band(best) is None else ""
    return Fastest(best, compared[best], rivals, slower, why)


def clearly_slower(table: Table, case: Case, than: Case) -> bool:
    """Whether a way is told apart from another of its group as the slower one: in pairs, beyond the noise."""
    return judge(table.compare(case, than), table.band(than)).word == "slower"


def _worst(table: Table, case: Case, ways: Sequence[Case]) -> float:
    """The largest ratio of a way to any other: below 1 only for one that is ahead of all."""
    found = (table.compare(case, other) for other in ways if other != case)
    return max((comparison.ratio for comparison in found if comparison is not None), default=1.0)


def _scene(table: Table, cases: Sequence[Case]) -> Case | None:
    """The group that stands for all of these cases: of the shape that does, the mode in which the most kinds
    of points were read; among equals a precise one."""
    alike = most_common(cases)
    shape = told_shape(table, alike)
    groups: dict[Case, list[Case]] = defaultdict(list)
    for case in alike:
        if (case.batch, case.length) == shape:
            groups[case.group].append(case)
    return min(
        groups,
        key=lambda group: (
            -len({(case.points, case.reduction) for case in groups[group]}),
            not precise(table, groups[group]),
            place(group.mode, MODES),
            group.mode,
        ),
        default=None,
    )


def _kind_order(kind: tuple[str, str]) -> tuple[int, str, str]:
    points, reduction = kind
    return KINDS.index(points) if points in KINDS else len(KINDS), points, reduction
