"""Which way should I use? For each place that a run measured, the ways to read the same hidden states with
what they cost, the best first, and the lines to paste."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from typing import Any

import msgspec

from hiddencost.claims.evidence import BIG
from hiddencost.claims.fastest import readings
from hiddencost.grid import PEERS
from hiddencost.page.templates import plain_text
from hiddencost.records import Case
from hiddencost.stats import Table, peak_metric

WAYS = (
    *("functional_submodel", "functional_freed", "functional_submodel_per_call", "get_layer_name"),
    *("get_layer_index", "indexed_in_advance", "always_return_all", "always_return_stacked", "on_request"),
)
"""Strategies of Keras models, of which there are lines to paste."""
NO_INFERENCE = ("train", "eager_grad")
"""Modes that nobody chooses to read hidden states in."""
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
    ways: tuple[Choice, ...]


def places(table: Table) -> list[Place]:
    """Every place of the run at which some way was timed, those with the most ways first."""
    found: dict[Case, list[Case]] = defaultdict(list)
    for case in readings(table):
        if case.reduction == "none" and case.mode not in NO_INFERENCE:
            found[case.with_(strategy="")].append(case)
    every = [place for cases in found.values() if (place := _place(table, cases)) is not None]
    return sorted(every, key=lambda place: -len(place.ways))


def _place(table: Table, cases: list[Case]) -> Place | None:
    ranked = _ranked(table, cases)
    if not ranked:
        return None
    one = cases[0]
    return Place(
        model=one.model,
        backend=one.backend,
        device=one.device,
        dtype=one.dtype,
        mode=one.mode,
        points=one.points,
        batch=one.batch,
        length=one.length,
        ways=tuple(ranked),
    )


def _ranked(table: Table, cases: Iterable[Case]) -> list[Choice]:
    """By time; of those that no time tells from the fastest, the one that holds clearly less first, else the
    simplest."""
    timed = [(case, found) for case in cases if (found := table.compare(case))]
    timed.sort(key=lambda pair: pair[1].ratio)
    choices = [
        Choice(
            strategy=case.strategy,
            ratio=found.ratio,
            low=found.low,
            high=found.high,
            seconds=_center(table, case, "seconds"),
            peak_bytes=_center(table, case, peak_metric(case)),
            level=tuple(other.strategy for other, _ in timed if other != case and _level(table, case, other)),
        )
        for case, found in timed
    ]
    best = choices[:1] + [one for one in choices if choices and one.strategy in choices[0].level]
    lean = min((one.peak_bytes for one in best if one.peak_bytes), default=math.inf)

    def key(one: Choice) -> tuple[bool, int]:
        place = SIMPLEST.index(one.strategy) if one.strategy in SIMPLEST else len(SIMPLEST)
        return (one.peak_bytes or 0.0) > (1 + BIG) * lean, place

    return [*sorted(best, key=key), *(one for one in choices if one not in best)]


def _level(table: Table, case: Case, other: Case) -> bool:
    """Whether the interval of their paired ratio contains 1, or there is none."""
    found = table.compare(case, other)
    return found is None or found.low is None or found.high is None or found.low <= 1 <= found.high


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
