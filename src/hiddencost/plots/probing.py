"""What linear probes find in each hidden state: a curve over the layers for each task."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hiddencost.claims.probing import (
    BETTER,
    BOTH_NOUNS,
    CHANCE,
    CONTROL,
    METRIC,
    PROBE,
    Probed,
    accuracy,
    lead_of_best,
    probed,
)
from hiddencost.formatting import listed, quantity
from hiddencost.plots import labels, parts, style
from hiddencost.records import Case
from hiddencost.stats import Table

HEIGHT, LEFT, LABELS, COLUMNS = 2.3, 0.55, 1.0, 3
DOTTED: parts.Dashes = (0, (1, 1.5))
DASHED: parts.Dashes = (0, (5, 3))
MIXES = {"scalar_mix": ("scalar mix", "D"), "selected": ("selected", "P")}
"""What probes of all hidden states together read: its name and marker."""


@style.styled
def probing(table: Table) -> Figure | None:
    """A panel for each task: accuracy over the hidden states, with the control task and guessing; at the
    right, probes of all hidden states together. Nothing where no two hidden states of a model were probed."""
    every = [one for one in probed(table) if len(one.points) > 1]
    found = [one for one in every if _setting(one) == _setting(every[0])]
    if not found:
        return None
    columns = min(COLUMNS, len(found))
    seeds = len(table.blocks(found[0].last, METRIC))
    first = found[0].last
    sheet = parts.Sheet(
        _title(table, found),
        f"{style.setting(first)}; linear probes, held-out accuracy; lines: means, bars: 95 % intervals over "
        f"{seeds} seeds, corrected for what these share",
        0.25 + -(-len(found) // columns) * (HEIGHT + parts.ROOM_BELOW) - 0.2,
        "Random labels: the same probe, learning a label drawn for each word (control task). Dotted: the "
        "most frequent label. Dashed: both nouns known, but not which is the subject. Hidden states: the "
        "embeddings (e) and the blocks; at their right all together, mixed and as selected features.",
    )
    tiles = sheet.tiles(len(found), columns, LEFT, LABELS, HEIGHT, 0.25)
    for number, (ax, one) in enumerate(zip(tiles, found, strict=True)):
        _draw(ax, table, one)
        if number % columns:
            ax.set_yticklabels([])
        else:
            ax.set_ylabel("held-out accuracy, %")
    return sheet.figure


def _setting(one: Probed) -> tuple[str, ...]:
    case = one.last
    return case.model, case.backend, case.dtype


def _accuracy(table: Table, case: Case) -> parts.Center:
    """Percent, with the interval over the seeds."""
    return parts.scaled(accuracy(table, case), 100)


def _draw(ax: Axes, table: Table, one: Probed) -> None:
    xs = list(range(len(one.points)))
    ax.set_title(style.plain(one.words))
    ax.set_xticks(xs, [_short(case) for case in one.points])
    ax.set_xlim(-0.4, len(xs) - 0.6 + 0.8 * bool(one.together))
    ax.set_ylim(0, 100)
    ax.set_xlabel("hidden state")
    parts.grid_lines(ax)
    ends = []
    for strategy in (CONTROL, PROBE):
        known = [(x, case.with_(strategy=strategy)) for x, case in zip(xs, one.points, strict=True)]
        known = [(x, case) for x, case in known if table.medians(case, METRIC)]
        if not known:
            continue
        shade, name = style.colour(strategy), style.LABELS[strategy]
        centers = [_accuracy(table, case) for _, case in known]
        parts.line(ax, [x for x, _ in known], centers, shade, "o", 4, name, "%")
        ends.append(labels.End(known[-1][0], centers[-1][0], name, shade))
    for number, case in enumerate(one.together):
        ends.append(_together(ax, table, case, len(xs) - 0.2 + 0.3 * number))
    for name, dashes in ((CHANCE, DOTTED), (BOTH_NOUNS, DASHED)):
        if floor := table.note(one.last, METRIC, name):
            ax.axhline(100 * float(floor), color=style.QUIET, linewidth=1.0, linestyle=dashes, zorder=2)
    labels.end_labels(ax, ends)


def _together(ax: Axes, table: Table, case: Case, x: float) -> labels.End:
    """A mark with its interval, right of the curve."""
    middle, low, high = _accuracy(table, case)
    shade = style.colour(PROBE)
    if low is not None and high is not None:
        ax.plot([x, x], [low, high], color=shade, linewidth=1.1, zorder=4, gid="interval")
    name, marker = MIXES.get(case.reduction) or (style.plain(case.reduction, 18), "s")
    ax.plot([x], [middle], marker=marker, color=shade, zorder=5, clip_on=False)
    parts.told(ax, x, middle, f"{name}: {quantity(middle, low, high)} %")
    return labels.End(x, middle, name, shade)


def _short(case: Case) -> str:
    """`e`, `0`, `5`."""
    return "e" if case.points == "embeddings" else case.points.removeprefix("block_")


def _title(table: Table, found: Sequence[Probed]) -> str:
    """For which tasks the last block is told apart from a better one, and for which not."""
    ahead: list[str] = []
    level: list[str] = []
    for one in found:
        _, low, _ = lead_of_best(table, one) or (0.0, None, None)
        (ahead if low is not None and low > BETTER else level).append(style.plain(one.words))
    better = f"The last block is not the best place to read {listed(ahead)}"
    if not ahead:
        return f"No better hidden state than the last one is told apart at {listed(level)}"
    return better + (f"; at {listed(level)} no better one is told apart" if level else "")
