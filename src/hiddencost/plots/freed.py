"""Keras's own eager run of whole models beside one that keeps nothing longer than it is needed."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hiddencost.claims.freed import FREED, Freeing, freeings
from hiddencost.formatting import listed, quantity
from hiddencost.plots import parts, style
from hiddencost.plots.choose import Row
from hiddencost.records import OUTPUT, REFERENCE
from hiddencost.stats import Table

MIB = 2**20
MODE = "eager"
NONE_LESS = 1.05
"""Times less that are told as none."""
ROW, TOP, AXIS, VALUES = 0.24, 0.26, 0.5, (1.25, 0.62)
CAPTION = (
    "Left: peak heap of one call, black ● Keras's own run, red ● the same graph with each tensor dropped "
    "after its last use; ÷ times less. Right: time of the freed run over Keras's own, lines: 95 % intervals."
)


@style.styled
def freed(table: Table) -> Figure | None:
    """A row for each model and backend; nothing where no whole model was run freed in eager mode."""
    found = [one for one in freeings(table) if one.mode == MODE and one.times_less]
    if not found:
        return None
    sheet = parts.Sheet(_title(found), _scope(found), TOP + ROW * len(found) + AXIS, CAPTION)
    several = len({one.dtype for one in found}) > 1
    names = [f"{_model(one)}, {style.plain(one.backend)}" + f", {one.dtype}" * several for one in found]
    rows = [Row(one.model, one.backend, one.mode) for one in found]
    left = parts.EDGE + 0.1 + max(map(parts.text_width, names))
    cell = (parts.WIDTH - left - 0.05) / 2
    peaks, times = (
        sheet.axes(left + place * cell, TOP, cell - room, ROW * len(rows))
        for place, room in enumerate(VALUES)
    )
    parts.rows(peaks, rows, names)
    parts.rows(times, rows, None)
    _peaks(peaks, found)
    _times(times, found)
    return sheet.figure


def _peaks(ax: Axes, found: Sequence[Freeing]) -> None:
    ax.set_title("peak heap")
    ax.set_xlabel("MiB")
    values = [value / MIB for one in found for value in (one.own_bytes, one.freed_bytes) if value]
    parts.log_axis(ax, "x", (min(values) / 1.4, max(values) * 1.4))
    for height, one in enumerate(found):
        own, freed_ = (one.own_bytes or 0) / MIB, (one.freed_bytes or 0) / MIB
        ax.plot([freed_, own], [height, height], color=style.QUIET, linewidth=1.0, zorder=2)
        ax.plot(own, height, "o", color=style.colour(REFERENCE), zorder=4, gid="own")
        ax.plot(freed_, height, "o", color=style.colour(FREED), zorder=4, gid="freed")
        told = f"{style.digits(own)} → {style.digits(freed_)}, ÷ {style.digits(one.times_less or 0)}"
        parts.value(ax, height, told, VALUES[0])
        parts.told(ax, own, height, f"{_model(one)}, {one.backend}, Keras's own run: {quantity(own)} MiB")
        parts.told(ax, freed_, height, f"{_model(one)}, {one.backend}, freed run: {quantity(freed_)} MiB")


def _times(ax: Axes, found: Sequence[Freeing]) -> None:
    ax.set_title("time")
    ax.set_xlabel("time / Keras's own run")
    known = [one.time for one in found if one.time]
    low, high = parts.ratio_limits(known)
    parts.ratio_axis(ax, low, high)
    ax.axvline(1.0, color="#777777", linewidth=0.5, zorder=2)
    for height, one in enumerate(found):
        if one.time:
            parts.dot(ax, height, one.time, style.colour(FREED), style.marker(OUTPUT), low, high)
            parts.value(
                ax, height, style.ratio(one.time.ratio), VALUES[1], color=style.ink(style.colour(FREED))
            )


def _model(one: Freeing) -> str:
    return style.plain(one.model) + (f" {style.shape(one.held)}" if one.held else "")


def _scope(found: Sequence[Freeing]) -> str:
    timed = dict.fromkeys(f"{style.plain(o.model)} {style.shape(o.timed)}" for o in found if o.timed)
    dtypes = listed(dict.fromkeys(one.dtype for one in found))
    return f"Eager calls on the CPU, {dtypes}; batch × length, or pixels a side. Timed: {listed(timed)}"


def _title(found: Sequence[Freeing]) -> str:
    best, least = (choose(found, key=lambda one: one.times_less or 0) for choose in (max, min))
    most, fewest = (one.times_less or 0 for one in (best, least))
    said = (
        f"Dropping each tensor after its last use takes {style.digits(most)} times less memory for "
        f"{style.plain(best.model)} on {style.plain(best.backend)}"
    )
    if best is least:
        return said
    if fewest < NONE_LESS:
        return f"{said}, no less for {style.plain(least.model)}"
    return f"{said}, and {style.digits(fewest)} times less where it helps least"
