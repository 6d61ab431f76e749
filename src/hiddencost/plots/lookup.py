"""Seconds of one look-up of a layer against the number of layers and the position of the layer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hiddencost.formatting import listed
from hiddencost.plots import choose, labels, parts, style
from hiddencost.records import Case
from hiddencost.stats import Table, fit_by_block

METRIC = "lookup_seconds"
HEIGHT, LEFT, BETWEEN, LABELS = 2.6, 0.6, 0.5, 1.4
TWO_LINES = 22.0
MICRO = 1e-6
TITLES = ("get_layer_index", "get_layer_name", "dict_in_advance")

Ways = dict[str, dict[int, Case]]
"""Cases of each way by what varies: the number of layers, or the position."""


@style.styled
def lookup(table: Table) -> Figure | None:
    """Microseconds of one look-up of the last layer by number of layers, and by position."""
    cases = choose.most_common(
        case for case in table.cases(METRIC) if case.layers is not None and case.position is not None
    )
    if not cases:
        return None
    by_layers, (layers, by_position) = last_by_layers(cases), positions(cases)
    several = max(map(len, by_position.values()), default=0) > 1
    sheet = parts.Sheet(
        _title(table, by_layers),
        f"{style.plain(cases[0].backend)} on {style.plain(cases[0].device)}; bars are 95 % intervals; "
        "slopes: least squares in each block, then the interval between blocks",
        0.25 + HEIGHT + 0.55,
    )
    room = parts.WIDTH - LEFT - LABELS - (BETWEEN + LABELS if several else 0.0)
    width = room * (0.55 if several else 1.0)
    ax = sheet.axes(LEFT, 0.25, width, HEIGHT)
    _draw(ax, table, by_layers, "layer", log=True)
    ax.set_title("looking up the last layer")
    ax.set_xlabel("layers of the model, log scale")
    ax.set_ylabel("one look-up, µs, log scale")
    if several:
        ax = sheet.axes(LEFT + width + LABELS + BETWEEN, 0.25, room - width, HEIGHT)
        _draw(ax, table, by_position, "position", log=False)
        ax.set_title(f"one of {layers:,} layers")
        ax.set_xlabel("position of the layer")
        ax.set_ylabel("one look-up, µs")
    return sheet.figure


def last_by_layers(cases: Iterable[Case]) -> Ways:
    """For each way, the case of the last position at each number of layers."""
    found: Ways = defaultdict(dict)
    for case in sorted(cases, key=lambda case: (case.layers or 0, case.position or 0)):
        found[case.strategy][case.layers or 0] = case
    return found


def positions(cases: Iterable[Case]) -> tuple[int, Ways]:
    """The number of layers with the most positions (the most layers among equals), and its cases."""
    by_layers: dict[int, Ways] = defaultdict(lambda: defaultdict(dict))
    for case in sorted(cases, key=lambda case: case.position or 0):
        by_layers[case.layers or 0][case.strategy][case.position or 0] = case
    layers = max(by_layers, key=lambda key: (max(map(len, by_layers[key].values())), key))
    return layers, by_layers[layers]


def slope(table: Table, cases: dict[int, Case]) -> parts.Center | None:
    """Seconds for each step of what varies, fitted in each block by itself to the block's medians."""
    return fit_by_block([(float(step), table.block_medians(case, METRIC)) for step, case in cases.items()])


def _draw(ax: Axes, table: Table, ways: Ways, step: str, log: bool) -> None:
    """One line for each way, with its slope in its label."""
    centers = {
        way: {
            value: parts.scaled(center, 1 / MICRO)
            for value, case in cases.items()
            if (center := table.center(case, METRIC))
        }
        for way, cases in ways.items()
    }
    values = sorted({value for cases in centers.values() for value in cases})
    heights = [center[0] for cases in centers.values() for center in cases.values()]
    if log:
        parts.log_axis(ax, "x", values, measured=True)
        parts.log_axis(ax, "y", heights)
    else:
        ax.set_xlim(-0.04 * values[-1], 1.04 * values[-1])
        ax.set_ylim(-0.03 * max(heights), 1.08 * max(heights))
    parts.grid_lines(ax)
    ends = []
    for row in choose.ordered(choose.Row(way, "", "") for way in centers):
        way, cases = row.strategy, centers[row.strategy]
        shade, name = style.colour(way), style.way(next(iter(ways[way].values())))
        parts.line(ax, list(cases), list(cases.values()), shade, "o", 3, name, "µs")
        last = max(cases)
        ends.append(
            labels.End(last, cases[last][0], f"{name}\n{_slope(table, ways[way], step)}".strip(), shade)
        )
    labels.end_labels(ax, ends, TWO_LINES)


def _slope(table: Table, cases: dict[int, Case], step: str) -> str:
    """The fitted slope with half its interval: 130 ± 2 ns/layer."""
    fitted = slope(table, cases)
    if fitted is None:
        return ""
    center, _, high = (None if value is None else value * 1e9 for value in fitted)
    if center is None or high is None:
        return f"{style.digits(center or 0.0)} ns/{step}"
    decimals = 0 if high - center >= 0.95 else 1
    shown = round(center, decimals) + 0.0  # never minus zero
    return f"{shown:.{decimals}f} ± {high - center:.{decimals}f} ns/{step}".replace("-", "−")


def _title(table: Table, by_layers: Ways) -> str:
    """What the look-ups take in the largest model."""
    largest = max(layers for cases in by_layers.values() for layers in cases)
    said = []
    for way in TITLES:
        case = by_layers.get(way, {}).get(largest)
        center = table.center(case, METRIC) if case else None
        if center:
            said.append(f"{style.LABELS[way]} takes {style.seconds(center[0])}")
    if not said:
        return "Time of one look-up of a layer"
    return f"Among {largest:,} layers {listed(said)}"
