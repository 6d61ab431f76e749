"""Which way should I use? For each place that a run measured, the ways to read the same hidden states with
what they cost, the best first, and the lines to paste."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cache
from typing import Any

import msgspec

from hiddencost.claims.evidence import BIG
from hiddencost.claims.fastest import Fastest, clearly_slower, fastest
from hiddencost.claims.scenes import NO_INFERENCE
from hiddencost.grid import COMPILED_MODES, PEERS
from hiddencost.page.templates import plain_text
from hiddencost.records import Case, Comparison
from hiddencost.stats import Table, peak_metric

WAYS = (
    *("functional_submodel", "functional_freed", "functional_submodel_per_call", "get_layer_name"),
    *("get_layer_index", "indexed_in_advance", "always_return_all", "always_return_stacked", "on_request"),
)
"""Strategies of Keras models, of which there are lines to paste; for `streamed` there is a command."""
SIMPLEST = ("functional_submodel", "functional_freed")
"""Of ways that no time tells apart, these come first."""


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """One way at one place. ratio, low, high: to the plain forward pass. seconds, peak_bytes: of one call,
    None where it was not measured. level: the ways from which no time tells it apart."""

    strategy: str
    ratio: float
    low: float | None
    high: float | None
    seconds: float | None
    peak_bytes: float | None
    level: tuple[str, ...]


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where the ways were measured, with the ways, the best first."""

    model: str
    backend: str
    device: str
    dtype: str
    mode: str
    points: str
    batch: int
    length: int
    examples: int | None
    ways: tuple[Choice, ...]


def places(table: Table) -> list[Place]:
    """Every place of the run at which some way was timed: compiled modes first, and of those the one with
    the most ways."""
    every = [
        _place(table, one)
        for one in fastest(table)
        if one.case.reduction == "none" and one.case.mode not in NO_INFERENCE and one.comparison
    ]
    return sorted(every, key=lambda place: (place.mode not in COMPILED_MODES, -len(place.ways)))


def _place(table: Table, found: Fastest) -> Place:
    one = found.case
    return Place(
        model=one.model,
        backend=one.backend,
        device=one.device,
        dtype=one.dtype,
        mode=one.mode,
        points=one.points,
        batch=one.batch,
        length=one.length,
        examples=one.examples,
        ways=tuple(_ranked(table, found)),
    )


def _ranked(table: Table, found: Fastest) -> list[Choice]:
    """Of the fastest and those that it is not told apart from, the one that holds clearly less first, else
    the simplest; then the slower ones."""
    ways = (found.case, *found.rivals, *found.slower)
    choices = {case: _choice(table, case, ratio, ways) for case in ways if (ratio := table.compare(case))}
    best = [choice for case, choice in choices.items() if case not in found.slower]
    lean = min((one.peak_bytes for one in best if one.peak_bytes), default=math.inf)

    def key(one: Choice) -> tuple[bool, int]:
        place = SIMPLEST.index(one.strategy) if one.strategy in SIMPLEST else len(SIMPLEST)
        return (one.peak_bytes or 0.0) > (1 + BIG) * lean, place

    return [*sorted(best, key=key), *(choices[case] for case in found.slower if case in choices)]


def _choice(table: Table, case: Case, ratio: Comparison, ways: Iterable[Case]) -> Choice:
    return Choice(
        strategy=case.strategy,
        ratio=ratio.ratio,
        low=ratio.low,
        high=ratio.high,
        seconds=_center(table, case, "seconds"),
        peak_bytes=_center(table, case, peak_metric(case)),
        level=tuple(
            other.strategy
            for other in ways
            if other != case
            and not clearly_slower(table, other, case)
            and not clearly_slower(table, case, other)
        ),
    )


def _center(table: Table, case: Case, metric: str) -> float | None:
    center = table.center(case, metric)
    return center[0] if center else None


@cache
def paste(strategy: str, mode: str, backend: str, points: str) -> str:
    """The lines that read the points that way, given a `backbone` and its `inputs`; they leave `states`.
    Nothing for other libraries, and for ways of one's own."""
    if strategy not in WAYS or backend in PEERS:
        return ""
    return (
        plain_text("paste.py.j2").render(strategy=strategy, mode=mode, backend=backend, points=points).strip()
        + "\n"
    )


def chooser(table: Table) -> dict[str, Any]:
    """All that the page's chooser knows: places, and the lines of each way and mode by name."""
    found = places(table)
    lines: dict[str, str] = {}
    for place in found:
        for way in place.ways:
            key = "|".join((way.strategy, place.mode, place.backend, place.points))
            lines[key] = paste(way.strategy, place.mode, place.backend, place.points)
    return {"places": [msgspec.to_builtins(place) for place in found], "lines": lines}
