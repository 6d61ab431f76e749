"""Forest plots: the time of each way over its reference, paired, with its interval and the noise band."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hiddencost.formatting import evenly, listed
from hiddencost.plots import choose, parts, style
from hiddencost.records import REFERENCE, Case, Verdict
from hiddencost.stats import FEW_BLOCKS, Table

ROW = 0.205
HEADING = 0.42
AXIS = 0.5
VALUES = 0.5
MOST_SHAPES = 4
CAPPED = " Capped: time ended before the wanted precision."
CAPTION = (
    "Dots: time over that of the final output only, paired call by call; lines: 95 % intervals between "
    "blocks; shaded: the noise band, the interval of the reference against itself (A/A). "
    "Bold: the whole interval lies outside the band."
)
TITLES = (
    ("functional_submodel", "middle", "a sub-model up to the middle takes {} of a forward pass"),
    ("always_return_all", "all", "always returning all states takes {}"),
)


@dataclass(frozen=True)
class Column:
    """One panel: its heading, and the cases of its rows (timed or not)."""

    heading: str
    cases: dict[choose.Row, Case]

    @property
    def reference(self) -> Case:
        """The case that all others of the column are compared with."""
        return next(iter(self.cases.values())).group


@style.styled
def overhead(table: Table) -> Figure | None:
    """Every way at one shape, mode beside mode: the smallest precise shape of those with the most ways."""
    cases = choose.most_common(choose.forward_cases(table, "seconds"))
    chosen = choose.told_shape(table, cases)
    if chosen is None:
        return None
    members = choose.by_shape(cases)[chosen]
    columns = [
        Column(mode, _of_group(table, [case for case in members if case.mode == mode]))
        for mode in choose.modes_of(members)
    ]
    scope = f"{style.setting(members[0])}; batch × length {style.shape(members[0])}"
    spoken = min(columns, key=lambda column: choose.place(column.reference.mode, choose.MODES))
    return _forest(table, columns, [spoken], scope)


@style.styled
def overhead_shapes(table: Table) -> Figure | None:
    """Every way in one compiled mode, shape beside shape, over the shapes that have the most ways."""
    cases = choose.most_common(choose.forward_cases(table, "seconds"))
    for mode in choose.modes_of(cases, choose.MODES):
        shapes = choose.by_shape(case for case in cases if case.mode == mode)
        most = max(map(len, shapes.values()))
        full = sorted((key for key in shapes if len(shapes[key]) == most), key=lambda key: key[0] * key[1])
        if len(full) > 1:
            columns = [
                Column(style.shape(shapes[key][0]), _of_group(table, shapes[key]))
                for key in evenly(full, MOST_SHAPES)
            ]
            scope = f"{style.setting(cases[0])}; {style.plain(mode)} mode; panels: batch × length"
            return _forest(table, columns, columns, scope)
    return None


def _of_group(table: Table, cases: Sequence[Case]) -> dict[choose.Row, Case]:
    """The cases by row, with those of the same group that were planned and gave no time."""
    group = cases[0].group
    failed = [bad.case for bad in table.not_ok if bad.metric == "seconds" and bad.case.group == group]
    return {choose.row_of(case): case for case in (*failed, *cases)}


def _forest(table: Table, columns: Sequence[Column], spoken: Sequence[Column], scope: str) -> Figure | None:
    """Columns that share their rows; the title speaks of the columns `spoken`."""
    rows = [
        row
        for row in choose.ordered(row for column in columns for row in column.cases)
        if row.strategy != REFERENCE
    ]
    verdicts = {
        case: table.verdict(case)
        for column in columns
        for row, case in column.cases.items()
        if row.strategy != REFERENCE
    }
    if not any(verdict.comparison for verdict in verdicts.values()):
        return None
    names = [style.way(next(c.cases[row] for c in columns if row in c.cases)) for row in rows]
    sheet = parts.Sheet(
        _title(spoken, verdicts), scope, HEADING + ROW * len(rows) + AXIS, _caption(table, columns)
    )
    left = parts.EDGE + 0.1 + max(map(parts.text_width, names))
    cell = (parts.WIDTH - left - 0.05) / len(columns)
    low, high = parts.ratio_limits(v.comparison for v in verdicts.values() if v.comparison)
    for place, column in enumerate(columns):
        ax = sheet.axes(left + place * cell, HEADING, cell - VALUES, ROW * len(rows))
        _frame(ax, rows, names if place == 0 else None, low, high)
        _heading(ax, table, column)
        _noise(ax, table, column, low, high)
        for height, row in enumerate(rows):
            if row in column.cases:
                _row(
                    ax, height, row, verdicts[column.cases[row]], _state(table, column.cases[row]), low, high
                )
    return sheet.figure


def _frame(
    ax: Axes, rows: Sequence[choose.Row], names: Sequence[str] | None, low: float, high: float
) -> None:
    """Axes without data: rows named at the left, shaded by strategy, ratios on a log scale."""
    parts.ratio_axis(ax, low, high)
    parts.rows(ax, rows, names)
    ax.set_xlabel("time / reference")


def _heading(ax: Axes, table: Table, column: Column) -> None:
    """What the panel is, and how long its reference takes."""
    ax.set_title(style.plain(column.heading), pad=17)
    center = table.center(column.reference, "seconds")
    if center:
        ax.annotate(
            f"reference {style.seconds(center[0])}" + ", capped" * _capped(table, column),
            xy=(0, 1),
            xycoords="axes fraction",
            xytext=(0, 5),
            textcoords="offset points",
            fontsize=style.SMALL,
            color=style.QUIET,
        )


def _noise(ax: Axes, table: Table, column: Column, low: float, high: float) -> None:
    """The noise band, and the line at 1."""
    band = table.band(column.reference)
    if band:
        ax.axvspan(max(band[0], low), min(band[1], high), color=style.BAND, linewidth=0, zorder=1, gid="band")
    ax.axvline(1.0, color="#777777", linewidth=0.5, zorder=2, gid="one")


def _row(
    ax: Axes, height: int, row: choose.Row, verdict: Verdict, state: str, low: float, high: float
) -> None:
    """The dot, the interval and the number of one way, or why it has none."""
    comparison = verdict.comparison
    if comparison is None:
        parts.value(ax, height, state, VALUES, color=style.QUIET, style="italic")
        return
    parts.dot(ax, height, comparison, style.colour(row.strategy), style.marker(row.points), low, high)
    outside = verdict.word in ("slower", "faster")
    parts.value(
        ax,
        height,
        style.ratio(comparison.ratio),
        VALUES,
        color=style.INK if outside else style.QUIET,
        fontweight="bold" if outside else "normal",
    )


def _state(table: Table, case: Case) -> str:
    """Why a case has no time: the state of its last failure."""
    states = [bad.state for bad in table.not_ok if bad.case == case and bad.metric == "seconds"]
    return states[-1].replace("_", " ") if states else ""


def _caption(table: Table, columns: Sequence[Column]) -> str:
    """How to read it, with a word on panels that have no band."""
    bare = [style.plain(c.heading) for c in columns if table.band(c.reference) is None]
    told = CAPTION + (f" No band ({FEW_BLOCKS} with a twin): {', '.join(bare)}." if bare else "")
    return told + CAPPED * any(_capped(table, column) for column in columns)


def _capped(table: Table, column: Column) -> bool:
    """Whether time ended the column's rounds before the wanted precision was reached, in any block."""
    return column.reference in table.capped


def _title(columns: Sequence[Column], verdicts: dict[Case, Verdict]) -> str:
    """The share of a sub-model up to the middle and the cost of all states, over these columns."""
    said = []
    for strategy, points, words in TITLES:
        row = choose.Row(strategy, points, "none")
        found = [verdicts[column.cases[row]].comparison for column in columns if row in column.cases]
        if shares := [comparison.ratio for comparison in found if comparison]:
            said.append(words.format(style.ratios(shares)))
    if not said:
        return "Time of each way over that of a plain forward pass"
    return f"In {style.plain(columns[0].reference.mode)} mode {listed(said)}"
