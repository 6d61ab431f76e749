"""Which part of a run is told where one has to stand for all: the setting, the shape, the mode. Chosen from
the data, never typed."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from hiddencost.records import REFERENCE, Case
from hiddencost.stats import RESOLVED, Table

MODES = ("graph", "jit", "export", "compile", "xla", "eager", "predict")
"""Which mode a title speaks of, when it can choose."""
SHOWN = ("eager", "eager_grad", "graph", "xla", "jit", "compile", "export", "predict", "train")
"""The order in which panels of modes stand."""

NO_INFERENCE = ("train", "eager_grad")
"""Modes in which gradients are computed or recorded: nobody chooses them to read hidden states in."""


class Setting(NamedTuple):
    """What all cases of one plot share."""

    model: str
    backend: str
    device: str
    dtype: str


class Row(NamedTuple):
    """A way, whatever the mode and shape."""

    strategy: str
    points: str
    reduction: str


def setting_of(case: Case) -> Setting:
    """The setting of a case."""
    return Setting(case.model, case.backend, case.device, case.dtype)


def row_of(case: Case) -> Row:
    """The row of a case."""
    return Row(case.strategy, case.points, case.reduction)


def modes_of(cases: Iterable[Case], order: Sequence[str] = SHOWN) -> list[str]:
    """The modes of the cases, in `order`; unknown ones last, by name."""
    return sorted({case.mode for case in cases}, key=lambda mode: (place(mode, order), mode))


def place(mode: str, order: Sequence[str]) -> int:
    """Where a mode stands in an order; unknown ones at its end."""
    return order.index(mode) if mode in order else len(order)


def forward_cases(table: Table, metric: str) -> list[Case]:
    """The cases of the forward suite that have this metric.

    Where `predict` ran data sets of several sizes at one shape, those are the data-set suite, save for
    a size that has more ways than any other: the forward suite ran that one too.
    """
    return list(table.once(_forward_cases, metric))


def _forward_cases(table: Table, metric: str) -> list[Case]:
    cases = [case for case in table.cases(metric) if case.batch and case.length and case.layers is None]
    ways: dict[Case, Counter[int | None]] = defaultdict(Counter)
    for case in cases:
        ways[case.group.with_(examples=None)][case.examples] += 1
    kept: dict[Case, int | None] = {}
    for key, sizes in ways.items():
        (size, most), *others = sizes.most_common()
        if not others or others[0][1] < most:
            kept[key] = size
    chosen = object()
    return [case for case in cases if kept.get(case.group.with_(examples=None), chosen) == case.examples]


def most_common(cases: Iterable[Case]) -> list[Case]:
    """The cases of the setting that has the most of them (the first measured among equals)."""
    by_setting: dict[Setting, list[Case]] = defaultdict(list)
    for case in cases:
        by_setting[setting_of(case)].append(case)
    return max(by_setting.values(), key=len, default=[])


def by_shape(cases: Iterable[Case]) -> dict[tuple[int, int], list[Case]]:
    """Cases by (batch, length)."""
    shapes: dict[tuple[int, int], list[Case]] = defaultdict(list)
    for case in cases:
        shapes[case.batch, case.length].append(case)
    return shapes


def fullest_shape(
    cases: Iterable[Case], worth: Callable[[list[Case]], tuple[float, ...]]
) -> tuple[int, int] | None:
    """The shape with the most ways; among equals, the one whose cases are worth the most."""
    shapes = by_shape(cases)
    if not shapes:
        return None
    return max(shapes, key=lambda key: (len({row_of(case) for case in shapes[key]}), *worth(shapes[key])))


def told_shape(table: Table, cases: Sequence[Case]) -> tuple[int, int] | None:
    """The shape that stands for all: the smallest precise one of those with the most ways, in the most modes.
    None without any case."""
    return fullest_shape(
        cases,
        lambda members: (
            precise(table, members),
            len(modes_of(members)),
            -members[0].batch * members[0].length,
        ),
    )


def precise(table: Table, cases: Iterable[Case]) -> bool:
    """Whether at least half of the comparisons of these cases would have shown a difference of 2 %."""
    known = []
    for case in cases:
        comparison = table.compare(case)
        if case.strategy != REFERENCE and comparison is not None:
            smallest = comparison.smallest_detectable
            known.append(smallest is not None and smallest <= RESOLVED)
    return bool(known) and 2 * sum(known) >= len(known)
