"""What reading hidden states would take of models too large for most machines: bars over their weights."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hiddencost.foretold import Foretold, Large, concerning
from hiddencost.formatting import quantity
from hiddencost.plots import parts, style
from hiddencost.plots.choose import Row
from hiddencost.records import REFERENCE
from hiddencost.stats import Table

GIB = 2**30
ROW, TOP, AXIS, VALUES = 0.52, 0.3, 0.5, 0.5
WEIGHTS = "#D9D9D9"
WAYS = (REFERENCE, "functional_submodel", "always_return_all")


def foretold(table: Table) -> Figure | None:
    """For a run that forecasts concern."""
    found = concerning(table)
    return draw(found) if found else None


@style.styled
def draw(found: Foretold) -> Figure:
    """A row for each model and shape: its weights, and beside them the peak of each way."""
    names = {REFERENCE: "plain forward pass", WAYS[1]: found.points.replace("_", " "), WAYS[2]: "all"}
    sheet = parts.Sheet(
        _title(found),
        f"Forecasts ({found.dtype}, JAX jit), not measurements: weights, and the peak of a call beside them",
        TOP + ROW * len(found.large) + AXIS,
        f"Grey: weights. Bars beside them, from the top: {', '.join(names.values())} hidden states returned. "
        f"Dashed: the memory of one {found.devices[-1][0]}.",
    )
    shapes = [f"{style.plain(one.model)} {one.batch}×{one.length:,}" for one in found.large]
    left = parts.EDGE + 0.1 + max(map(parts.text_width, shapes))
    ax = sheet.axes(left, TOP, parts.WIDTH - left - VALUES, ROW * len(found.large))
    parts.rows(ax, [Row(one.model, "", f"{one.batch}x{one.length}") for one in found.large], shapes)
    for height, one in enumerate(found.large):
        _bars(ax, height, one, names)
    room = found.devices[-1][1] / GIB
    ax.axvline(room, color=style.INK, linewidth=0.8, linestyle=(0, (5, 3)), zorder=5)
    ax.text(room, -0.55, f" {found.devices[-1][0]}", fontsize=style.SMALL, va="bottom")
    ax.set_xlim(0, 1.02 * max(_most(one) for one in found.large) / GIB)
    ax.set_xlabel("GiB")
    return sheet.figure


def _bars(ax: Axes, height: int, one: Large, names: dict[str, str]) -> None:
    weights = one.weights_bytes / GIB
    ax.barh(height, weights, height=0.78, color=WEIGHTS, zorder=2)
    for number, way in enumerate(WAYS):
        place, peak = height + 0.26 * (number - 1), one.peaks[way] / GIB
        ax.barh(place, peak, left=weights, height=0.22, color=style.colour(way), zorder=3)
        told = f"{one.model} {one.batch}×{one.length:,}, {names[way]}: {quantity(one.peaks[way], unit='B')}"
        parts.told(ax, weights + peak, place, f"{told} beside the weights")
    parts.value(ax, height, style.digits(_most(one) / GIB), VALUES)


def _most(one: Large) -> float:
    return one.weights_bytes + max(one.peaks.values())


def _title(found: Foretold) -> str:
    one = max(found.large, key=lambda one: (one.all_bytes, one.batch))
    return (
        f"All hidden states of {style.plain(one.model)} at {one.batch} × {one.length:,} tokens are "
        f"{quantity(one.all_bytes, unit='B')}: returning them takes {quantity(_most(one), unit='B')} with "
        "the weights"
    )
