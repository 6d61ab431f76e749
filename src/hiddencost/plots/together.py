"""Backends and other libraries that took turns: what a user gets in the end, shape by shape."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hiddencost.claims.beside import Meeting, Program, fastest, meetings
from hiddencost.formatting import listed
from hiddencost.grid import PEERS
from hiddencost.plots import parts, style
from hiddencost.plots.choose import Row
from hiddencost.records import OUTPUT, Case, Comparison
from hiddencost.stats import Table

DRAWN = (OUTPUT, "all", "middle")
"""Kinds of points, the one drawn last on top."""
NAMED = "middle"
"""The kind of points that the title and the numbers speak of, where it was measured."""
OTHERS = "#8A5A00"
"""The colour of what is read by other libraries."""
ROW, TOP, AXIS, VALUE = 0.24, 0.26, 0.5, 0.42
CAPTION = (
    "Each library and backend with its fastest way: ● plain pass, ■ up to the middle hidden state, ▲ all "
    "hidden states; lines: 95 % intervals. Blue: Keras. Number: up to the middle."
)
Found = Mapping[str, Mapping[Program, Mapping[Meeting, Case]]]


@style.styled
def together(table: Table) -> Figure | None:
    """A panel for each shape, a row for each backend and mode; nothing where none took turns."""
    met = meetings(table)
    if not met:
        return None
    found = {points: fastest(table, met, points) for points in DRAWN}
    programs = list(dict.fromkeys(who for ways in found.values() for who in ways))
    first = met[0].first
    sheet = parts.Sheet(_title(table, found, met), _scope(met), TOP + ROW * len(programs) + AXIS, CAPTION)
    names = [_name(who, first) for who in programs]
    left = parts.EDGE + 0.1 + max(map(parts.text_width, names))
    cell = (parts.WIDTH - left - 0.05) / len(met)
    low, high = _limits(table, found)
    for place, meeting in enumerate(met):
        ax = sheet.axes(left + place * cell, TOP, cell - VALUE, ROW * len(programs))
        rows = [Row(who.backend, who.mode, who.model) for who in programs]
        parts.rows(ax, rows, names if place == 0 else None)
        ax.set_title(style.shape(meeting.first))
        parts.log_axis(ax, "x", (low, high))
        ax.set_xlabel("time / reference")
        ax.axvline(1.0, color="#777777", linewidth=0.5, zorder=2)
        for height, who in enumerate(programs):
            cases = {points: ways.get(who, {}).get(meeting) for points, ways in found.items()}
            _row(ax, table, height, cases, meeting, (low, high))
    return sheet.figure


def _row(
    ax: Axes,
    table: Table,
    height: float,
    cases: Mapping[str, Case | None],
    meeting: Meeting,
    limits: tuple[float, float],
) -> None:
    for points, case in cases.items():
        comparison = table.compare(case, meeting.first) if case else None
        if case and comparison:
            shade = style.COLOURS["final_only"] if points == OUTPUT else _shade(case)
            parts.dot(ax, height, comparison, shade, style.marker(points), *limits)
            if points == NAMED:
                parts.value(ax, height, style.ratio(comparison.ratio), VALUE, color=style.ink(shade))


def _shade(case: Case) -> str:
    return OTHERS if case.backend in PEERS else style.colour(case.strategy)


def _limits(table: Table, found: Found) -> tuple[float, float]:
    ratios = [
        comparison.ratio for ways in found.values() for comparison in _comparisons(table, ways.values())
    ]
    low, high = min([0.9, *ratios]), max([1.1, *ratios])
    return max(low, 0.2) * 0.9, min(high, 3.0) * 1.08


def _comparisons(table: Table, ways: Iterable[Mapping[Meeting, Case]]) -> list[Comparison]:
    known = (table.compare(case, meeting.first) for way in ways for meeting, case in way.items())
    return [comparison for comparison in known if comparison]


def _scope(met: Sequence[Meeting]) -> str:
    first = met[0].first
    shapes = listed(style.shape(meeting.first) for meeting in met)
    return (
        f"Reference: a plain forward pass of {style.plain(first.backend)}; {style.plain(first.model)} on "
        f"{style.plain(first.device)}, {style.plain(first.dtype)}; batch × length {shapes}; call by call"
    )


def _name(who: Program, first: Case) -> str:
    name = f"{style.plain(who.backend)}, {style.plain(who.mode)}"
    return name if who.model == first.model else f"{name} ({style.plain(who.model)})"


def _title(table: Table, found: Found, met: Sequence[Meeting]) -> str:
    """What Keras's best and the other libraries' best take for the middle hidden state, over all shapes."""
    said = []
    for name, peer in (("Keras", False), ("the other libraries", True)):
        best = []
        for meeting in met:
            mine = [
                {meeting: ways[meeting]}
                for who, ways in found[NAMED].items()
                if (who.backend in PEERS) == peer and meeting in ways
            ]
            ratios = [comparison.ratio for comparison in _comparisons(table, mine)]
            best += [min(ratios)] if ratios else []
        if best:
            said.append(f"{style.ratios(best)} with {name}")
    if not said:
        return "Backends and other libraries side by side"
    return (
        f"At best, shape by shape, the middle hidden state takes {listed(said)} "
        f"(1: a plain forward pass of {style.plain(met[0].first.backend)})"
    )
