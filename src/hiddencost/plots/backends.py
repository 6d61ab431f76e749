"""Backends side by side: a plain pass on each, what reading hidden states adds to its time and peak."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hiddencost.formatting import listed, quantity
from hiddencost.grid import MODES
from hiddencost.plots import choose, parts, style
from hiddencost.plots.choose import Row
from hiddencost.records import OUTPUT, REFERENCE, SINGLE_BLOCK, Case
from hiddencost.stats import Table, peak_metric

PEAKS = ("peak_heap_bytes", "peak_device_bytes")
MIB = 2**20
READ = ((("functional_submodel", "middle"), "a sub-model up to the middle takes {} of it"),
        (("functional_submodel", "all"), "all hidden states take {}"))  # fmt: skip
"""The ways that are drawn against the plain pass, with what the title says of each."""
OTHER_WORK = ("predict", "train")
"""Modes in which a call is not one forward pass."""
CAPTION = (
    "Ratios: time over that of the same backend's plain pass, ■ sub-model up to the middle, ▲ sub-model with "
    "all hidden states, lines: 95 % intervals."
)
PEAKS_CAPTION = " Peaks: black the plain pass, blue with all hidden states."
ROW, TOP, AXIS, VALUES = 0.24, 0.26, 0.5, (0.62, 0.86, 0.98)


@style.styled
def backends(table: Table) -> Figure | None:
    """Every backend, mode and device as a row, at the model and shape that most of them have; nothing for a
    run with one backend on one device."""
    timed = _alike(choose.forward_cases(table, "seconds"))
    if not timed:
        return None
    peaks = [case for metric in PEAKS for case in choose.forward_cases(table, metric)]
    held = _alike(case for case in peaks if case.strategy != SINGLE_BLOCK)
    rows = _ordered(map(_program, [*timed, *held]))
    names = [
        f"{style.plain(row.strategy)}, {style.plain(row.points)}"
        + f" on {style.plain(row.reduction)}" * (len({row.reduction for row in rows}) > 1)
        for row in rows
    ]
    sheet = parts.Sheet(
        _title(table, timed),
        _scope(timed, held),
        TOP + ROW * len(rows) + AXIS,
        CAPTION + PEAKS_CAPTION * bool(held),
    )
    left = parts.EDGE + 0.1 + max(map(parts.text_width, names))
    shown = VALUES if held else VALUES[:2]
    cell = (parts.WIDTH - left - 0.05) / len(shown)
    panels = [
        sheet.axes(left + place * cell, TOP, cell - room, ROW * len(rows)) for place, room in enumerate(shown)
    ]
    for place, ax in enumerate(panels):
        parts.rows(ax, rows, names if place == 0 else None)
    _times(panels[0], table, rows, timed)
    _ratios(panels[1], table, rows, timed)
    if held:
        _peaks(panels[2], table, rows, held)
    return sheet.figure


def _alike(cases: Iterable[Case]) -> list[Case]:
    """The plain passes and what is read beside them, of the model, dtype and shape that most programs have
    (the largest among equals). None where one backend on one device alone was measured there."""
    ways = {(REFERENCE, OUTPUT), *(way for way, _ in READ)}
    found: dict[object, list[Case]] = defaultdict(list)
    for case in cases:
        if (case.strategy, case.points) in ways and case.mode not in OTHER_WORK:
            found[case.model, case.dtype, case.batch, case.length].append(case)
    best = max(
        found.values(),
        key=lambda members: (len(set(map(_program, members))), members[0].batch * members[0].length),
        default=[],
    )
    return best if len({(case.backend, case.device) for case in best}) > 1 else []


def _program(case: Case) -> Row:
    """The row of a case here: its backend, mode and device."""
    return Row(case.backend, case.mode, case.device)


def _ordered(programs: Iterable[Row]) -> list[Row]:
    known = list(MODES)
    return sorted(
        set(programs),
        key=lambda row: (
            known.index(row.strategy) if row.strategy in known else len(known),
            row.strategy,
            choose.place(row.points, choose.SHOWN),
            row.points,
            row.reduction,
        ),
    )


def _of(cases: Iterable[Case], program: Row, strategy: str, points: str) -> Case | None:
    return choose.find((case for case in cases if _program(case) == program), strategy, points)


def _times(ax: Axes, table: Table, rows: Sequence[Row], cases: Sequence[Case]) -> None:
    """The time of a plain pass."""
    ax.set_title("plain forward pass")
    centers = {}
    for height, row in enumerate(rows):
        case = _of(cases, row, REFERENCE, OUTPUT)
        if case and (center := table.center(case, "seconds")):
            centers[height] = center
    factor, unit = style.time_unit(center for center, _, _ in centers.values())
    ax.set_xlabel(f"time, {unit}")
    for height, center in centers.items():
        middle, low, high = parts.scaled(center, factor)
        ax.barh(height, middle, height=0.56, color=style.colour(REFERENCE), alpha=0.75, zorder=2, gid="time")
        if low is not None and high is not None:
            ax.plot([low, high], [height, height], color=style.QUIET, linewidth=1.2, zorder=4, gid="interval")
        parts.value(ax, height, style.seconds(center[0]), VALUES[0])
        parts.told(ax, middle, height, f"plain forward pass: {quantity(*center, unit='s')}")


def _ratios(ax: Axes, table: Table, rows: Sequence[Row], cases: Sequence[Case]) -> None:
    """What each way multiplies it by."""
    ax.set_title("reading hidden states")
    ax.set_xlabel("time / plain pass")
    verdicts = {
        (height, way): table.verdict(case)
        for height, row in enumerate(rows)
        for way, _ in READ
        if (case := _of(cases, row, *way))
    }
    low, high = parts.ratio_limits(v.comparison for v in verdicts.values() if v.comparison)
    parts.ratio_axis(ax, low, high)
    ax.axvline(1.0, color="#777777", linewidth=0.5, zorder=2)
    for height, _ in enumerate(rows):
        told = []
        for way, _ in READ:
            comparison = verdicts[height, way].comparison if (height, way) in verdicts else None
            if comparison:
                parts.dot(ax, height, comparison, style.colour(way[0]), style.marker(way[1]), low, high)
                told.append(style.ratio(comparison.ratio))
        parts.value(ax, height, " · ".join(told), VALUES[1])


def _peaks(ax: Axes, table: Table, rows: Sequence[Row], cases: Sequence[Case]) -> None:
    """What is held at the peak of a plain pass, and with all hidden states."""
    ax.set_title("peak memory")
    ax.set_xlabel("heap, or a GPU's memory, MiB" if _on_gpu(cases) else "heap, MiB")
    for height, row in enumerate(rows):
        told = []
        for way, thick in (((REFERENCE, OUTPUT), 0.28), (READ[1][0], 0.62)):
            case = _of(cases, row, *way)
            center = table.center(case, peak_metric(case)) if case else None
            if case and center:
                mib = center[0] / MIB
                ax.barh(
                    height,
                    mib,
                    height=thick,
                    color=style.colour(way[0]),
                    alpha=1.0 if way[0] == REFERENCE else 0.75,
                    zorder=3 if way[0] == REFERENCE else 2,
                    gid="peak",
                )
                told.append(style.digits(mib))
                parts.told(ax, mib, height, f"{style.way(case)}: {quantity(*center, unit='B')}")
        parts.value(ax, height, " → ".join(told), VALUES[2])


def _on_gpu(cases: Iterable[Case]) -> bool:
    return any(case.device != "cpu" for case in cases)


def _scope(timed: Sequence[Case], held: Sequence[Case]) -> str:
    case = timed[0]
    devices = listed(dict.fromkeys(style.plain(case.device) for case in timed))
    scope = f"{style.plain(case.model)} on {devices}, {style.plain(case.dtype)}; batch × length "
    scope += style.shape(case)
    return scope + (f"; peak memory: {style.plain(held[0].model)}, {style.shape(held[0])}" if held else "")


def _title(table: Table, cases: Sequence[Case]) -> str:
    """Where a plain pass is fastest, and what reading multiplies it by over all backends and modes."""
    plain = [
        (center[0], case)
        for case in cases
        if case.strategy == REFERENCE and (center := table.center(case, "seconds"))
    ]
    said = []
    if plain:
        seconds, case = min(plain, key=lambda pair: pair[0])
        said.append(
            f"A plain pass is fastest with {style.plain(case.backend)} in {style.plain(case.mode)} mode "
            + f"on {style.plain(case.device)} " * _on_gpu(cases)
            + f"({style.seconds(seconds)})"
        )
    for way, words in READ:
        found = [table.compare(case) for case in cases if (case.strategy, case.points) == way]
        if shares := [comparison.ratio for comparison in found if comparison]:
            said.append(words.format(style.ratios(shares)))
    return listed(said) or "Backends side by side"
