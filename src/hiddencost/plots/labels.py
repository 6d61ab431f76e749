"""Labels at the ends of lines: spread so that none overlaps another, shared where lines coincide."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.axes import Axes

from hiddencost.plots import style

GAP = 10.5
"""Points between the baselines of two labels."""


@dataclass(frozen=True)
class End:
    """The end of a line, and the label that belongs there."""

    x: float
    y: float
    text: str
    colour: str


def end_labels(ax: Axes, ends: Sequence[End], gap: float = GAP) -> None:
    """Labels in a column right of the axes, each as near to its line's end as the others allow. Call it
    when the limits and the size of the axes are final."""
    if not ends:
        return
    points = 72 / ax.figure.dpi
    box = ax.bbox
    ends = sorted(ends, key=lambda end: end.y)
    spots = [ax.transData.transform((end.x, end.y)) * points for end in ends]
    column = box.x1 * points + 7
    ys = spread([float(y) for _, y in spots], gap, box.y0 * points, box.y1 * points)
    for end, (x, y), label_y in zip(ends, spots, ys, strict=True):
        ax.annotate(
            end.text,
            xy=(end.x, end.y),
            xytext=(column - float(x), label_y - float(y)),
            textcoords="offset points",
            ha="left",
            va="center",
            fontsize=style.SMALL,
            color=style.ink(end.colour),
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": end.colour,
                "linewidth": 0.6,
                "alpha": 0.6,
                "shrinkA": 1,
                "shrinkB": 3,
                "relpos": (0, 0.5),
            },
        )


def spread(ys: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions near ascending `ys`, at least `gap` apart and within [low, high] where they fit.

    The least squares solution: y[i] - i * gap must not fall, so neighbours that would are pooled to
    their mean (isotonic regression by pooling adjacent violators).
    """
    pools: list[tuple[float, int]] = []
    for index, y in enumerate(ys):
        mean, size = y - index * gap, 1
        while pools and pools[-1][0] > mean:
            above, count = pools.pop()
            mean, size = (mean * size + above * count) / (size + count), size + count
        pools.append((mean, size))
    flat = [mean for mean, size in pools for _ in range(size)]
    ceiling = max(low, high - (len(ys) - 1) * gap)
    return [float(np.clip(value, low, ceiling)) + index * gap for index, value in enumerate(flat)]


def clusters(ends: Sequence[End], tolerance: float) -> list[tuple[End, list[End]]]:
    """Leading ends, each with those that lie within a factor of 1 + tolerance of it. Earlier ends lead."""
    found: list[tuple[End, list[End]]] = []
    for end in ends:
        for leader, others in found:
            if abs(math.log(end.y / leader.y)) <= math.log1p(tolerance):
                others.append(end)
                break
        else:
            found.append((end, []))
    return found


def clustered(ends: Sequence[End], tolerance: float) -> list[End]:
    """One label for each cluster: the leader's, and how many more it stands for."""
    return [
        replace(leader, text=f"{leader.text} +\u00a0{len(others)}\u00a0more") if others else leader
        for leader, others in clusters(ends, tolerance)
    ]


def folded(ends: Sequence[End], width: int) -> list[End] | None:
    """The same ends with their labels in at most two lines of `width` characters; None if one is longer."""
    lines = [textwrap.wrap(end.text, width, break_on_hyphens=False) for end in ends]
    if max(map(len, lines), default=0) > 2:
        return None
    return [replace(end, text="\n".join(text)) for end, text in zip(ends, lines, strict=True)]
