"""Peak heap of one call over its two floors: the payload, and the live set."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hiddencost.formatting import listed, quantity
from hiddencost.plots import choose, labels, parts, style
from hiddencost.records import OUTPUT, REFERENCE, SINGLE_BLOCK, Case
from hiddencost.stats import Table

METRIC = "peak_heap_bytes"
MIB = 2**20
KINDS = (
    (REFERENCE, OUTPUT),
    ("functional_submodel", "middle"),
    ("functional_submodel", "all"),
    ("always_return_all", "all"),
)
"""The ways that the sweeps draw: one of each kind of payload, and always returning all states."""
PAYLOAD_LINE: parts.Dashes = (0, (1, 2))
LIVE_LINE: parts.Dashes = (0, (4, 2))
SHADED = (
    "Live-set floor: the payload and the working set of the largest single block, which no way can go "
    "below. Shaded: what a plain forward pass holds beyond it."
)
LABELS, LEFT, HEIGHT = 1.28, 0.6, 2.3
ROW, VALUES = 0.205, 0.5


@style.styled
def memory_length(table: Table) -> Figure | None:
    """Peak heap of one call against sequence length."""
    return _sweep(table, "length", "batch", "sequence length, tokens")


@style.styled
def memory_batch(table: Table) -> Figure | None:
    """Peak heap of one call against batch size."""
    return _sweep(table, "batch", "length", "batch size, examples")


def _cases(table: Table) -> list[Case]:
    """The cases of the model that has the most of them, without those of the block alone."""
    cases = choose.most_common(choose.forward_cases(table, METRIC))
    return [case for case in cases if case.strategy != SINGLE_BLOCK]


def _sweep(table: Table, swept: str, fixed: str, axis_label: str) -> Figure | None:
    kinds = [case for case in _cases(table) if (case.strategy, case.points) in KINDS]
    panels = choose.sweep(kinds, swept, fixed)
    if not panels:
        return None
    drawn = [[case for cases in panel.series.values() for case in cases.values()] for panel in panels]
    largest = [
        [case for case in cases if getattr(case, swept) == panel.values[-1]]
        for panel, cases in zip(panels, drawn, strict=True)
    ]
    columns = 3 if len(panels) == 3 else min(2, len(panels))
    sheet = parts.Sheet(
        _title_of_floors(table, [case for cases in largest for case in cases], swept),
        f"{style.setting(drawn[0][0])}; peak heap of one call, log scales",
        parts.KEY + 0.22 + (HEIGHT + parts.ROOM_BELOW) * math.ceil(len(panels) / columns) - 0.2,
        SHADED,
    )
    sheet.key([("measured", "-"), ("live-set floor", LIVE_LINE), ("payload floor", PAYLOAD_LINE)])
    every = [value for cases in drawn for case in cases for value in _values(table, case)]
    tiles = sheet.tiles(len(panels), columns, LEFT, LABELS, HEIGHT, parts.KEY + 0.22)
    for place, (ax, panel) in enumerate(zip(tiles, panels, strict=True)):
        parts.log_axis(ax, "x", panel.values, measured=True)
        parts.log_axis(ax, "y", every)
        parts.grid_lines(ax)
        _shade(ax, table, panel)
        _draw_floors(ax, table, panel)
        _draw_peaks(ax, table, panel)
        ax.set_title(f"{style.plain(panel.mode)}, {fixed} {panel.fixed:,}")
        ax.set_xlabel(axis_label)
        if place % columns == 0:
            ax.set_ylabel("peak heap, MiB")
        else:
            ax.tick_params(labelleft=False)
    return sheet.figure


def _peak(table: Table, case: Case) -> parts.Center:
    """Peak heap in MiB, with its interval where the run repeated it."""
    center = table.center(case, METRIC)
    if center is None:
        raise ValueError(f"{case} has no {METRIC}")
    return parts.scaled(center, 1 / MIB)


def _values(table: Table, case: Case) -> list[float]:
    """What a sweep draws for a case, in MiB: its peak and its floors."""
    floors = (table.payload_floor(case), table.live_set_floor(case))
    return [_peak(table, case)[0], *(floor / MIB for floor in floors if floor)]


def _draw_peaks(ax: Axes, table: Table, panel: choose.Panel) -> None:
    """The measured lines and their labels; the reference on top, since others may lie on it."""
    ends = []
    for row, cases in panel.series.items():
        centers = [_peak(table, case) for case in cases.values()]
        shade = style.colour(row.strategy)
        zorder = 5 if row.strategy == REFERENCE else 4
        name = style.way(next(iter(cases.values())))
        parts.line(ax, list(cases), centers, shade, style.marker(row.points), zorder, name, "MiB")
        ends.append(labels.End(list(cases)[-1], centers[-1][0], name, shade))
    labels.end_labels(ax, ends)


def _shade(ax: Axes, table: Table, panel: choose.Panel) -> None:
    """What the plain forward pass holds beyond its live-set floor."""
    cases = panel.series.get(choose.Row(REFERENCE, OUTPUT, "none"), {})
    known = [(value, _peak(table, case)[0], table.live_set_floor(case)) for value, case in cases.items()]
    spans = [(value, peak, floor / MIB) for value, peak, floor in known if floor]
    if spans:
        values, peaks, floors = zip(*spans, strict=True)
        ax.fill_between(values, floors, peaks, color=style.BAND, alpha=0.7, linewidth=0, zorder=1)


def _draw_floors(ax: Axes, table: Table, panel: choose.Panel) -> None:
    """Both floors of each kind of payload: ways that return the same points share theirs."""
    for points in dict.fromkeys(row.points for row in panel.series):
        row = next(row for row in panel.series if row.points == points)
        for floor, dashes in ((table.payload_floor, PAYLOAD_LINE), (table.live_set_floor, LIVE_LINE)):
            known = [
                (value, bytes_ / MIB) for value, case in panel.series[row].items() if (bytes_ := floor(case))
            ]
            ax.plot(
                [value for value, _ in known],
                [mib for _, mib in known],
                color=style.colour(row.strategy),
                linestyle=dashes,
                linewidth=1.1,
                zorder=3,
                label=f"{floor.__name__} {points}",
            )


def _title_of_floors(table: Table, cases: Sequence[Case], swept: str) -> str:
    """How far above its live-set floor the plain forward pass is, in each mode (of cases of one size)."""
    said = []
    for mode in choose.modes_of(cases):
        case = choose.find(cases, REFERENCE, OUTPUT, mode)
        floor = table.live_set_floor(case) if case else None
        if case and floor:
            said.append(f"{style.ratio(_peak(table, case)[0] * MIB / floor)} in {style.plain(mode)} mode")
    if not said:
        return "Peak heap of one call"
    return (
        f"Peak heap of a plain forward pass over its live-set floor, "
        f"at {swept}\u00a0{getattr(cases[0], swept):,}: {listed(said)}"
    )


@style.styled
def memory_modes(table: Table) -> Figure | None:
    """Peak heap of every way, mode beside mode, at the model and shape with the most of them."""
    by_setting: dict[object, list[Case]] = {}
    for case in choose.forward_cases(table, METRIC):
        if case.strategy != SINGLE_BLOCK:
            by_setting.setdefault((choose.setting_of(case), case.batch, case.length), []).append(case)
    members = max(by_setting.values(), key=lambda m: (len(m), m[0].batch * m[0].length), default=[])
    if not members:
        return None
    modes = choose.modes_of(members)
    rows = choose.ordered(map(choose.row_of, members))
    names = [style.way(next(case for case in members if choose.row_of(case) == row)) for row in rows]
    sheet = parts.Sheet(
        _title_of_all(table, members),
        f"{style.setting(members[0])}; batch × length {style.shape(members[0])}; peak heap of one call",
        parts.KEY + 0.22 + ROW * len(rows) + 0.45,
    )
    sheet.key([("live-set floor", "-"), ("payload floor", (0, (1, 1)))])
    left = parts.EDGE + 0.1 + max(map(parts.text_width, names))
    cell = (parts.WIDTH - left - 0.05) / len(modes)
    longest = max(value for case in members for value in _values(table, case))
    for place, mode in enumerate(modes):
        ax = sheet.axes(left + place * cell, parts.KEY + 0.22, cell - VALUES, ROW * len(rows))
        parts.rows(ax, rows, names if place == 0 else None)
        ax.set_xlim(0, longest * 1.02)
        ax.set_title(style.plain(mode))
        ax.set_xlabel("peak heap, MiB")
        for height, row in enumerate(rows):
            found = [case for case in members if case.mode == mode and choose.row_of(case) == row]
            if found:
                _bar(ax, table, height, found[0])
    return sheet.figure


def _bar(ax: Axes, table: Table, height: int, case: Case) -> None:
    """One peak as a bar, its floors as ticks, its value at the right."""
    peak, low, high = _peak(table, case)
    ax.barh(height, peak, height=0.6, color=style.colour(case.strategy), alpha=0.75, zorder=2)
    if low is not None and high is not None:
        ax.plot([low, high], [height, height], color=style.INK, linewidth=1.2, zorder=4, gid="interval")
    for floor, looks, gid in (
        (table.live_set_floor, "-", "live"),
        (table.payload_floor, (0, (1, 1)), "payload"),
    ):
        if bytes_ := floor(case):
            ax.plot(
                [bytes_ / MIB] * 2,
                [height - 0.45, height + 0.45],
                color=style.INK,
                linestyle=looks,
                linewidth=1.4,
                zorder=3,
                gid=gid,
            )
    parts.value(ax, height, style.digits(peak), VALUES)
    parts.told(ax, peak, height, f"{style.way(case)}: {quantity(peak, low, high)} MiB")


def _title_of_all(table: Table, cases: Sequence[Case]) -> str:
    """What all hidden states add to the peak of the plain forward pass, in each mode."""
    said = []
    for mode in choose.modes_of(cases):
        plain, full = (
            choose.find(cases, REFERENCE, OUTPUT, mode),
            choose.find(cases, "always_return_all", "all", mode),
        )
        if plain and full:
            low, high = (style.digits(_peak(table, case)[0]) for case in (plain, full))
            said.append(f"{low} → {high} MiB in {style.plain(mode)} mode")
    if not said:
        return "Peak heap of one call"
    return f"Peak heap when all hidden states are returned: {listed(said)}"
