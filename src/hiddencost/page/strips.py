"""The figures of an answer as small drawings: a strip for each kind of figure, a mark with its interval for
each place that it was measured in."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from hiddencost.claims.evidence import at
from hiddencost.formatting import quantity
from hiddencost.records import Figure

WIDTH = 300.0
EDGE = 6.0
TALLEST = 96.0
STEP = 9.0
LABEL = 15.0


@dataclass(frozen=True)
class Mark:
    """One figure: where its value and the ends of its interval stand, in pixels, and what it says."""

    x: float
    low: float
    high: float
    y: float
    told: str


@dataclass(frozen=True)
class Strip:
    """Figures of one name. one: where a ratio of 1 stands, None where the axis has none. labels: (x, anchor,
    text) under the axis. bottom: where the axis lies."""

    name: str
    marks: tuple[Mark, ...]
    one: float | None
    labels: tuple[tuple[float, str, str], ...]
    bottom: float
    height: float
    spoken: str


def strips(figures: Sequence[Figure]) -> list[Strip]:
    """A strip for each name of the figures, in order; where all are one value without an interval, none."""
    named: dict[str, list[Figure]] = defaultdict(list)
    for figure in figures:
        named[figure.name].append(figure)
    return [
        _strip(name, found)
        for name, found in named.items()
        if len({figure.value for figure in found}) > 1 or found[0].low is not None
    ]


def _strip(name: str, figures: list[Figure]) -> Strip:
    figures = sorted(figures, key=lambda figure: figure.value)
    ends = [_ends(figure) for figure in figures]
    least, most = min(low for low, _ in ends), max(high for _, high in ends)
    ratio = figures[0].unit == ""
    least, most = (min(least, 1.0), max(most, 1.0)) if ratio and least > 0 else (least, most)
    log = least > 0 and most / least > 1.5
    step = min(STEP, TALLEST / len(figures))
    bottom = EDGE + step * len(figures)

    def place(value: float) -> float:
        low, high, here = (math.log(v) for v in (least, most, value)) if log else (least, most, value)
        return round(EDGE + (WIDTH - 2 * EDGE) * (here - low) / ((high - low) or 1), 1)

    marks = tuple(
        Mark(place(figure.value), place(low), place(high), round(EDGE + step * (row + 0.5), 1), told(figure))
        for row, (figure, (low, high)) in enumerate(zip(figures, ends, strict=True))
    )
    unit = figures[0].unit
    labels = [(EDGE, "start", quantity(least, unit=unit)), (WIDTH - EDGE, "end", quantity(most, unit=unit))]
    one = place(1.0) if ratio and least <= 1 <= most else None
    if one is not None and 40 < one < WIDTH - 40:
        labels.append((one, "middle", "1"))
    spoken = f"{name}: {len(figures)} figures from {told(figures[0])} to {told(figures[-1])}"
    return Strip(name, marks, one, tuple(labels), bottom, bottom + LABEL, spoken)


def _ends(figure: Figure) -> tuple[float, float]:
    low = figure.value if figure.low is None else figure.low
    high = figure.value if figure.high is None or not math.isfinite(figure.high) else figure.high
    return low, high


def told(figure: Figure) -> str:
    """`1.05 [1.03, 1.07], minilm 4x128 in graph`."""
    scope = at(figure.scope) if figure.scope else ""
    points = figure.scope.points if figure.scope and figure.scope.points != "output" else ""
    place = " ".join(filter(None, (scope, points, figure.where)))
    return ", ".join(filter(None, (quantity(figure.value, figure.low, figure.high, figure.unit), place)))
