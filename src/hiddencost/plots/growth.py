"""What adds up over many calls in turn: building a sub-model at each call against building it once."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hiddencost.formatting import listed, quantity
from hiddencost.plots import choose, labels, parts, style
from hiddencost.records import Case
from hiddencost.stats import SETTLED, Table, interval, t_interval

MIB = 2**20
HEIGHT, LABELS = 2.5, 1.5
DASHES: dict[str, parts.Dashes] = {"graph": "-", "eager": (0, (4, 2)), "xla": (0, (1, 1.5))}
OTHER_DASHES: parts.Dashes = (0, (6, 2, 1, 2))
WAYS = (("functional_submodel_per_call", "built at each call"), ("functional_submodel", "one built once"))


@style.styled
def growth(table: Table) -> Figure | None:
    """Seconds and resident bytes over many calls in turn: building at each call against building once."""
    compared = [case for case in table.cases("growth_seconds") if case.strategy in dict(WAYS)]
    timed = choose.most_common(compared)
    if not timed:
        return None
    sized = [
        case
        for case in table.cases("growth_bytes")
        if case.strategy in dict(WAYS) and choose.setting_of(case) == choose.setting_of(timed[0])
    ]
    modes = choose.modes_of(timed)
    sheet = parts.Sheet(
        _title(table, timed),
        f"{style.setting(timed[0])}; batch × length {style.shape(timed[0])}; "
        "lines: means over the blocks, shaded: 95 % intervals",
        parts.KEY + 0.25 + HEIGHT + 0.55,
    )
    sheet.key([(style.plain(mode), DASHES.get(mode, OTHER_DASHES)) for mode in modes])
    panels = (("growth_seconds", timed), ("growth_bytes", sized))
    tiles = sheet.tiles(2 if sized else 1, 2 if sized else 1, 0.62, LABELS, HEIGHT, parts.KEY + 0.25)
    for ax, (metric, cases) in zip(tiles, panels, strict=False):
        _grow(ax, table, metric, cases)
    return sheet.figure


def over_calls(table: Table, case: Case, metric: str) -> list[parts.Center]:
    """For each call in turn, what the blocks agree on: times as a geometric mean in milliseconds, bytes
    as the mean growth in MiB since the call SETTLED, from that call on; both with a 95 % t interval
    between blocks."""
    blocks = [values for values in table.blocks(case, metric).values() if values]
    calls = zip(*blocks, strict=False)
    if metric == "growth_seconds":
        return [parts.scaled(interval(values), 1e3) for values in calls]
    starts = [values[min(SETTLED, len(values)) - 1] for values in blocks]
    settled = list(calls)[min(SETTLED, min(map(len, blocks), default=0)) - 1 :] if blocks else []
    return [
        t_interval([(value - start) / MIB for value, start in zip(values, starts, strict=True)])
        for values in settled
    ]


def _grow(ax: Axes, table: Table, metric: str, cases: Sequence[Case]) -> None:
    """One line for each way and mode."""
    lines = [(case, over_calls(table, case, metric)) for case in cases]
    skipped = 0 if metric == "growth_seconds" else SETTLED - 1
    ends = [_line(ax, case, centers, skipped) for case, centers in lines if centers]
    heights = [center for _, centers in lines for center, _, _ in centers]
    longest = max(len(values) for case in cases for values in table.blocks(case, metric).values())
    ax.set_xlim(0, longest + 0.5)
    ax.set_xlabel("call")
    if metric == "growth_seconds":
        ax.set_title("time of each call")
        ax.set_ylabel("ms, log scale")
        parts.log_axis(ax, "y", heights)
    else:
        ax.set_title(f"resident memory since call {SETTLED}")
        ax.set_ylabel("MiB")
        span = max(1.0, *heights) - min(0.0, *heights)
        ax.set_ylim(min(0.0, *heights) - 0.03 * span, max(1.0, *heights) + 0.05 * span)
    parts.grid_lines(ax)
    labels.end_labels(ax, ends, 2 * labels.GAP)


def _line(ax: Axes, case: Case, centers: Sequence[parts.Center], skipped: int) -> labels.End:
    """The line of one case with its interval, from the call after the skipped ones, and its label."""
    calls = range(skipped + 1, skipped + len(centers) + 1)
    shade, mode = style.colour(case.strategy), style.plain(case.mode)
    last = centers[-1][0]
    ax.plot(
        calls,
        [center for center, _, _ in centers],
        color=shade,
        linestyle=DASHES.get(case.mode, OTHER_DASHES),
        label=f"{style.way(case)}, {mode}",
    )
    known = [
        (call, low, high)
        for call, (_, low, high) in zip(calls, centers, strict=True)
        if low is not None and high is not None
    ]
    if known:
        xs, lows, highs = zip(*known, strict=True)
        ax.fill_between(xs, lows, highs, color=shade, alpha=0.2, linewidth=0, gid="interval")
    shown = f"{style.way(case)}, {mode}, call {calls[-1]:,}: {quantity(*centers[-1])}"
    parts.told(ax, calls[-1], last, shown)
    return labels.End(calls[-1], last, f"{style.LABELS[case.strategy]},\n{mode}", shade)


def _title(table: Table, cases: Sequence[Case]) -> str:
    """Traces and bytes of the way that builds at each call, against the one built once."""
    for mode in choose.modes_of(cases, choose.MODES):
        said = []
        for strategy, words in WAYS:
            case = choose.find(cases, strategy, "middle", mode)
            facts = _facts(table, case) if case else ""
            if facts:
                said.append(f"{words} {facts}")
        if said:
            most = max(len(over_calls(table, case, "growth_seconds")) for case in cases)
            return f"Over {most:,} calls in {style.plain(mode)} mode a sub-model {', '.join(said)}"
    return "Time and memory of many calls in turn"


def _facts(table: Table, case: Case) -> str:
    """`takes 50 traces and 69 MiB`, as far as it was measured."""
    facts = []
    traces = table.center(case, "growth_traces")
    if traces:
        facts.append("1 trace" if round(traces[0]) == 1 else f"{traces[0]:,.0f} traces")
    grown = over_calls(table, case, "growth_bytes")
    if grown:
        facts.append(f"{round(grown[-1][0]):,} MiB")
    return "takes " + listed(facts) if facts else ""
