"""Parts of figures: the sheet with its title, log axes with plain numbers, rows, lines with intervals."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from hiddencost.formatting import quantity
from hiddencost.plots import style
from hiddencost.plots.choose import Row
from hiddencost.records import Comparison

WIDTH = 8.4
"""Inches: the width of a README."""
EDGE = 0.14
ZEBRA = "#F6F6F6"
TITLE_LINE = 0.215
SMALL_LINE = 0.155
KEY = 0.2
"""Inches that the row of line styles takes."""
GUTTER = 0.12
ROOM_BELOW = 0.78

LOWEST, HIGHEST = 0.4, 1.5
"""Ratios beyond these are drawn as arrows at the edge, so that 0.5 and 1.05 stay apart from 1."""
RATIO_TICKS = ((0.5, 0.7, 1.0, 1.3), (0.6, 0.8, 1.0, 1.2), (0.8, 0.9, 1.0, 1.1, 1.2), (0.9, 0.95, 1.0, 1.05))

Dashes = Literal["-"] | tuple[float, tuple[float, ...]]
Center = tuple[float, float | None, float | None]


class Sheet:
    """A figure of a fixed width: a title that says the finding, a line that says where it holds, a body,
    and a caption. Lengths are in inches; the body's origin is its top left corner."""

    def __init__(self, title: str, scope: str, body: float, caption: str = "") -> None:
        title_lines = balanced(title, 84)
        scope_lines = wrapped(scope, 118)
        caption_lines = wrapped(caption, 122)
        self._top = EDGE + TITLE_LINE * len(title_lines) + SMALL_LINE * len(scope_lines) + 0.12
        bottom = EDGE + SMALL_LINE * len(caption_lines)
        self.height = self._top + body + bottom
        self.figure = Figure(figsize=(WIDTH, self.height), dpi=100)
        self.figure.suptitle(
            "\n".join(title_lines),
            x=EDGE / WIDTH,
            y=1 - EDGE / self.height,
            ha="left",
            va="top",
            fontsize=style.TITLE,
            fontweight="bold",
            linespacing=1.25,
        )
        self._small(scope_lines, 1 - (EDGE + TITLE_LINE * len(title_lines) + 0.02) / self.height, "top")
        self._small(caption_lines, 0.6 * EDGE / self.height, "bottom")

    def _small(self, lines: list[str], y: float, va: str) -> None:
        self.figure.text(
            EDGE / WIDTH, y, "\n".join(lines), ha="left", va=va, fontsize=style.SMALL, color=style.QUIET
        )

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Axes in the body."""
        bottom = self.height - self._top - top - height
        return self.figure.add_axes((left / WIDTH, bottom / self.height, width / WIDTH, height / self.height))

    def key(self, looks: Sequence[tuple[str, Dashes]]) -> None:
        """A row of line styles with their meaning, at the top of the body."""
        lines = [Line2D([], [], color=style.INK, linewidth=1.2, linestyle=dashes) for _, dashes in looks]
        self.figure.legend(
            lines,
            [text for text, _ in looks],
            loc="upper left",
            bbox_to_anchor=(EDGE / WIDTH, 1 - (self._top - 0.08) / self.height),
            ncols=len(looks),
            frameon=False,
            fontsize=style.SMALL,
            borderpad=0,
            borderaxespad=0,
            handlelength=2.4,
            columnspacing=1.6,
        )

    def note(self, left: float, top: float, text: str, colour: str) -> None:
        """Small text in the body, from its top left corner down."""
        y = 1 - (self._top + top) / self.height
        self.figure.text(
            left / WIDTH, y, text, ha="left", va="top", fontsize=style.SMALL, color=style.ink(colour)
        )

    def tiles(
        self, count: int, columns: int, left: float, labels: float, height: float, top: float
    ) -> list[Axes]:
        """Axes of one height in rows of `columns`, sharing the room that is left after `left` for the
        ticks of the first column and `labels` right of each; ROOM_BELOW under each row."""
        width = (WIDTH - left - columns * labels - (columns - 1) * GUTTER) / columns
        return [
            self.axes(
                left + index % columns * (width + labels + GUTTER),
                top + index // columns * (height + ROOM_BELOW),
                width,
                height,
            )
            for index in range(count)
        ]


def text_width(text: str, size: float = style.SMALL) -> float:
    """About how wide a text is drawn, in inches (never less than it is, for ordinary names)."""
    return len(text.replace(r"\$", "$")) * size * 0.60 / 72


def wrapped(text: str, width: int) -> list[str]:
    """Lines of at most `width` characters, none of which ends within a shape (`4 × 512`)."""
    whole = textwrap.wrap(text.replace(" × ", "\u00a0×\u00a0"), width, break_on_hyphens=False)
    return [line.replace("\u00a0×\u00a0", " × ") for line in whole]


def balanced(text: str, width: int) -> list[str]:
    """Lines of at most `width` characters, as few as it takes and of about the same length."""
    lines = wrapped(text, width)
    while width > 20 and lines:
        width -= 1
        narrower = wrapped(text, width)
        if len(narrower) > len(lines):
            break
        lines = narrower
    return lines


def grid_lines(ax: Axes, which: str = "y") -> None:
    """Faint lines across."""
    ax.grid(True, axis=which)  # type: ignore[arg-type]
    ax.tick_params(length=0, axis=which)  # type: ignore[arg-type]


def log_axis(ax: Axes, which: str, values: Iterable[float], measured: bool = False) -> None:
    """A log axis around positive `values`, labelled with plain numbers: at the values themselves where
    they were `measured` there, else at round numbers. Labels too close to the one before are left out."""
    kept = sorted({value for value in values if value > 0})
    if not kept:
        return
    (ax.set_xscale if which == "x" else ax.set_yscale)("log")
    span = math.log10(kept[-1] / kept[0])
    pad = max(0.04 * span, 0.03) if measured else max(0.07 * span, 0.08)
    low, high = kept[0] / 10**pad, kept[-1] * 10**pad
    (ax.set_xlim if which == "x" else ax.set_ylim)(low, high)
    axis: Axis = ax.xaxis if which == "x" else ax.yaxis
    inches = (ax.bbox.width if which == "x" else ax.bbox.height) / ax.figure.dpi
    ticks = kept if measured else round_ticks(low, high)
    if measured or which == "x":
        wide = max(text_width(number(tick)) for tick in ticks) if which == "x" else 0.0
        ticks = apart(ticks, span * max(0.29, wide + 0.08) / inches)
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))


def apart(values: Sequence[float], gap: float) -> list[float]:
    """The values that lie at least `gap` decades after the one kept before; the last is always kept."""
    kept = [values[-1]]
    for value in reversed(values[:-1]):
        if math.log10(kept[-1] / value) >= gap:
            kept.append(value)
    return kept[::-1]


def round_ticks(low: float, high: float) -> list[float]:
    """Two to seven round numbers between two positive ones, evenly spread on a log axis."""
    for steps in ((1, 1.5, 2, 3, 4, 5, 6, 8), (1, 2, 3, 5), (1, 2, 5), (1, 3), (1,)):
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = [step * 10.0**decade for decade in decades for step in steps]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= 7:
            return ticks
    return ticks[:: math.ceil(len(ticks) / 7)]


def number(value: float) -> str:
    """A tick: 1,000 and 0.05, never 1e3."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.6g}"


def line(
    ax: Axes,
    xs: Sequence[float],
    centers: Sequence[Center],
    shade: str,
    marker: str,
    zorder: float,
    name: str,
    unit: str = "",
) -> None:
    """A line through the centers, with a bar where an interval exists; unit: of the centers."""
    ax.plot(
        xs,
        [center for center, _, _ in centers],
        color=shade,
        marker=marker,
        zorder=zorder,
        markeredgecolor="white",
        markeredgewidth=0.5,
        label=name,
    )
    for x, (middle, low, high) in zip(xs, centers, strict=True):
        if low is not None and high is not None:
            ax.plot([x, x], [low, high], color=shade, linewidth=1.1, zorder=zorder, gid="interval")
        told(ax, x, middle, f"{name}, {number(x)}: {quantity(middle, low, high)} {unit}")


def told(ax: Axes, x: float, y: float, text: str) -> None:
    """What a reader is told of a place when the mouse is on it, in the SVG (see `style.save`)."""
    looks: dict[str, Any] = {"linestyle": "none", "marker": "o", "markersize": 9, "alpha": 0}
    ax.plot([x], [y], **looks, clip_on=False, zorder=9, gid=style.TOLD + text.replace(r"\$", "$").strip())


def scaled(center: Center, factor: float) -> Center:
    """The same center and interval in another unit."""
    middle, low, high = center
    return middle * factor, None if low is None else low * factor, None if high is None else high * factor


def rows(ax: Axes, keys: Sequence[Row], names: Sequence[str] | None) -> None:
    """Rows from the top down, named at the left, shaded by strategy."""
    ax.set_ylim(len(keys) - 0.5, -0.5)
    ax.spines["left"].set_visible(False)
    strategies = list(dict.fromkeys(key.strategy for key in keys))
    for height, key in enumerate(keys):
        if strategies.index(key.strategy) % 2 == 0:
            ax.axhspan(height - 0.5, height + 0.5, color=ZEBRA, linewidth=0, zorder=0)
    ax.set_yticks(range(len(keys)), names or [""] * len(keys))
    ax.tick_params(axis="y", length=0)


def value(ax: Axes, height: float, text: str, room: float, **looks: Any) -> None:
    """A word or number right of a row, flush with the end of `room` inches beside the axes."""
    ax.annotate(
        text,
        xy=(1, height),
        xycoords=ax.get_yaxis_transform(),
        xytext=(room * 72 - 12, 0),
        textcoords="offset points",
        ha="right",
        va="center",
        fontsize=style.SMALL,
        **looks,
    )


def ratio_limits(comparisons: Iterable[Comparison]) -> tuple[float, float]:
    """The range of the ratios with their intervals, around 1 at least, cut at LOWEST and HIGHEST."""
    ends = [end for one in comparisons for end in (one.ratio, one.low, one.high) if end is not None]
    low = min([0.9, *(end for end in ends if end >= LOWEST)])
    high = max([1.1, *(end for end in ends if end <= HIGHEST)])
    return low * 0.94, high * 1.06


def ratio_axis(ax: Axes, low: float, high: float) -> None:
    """Ratios from left to right on a log scale."""
    ax.set_xscale("log")
    ax.set_xlim(low, high)
    within = [[tick for tick in ticks if low <= tick <= high] for ticks in RATIO_TICKS]
    ax.xaxis.set_major_locator(FixedLocator(next((ticks for ticks in within if len(ticks) > 2), within[0])))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))


def dot(
    ax: Axes, height: float, comparison: Comparison, shade: str, marker: str, low: float, high: float
) -> None:
    """A ratio with its interval; an arrow at the edge where it lies beyond `low` or `high`."""
    if comparison.low is not None and comparison.high is not None:
        ends = [min(max(end, low), high) for end in (comparison.low, comparison.high)]
        ax.plot(ends, [height, height], color=shade, linewidth=1.6, zorder=4, gid="interval")
    inside = low <= comparison.ratio <= high
    ax.plot(
        [min(max(comparison.ratio, low), high)],
        [height],
        marker=marker if inside else (">" if comparison.ratio > high else "<"),
        color=shade,
        markeredgecolor="white",
        markeredgewidth=0.5,
        markersize=4.8,
        clip_on=False,
        zorder=5,
        gid="ratio",
    )
    shown = quantity(comparison.ratio, comparison.low, comparison.high)
    told(ax, min(max(comparison.ratio, low), high), height, f"{style.way(comparison.case)}: {shown}")
