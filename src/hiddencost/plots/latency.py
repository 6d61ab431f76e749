"""Seconds of one call along sequence length and along batch size, mode by mode."""

from __future__ import annotations

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hiddencost.plots import choose, labels, parts, style
from hiddencost.records import REFERENCE, TWIN, Case
from hiddencost.stats import Table

ALIKE = 0.05
"""Lines that end within 5 % of one another share a label."""
LABELS = 1.8
LEFT = 0.62
HEIGHT = 2.2


@style.styled
def latency_length(table: Table) -> Figure | None:
    """Seconds of one call against sequence length: how the cost grows, and what stays proportional."""
    return _latency(table, "length", "batch", "sequence length", "tokens")


@style.styled
def latency_batch(table: Table) -> Figure | None:
    """Seconds of one call against batch size."""
    return _latency(table, "batch", "length", "batch size", "examples")


def _latency(table: Table, swept: str, fixed: str, name: str, unit_of: str) -> Figure | None:
    cases = [case for case in choose.forward_cases(table, "seconds") if case.strategy != TWIN]
    panels = choose.sweep(cases, swept, fixed)
    if not panels:
        return None
    centers = {
        case: center
        for panel in panels
        for series in panel.series.values()
        for case in series.values()
        if (center := table.center(case, "seconds"))
    }
    factor, unit = style.time_unit(center for center, _, _ in centers.values())
    ends = [_ends(panel, centers, factor) for panel in panels]
    named, columns, room, gap = _layout([labels.clustered(group, ALIKE) for group in ends])
    first = next(iter(centers))
    sheet = parts.Sheet(
        _title(table, panels, name),
        f"{style.setting(first)}; time of one call, log scales, bars are 95 % intervals",
        0.25 + (HEIGHT + parts.ROOM_BELOW) * math.ceil(len(panels) / columns) - 0.2,
        _alike(ends),
    )
    every = [center * factor for center, _, _ in centers.values()]
    tiles = sheet.tiles(len(panels), columns, LEFT, room, HEIGHT, 0.25)
    for place, (ax, panel, names) in enumerate(zip(tiles, panels, named, strict=True)):
        _draw(ax, panel, centers, factor, unit)
        parts.log_axis(ax, "x", panel.values, measured=True)
        parts.log_axis(ax, "y", every)
        parts.grid_lines(ax)
        ax.set_title(f"{style.plain(panel.mode)}{_data_set(panel)}, {fixed} {panel.fixed:,}")
        ax.set_xlabel(f"{name}, {unit_of}")
        if place % columns == 0:
            ax.set_ylabel(f"time, {unit}")
        else:
            ax.tick_params(labelleft=False)
        labels.end_labels(ax, names, gap)
    return sheet.figure


def _layout(named: list[list[labels.End]]) -> tuple[list[list[labels.End]], int, float, float]:
    """The labels of each panel, the number of columns, the room for labels in inches, and their gap in
    points: three panels stand side by side where their labels fit into two short lines."""
    short = [labels.folded(group, 19) for group in named]
    if len(named) == 3 and all(group and len(group) <= 6 for group in short):
        return [group for group in short if group], 3, 1.3, 2 * labels.GAP
    return named, min(2, len(named)), LABELS, labels.GAP


def _draw(ax: Axes, panel: choose.Panel, centers: dict[Case, parts.Center], factor: float, unit: str) -> None:
    """The lines of one panel; the reference on top, since many lie on it."""
    for row, cases in panel.series.items():
        parts.line(
            ax,
            list(cases),
            [parts.scaled(centers[case], factor) for case in cases.values()],
            style.colour(row.strategy),
            style.marker(row.points),
            5 if row.strategy == REFERENCE else 3,
            style.way(next(iter(cases.values()))),
            unit,
        )


def _ends(panel: choose.Panel, centers: dict[Case, parts.Center], factor: float) -> list[labels.End]:
    """The ends of the panel's lines, the reference first."""
    ends = []
    for row, cases in panel.series.items():
        value, case = list(cases.items())[-1]
        ends.append(labels.End(value, centers[case][0] * factor, style.way(case), style.colour(row.strategy)))
    return ends


def _data_set(panel: choose.Panel) -> str:
    """How much one call of `predict` covers."""
    batches = {
        case.examples // case.batch
        for series in panel.series.values()
        for case in series.values()
        if case.examples
    }
    if not batches:
        return ""
    return f", {batches.pop()} batches" if len(batches) == 1 else ", whole data set"


def _alike(panels: list[list[labels.End]]) -> str:
    """Which ways the labels "+ n more" stand for."""
    followers: dict[str, dict[str, None]] = {}
    for ends in panels:
        for leader, others in labels.clusters(ends, ALIKE):
            followers.setdefault(leader.text, {}).update(dict.fromkeys(end.text for end in others))
    told = [f"{leader}: {'; '.join(others)}." for leader, others in followers.items() if others]
    return "“+ n more” are ways that end within 5 % of that line. " + " ".join(told) if told else ""


def _title(table: Table, panels: list[choose.Panel], name: str) -> str:
    """The share of a sub-model up to the middle, over the sweep; else what is drawn."""
    row = choose.Row("functional_submodel", "middle", "none")
    for panel in sorted(panels, key=lambda panel: choose.place(panel.mode, choose.MODES)):
        shares = [
            comparison.ratio
            for case in panel.series.get(row, {}).values()
            if (comparison := table.compare(case))
        ]
        if shares:
            return (
                f"A sub-model up to the middle takes {style.ratios(shares)} of a forward pass "
                f"at every {name.removeprefix('sequence ')} ({style.plain(panel.mode)})"
            )
    return f"Time of one call against {name}"
