"""One-off costs apart from steady ones: build and first call, and when a sub-model has repaid them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from hiddencost.plots import choose, parts, style
from hiddencost.records import OUTPUT, REFERENCE, TWIN, Case
from hiddencost.stats import Cost, Table, ahead_from

PREFERRED = ("middle", "all", OUTPUT)
"""Which points stand for a strategy that was built for several."""
ROW, VALUES, TOP = 0.215, 0.7, 0.25
CURVES, BETWEEN, CURVES_KEY = 1.35, 0.78, 1.95
CAPTION = (
    "Above: dark build, light first call (trace and compile where the mode does). Below: dots "
    "mark the call from which the built sub-model, its one-off costs included, is ahead."
)


@dataclass(frozen=True)
class Race:
    """A sub-model up to the middle that is built once, against a plain pass that was already built and
    traced, and against building the sub-model at each call."""

    built: Cost
    plain: Cost
    per_call: Cost | None


@style.styled
def one_off(table: Table) -> Figure | None:
    """Build and first call of every strategy, and after how many calls a sub-model has repaid them."""
    cases = choose.most_common(
        case
        for case in choose.forward_cases(table, "first_call_seconds")
        if case.strategy != TWIN and table.center(case, "build_seconds")
    )
    chosen = choose.fullest_shape(
        cases,
        lambda members: (len(choose.modes_of(members)), -members[0].batch * members[0].length),
    )
    if chosen is None:
        return None
    members = _one_of_each(choose.by_shape(cases)[chosen])
    modes = choose.modes_of(members)
    races = {mode: found for mode in modes if (found := race(table, members, mode))}
    rows = choose.ordered(map(choose.row_of, members))
    names = [style.way(next(case for case in members if choose.row_of(case) == row)) for row in rows]
    below = BETWEEN + CURVES + 0.5 if races else 0.35
    sheet = parts.Sheet(
        _title(races),
        f"{style.setting(members[0])}; batch × length {style.shape(members[0])}",
        TOP + ROW * len(rows) + below,
        CAPTION if races else "",
    )
    left = max(CURVES_KEY, parts.EDGE + 0.1 + max(map(parts.text_width, names)))
    cell = (parts.WIDTH - left - 0.05) / len(modes)
    top = TOP + ROW * len(rows) + BETWEEN
    for place, mode in enumerate(modes):
        ax = sheet.axes(left + place * cell, TOP, cell - VALUES, ROW * len(rows))
        parts.rows(ax, rows, names if place == 0 else None)
        ax.set_title(style.plain(mode))
        ax.set_xlabel("build + first call, s")
        _bars(ax, table, rows, [case for case in members if case.mode == mode])
        if mode in races:
            ax = sheet.axes(left + place * cell, top, cell - VALUES, CURVES)
            _curves(ax, races[mode])
            if mode == next(iter(races)):
                ax.set_ylabel("all calls, s")
    if races:
        _curves_key(sheet, top, any(found.per_call for found in races.values()))
    return sheet.figure


def race(table: Table, cases: Sequence[Case], mode: str) -> Race | None:
    """The race of one mode, or None where a time of the sub-model or of the plain pass is missing."""
    case = choose.find(cases, "functional_submodel", "middle", mode)
    built = table.cost(case) if case else None
    plain = table.center(case.group, "seconds") if case else None
    if case is None or built is None or plain is None:
        return None
    per_call = table.cost(case.with_(strategy="functional_submodel_per_call"))
    return Race(built, Cost(plain[0], plain[0]), per_call)


def _one_of_each(cases: Sequence[Case]) -> list[Case]:
    """One case for each strategy and mode: PREFERRED points first."""
    rows: dict[str, choose.Row] = {}
    for row in choose.ordered(map(choose.row_of, cases)):
        best = rows.setdefault(row.strategy, row)
        if choose.place(row.points, PREFERRED) < choose.place(best.points, PREFERRED):
            rows[row.strategy] = row
    return [case for case in cases if choose.row_of(case) == rows[case.strategy]]


def _bars(ax: Axes, table: Table, rows: Sequence[choose.Row], cases: Sequence[Case]) -> None:
    """Build and first call of each row, stacked; the sum at the right."""
    longest = 0.0
    for height, row in enumerate(rows):
        for case in cases:
            if choose.row_of(case) != row:
                continue
            build, first = table.center(case, "build_seconds"), table.center(case, "first_call_seconds")
            if build is None or first is None:
                continue
            shade = style.colour(row.strategy)
            ax.barh(height, build[0], height=0.6, color=shade, zorder=2)
            ax.barh(height, first[0], left=build[0], height=0.6, color=shade, alpha=0.5, zorder=2)
            ends = [build[0] + end for end in first if end is not None]
            if len(ends) == 3:
                ax.plot(ends[1:], [height] * 2, color=style.INK, linewidth=1.2, zorder=4, gid="interval")
            longest = max(longest, *ends)
            parts.value(ax, height, style.seconds(build[0] + first[0]), VALUES)
            once = f"build {style.seconds(build[0])}, first call {style.seconds(first[0])}"
            parts.told(ax, ends[0], height, f"{style.way(case)}: {once}")
    ax.set_xlim(0, longest * 1.04 or 1.0)
    ax.xaxis.set_major_locator(_few(ax))


def _few(ax: Axes, integer: bool = False) -> MaxNLocator:
    """As many round ticks as narrow axes have room for."""
    inches = float(ax.bbox.width) / ax.figure.dpi
    return MaxNLocator(3 if inches < 2 else 5, steps=[1, 2, 5, 10], integer=integer)


def _curves(ax: Axes, found: Race) -> None:
    """Seconds spent after so many calls, and where the built sub-model has caught up."""
    rivals = {REFERENCE: found.plain}
    if found.per_call:
        rivals["functional_submodel_per_call"] = found.per_call
    crossings = {strategy: found.built.crossing(rival) for strategy, rival in rivals.items()}
    most = max([10.0, *(2.2 * calls for calls in crossings.values() if calls)])
    for strategy, spent in (*rivals.items(), ("functional_submodel", found.built)):
        ends = [spent.after(1), spent.after(most)]
        ax.plot([1, most], ends, color=style.colour(strategy), label=strategy)
    for strategy, calls in crossings.items():
        if calls:
            _crossing(ax, calls, found.built.after(calls), style.colour(strategy))
    ax.set_xlim(0, most)
    highest = max(spent.after(most) for spent in (*rivals.values(), found.built))
    ax.set_ylim(0, highest * 1.05)
    ax.xaxis.set_major_locator(_few(ax, integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: parts.number(value)))
    parts.grid_lines(ax)
    ax.set_xlabel("calls")


def _crossing(ax: Axes, calls: float, seconds: float, shade: str) -> None:
    """A dot where two lines cross, with the first whole number of calls after it."""
    ax.plot(
        [calls],
        [seconds],
        marker="o",
        color=shade,
        markeredgecolor="white",
        markersize=6.5,
        zorder=5,
        gid="even",
    )
    parts.told(ax, calls, seconds, f"ahead from call {ahead_from(calls):,} on")
    ax.annotate(
        f"{ahead_from(calls):,}",
        xy=(calls, seconds),
        xytext=(3, -9),
        textcoords="offset points",
        fontsize=style.TEXT,
        fontweight="bold",
        color=style.ink(shade),
        va="center",
    )


def _curves_key(sheet: parts.Sheet, top: float, per_call: bool) -> None:
    """What the curves are, left of them."""
    sheet.note(parts.EDGE, top, "plain pass,\nalready traced", style.colour(REFERENCE))
    sheet.note(
        parts.EDGE, top + 0.36, "sub-model, middle,\nwith one-off costs", style.colour("functional_submodel")
    )
    if per_call:
        sheet.note(
            parts.EDGE,
            top + 0.72,
            "sub-model per call,\nmiddle",
            style.colour("functional_submodel_per_call"),
        )


def _title(races: dict[str, Race]) -> str:
    """From which call on a sub-model is ahead, in the first mode that says so."""
    for mode in sorted(races, key=lambda mode: choose.place(mode, choose.MODES)):
        calls = races[mode].built.crossing(races[mode].plain)
        if calls:
            return (
                f"In {style.plain(mode)} mode a sub-model up to the middle is ahead of a plain pass "
                f"from call {ahead_from(calls):,} on, its build and first call included"
            )
    return "What each way costs once: build and first call"
