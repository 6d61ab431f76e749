"""Hidden states of whole data sets: what `predict` takes and holds, and what the payload weighs."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from hiddencost.formatting import listed
from hiddencost.plots import choose, labels, parts, style
from hiddencost.records import OUTPUT, REFERENCE, SINGLE_BLOCK, TWIN, Case
from hiddencost.stats import Table

MIB = 2**20
HEIGHT, LEFT, LABELS, TOP = 2.5, 0.62, 1.65, 0.25
FORMULA: parts.Dashes = (0, (1, 2))
PAYLOAD_LABELS = 1.95


def payload_per_example(table: Table, case: Case) -> float | None:
    """Bytes that the hidden states (or the output) of one example weigh, from the first case of the same
    setting and length that returns the same; None where no such case was measured."""
    metric = "output_bytes" if case.points == OUTPUT else "payload_bytes"
    for other in _alike(table, metric, case):
        examples = other.examples or other.batch
        center = table.center(other, metric)
        if examples and center and center[0] > 0 and choose.setting_of(other) == choose.setting_of(case):
            return center[0] / examples
    return None


def _alike(table: Table, metric: str, case: Case) -> Iterator[Case]:
    """The case itself, then those that return the same of examples of the same length."""
    yield case
    yield from table.cases(metric, points=case.points, length=case.length, reduction=case.reduction)


def data_set_cases(table: Table, metric: str) -> list[Case]:
    """The cases of the data-set suite: `predict` with several numbers of examples at one shape."""
    groups: dict[Case, list[Case]] = defaultdict(list)
    for case in table.cases(metric, mode="predict"):
        if case.examples and case.strategy not in (TWIN, SINGLE_BLOCK):
            groups[case.group.with_(examples=None)].append(case)
    return max(groups.values(), key=lambda cases: len({case.examples for case in cases}), default=[])


def lines_of(cases: Iterable[Case]) -> dict[choose.Row, dict[int, Case]]:
    """Rows with at least two numbers of examples, each with its cases in ascending order of them."""
    found: dict[choose.Row, dict[int, Case]] = defaultdict(dict)
    for case in sorted(cases, key=lambda case: case.examples or 0):
        found[choose.row_of(case)][case.examples or 0] = case
    return {row: found[row] for row in choose.ordered(found) if len(found[row]) > 1}


@style.styled
def dataset_growth(table: Table) -> Figure | None:
    """Seconds and peak heap of `predict` against the number of examples."""
    timed = lines_of(data_set_cases(table, "seconds"))
    held = lines_of(data_set_cases(table, "peak_heap_bytes"))
    panels = [(metric, lines) for metric, lines in (("seconds", timed), ("peak_heap_bytes", held)) if lines]
    if not panels:
        return None
    first = next(iter(next(iter(panels[0][1].values())).values()))
    sheet = parts.Sheet(
        _title(table, held),
        f"{style.setting(first)}; predict over data sets of growing size; "
        f"batch × length {style.shape(first)}",
        parts.KEY + TOP + HEIGHT + 0.55,
    )
    sheet.key([("measured", "-"), ("payload formula: what the returned arrays weigh", FORMULA)])
    tiles = sheet.tiles(len(panels), len(panels), LEFT, LABELS, HEIGHT, parts.KEY + TOP)
    for ax, (metric, lines) in zip(tiles, panels, strict=True):
        _draw(ax, table, metric, lines)
    return sheet.figure


def _draw(ax: Axes, table: Table, metric: str, lines: dict[choose.Row, dict[int, Case]]) -> None:
    """One metric against the number of examples, on linear axes from zero: growth is the slope."""
    bytes_ = metric == "peak_heap_bytes"
    factor = 1 / MIB if bytes_ else 1.0
    ends, heights = [], [0.0]
    for row, cases in lines.items():
        centers = [
            parts.scaled(center, factor) for case in cases.values() if (center := table.center(case, metric))
        ]
        shade, name = style.colour(row.strategy), style.way(next(iter(cases.values())))
        parts.line(ax, list(cases), centers, shade, style.marker(row.points), 4, name, "MiB")
        heights += [center for center, _, _ in centers]
        ends.append(labels.End(max(cases), centers[-1][0], name, shade))
        per_example = payload_per_example(table, next(iter(cases.values()))) if bytes_ else None
        if per_example:
            examples = [0, max(cases)]
            formula = [count * per_example / MIB for count in examples]
            ax.plot(examples, formula, color=shade, linestyle=FORMULA, linewidth=1.2, label=f"formula {name}")
            heights += formula
    most = max(count for cases in lines.values() for count in cases)
    ax.set_xlim(0, most * 1.03)
    ax.set_ylim(0, max(heights) * 1.06 or 1.0)
    ax.set_xticks(sorted({count for cases in lines.values() for count in cases if count >= most / 8} | {0}))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: parts.number(value)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: parts.number(value)))
    ax.set_title("peak heap" if bytes_ else "time of one predict")
    ax.set_ylabel("peak heap, MiB" if bytes_ else "time, s")
    ax.set_xlabel("examples in the data set")
    parts.grid_lines(ax)
    labels.end_labels(ax, ends)


def _title(table: Table, held: dict[choose.Row, dict[int, Case]]) -> str:
    """The peak of each way at the largest data set."""
    said = []
    for row, words in (
        (choose.Row("always_return_all", "all", "none"), "with all hidden states"),
        (choose.Row("functional_submodel", "all", "mean"), "with all pooled in the model"),
        (choose.Row("streamed", "all", "none"), "with all streamed to files"),
        (choose.Row(REFERENCE, OUTPUT, "none"), "with the final output only"),
    ):
        cases = held.get(row)
        center = table.center(cases[max(cases)], "peak_heap_bytes") if cases else None
        if center:
            said.append(f"{style.digits(center[0] / MIB)} {words}")
    if not said:
        return "What predict takes as the data set grows"
    most = max(max(cases) for cases in held.values())
    return f"Peak heap of predict over {most:,} examples, in MiB: {listed(said)}"


@style.styled
def payload(table: Table) -> Figure | None:
    """MiB of hidden states per example against sequence length, beside the model's own weights."""
    weights = {(case.model, case.dtype): case for case in table.cases("weights_bytes")}
    cases = choose.most_common(
        case
        for case in choose.forward_cases(table, "payload_bytes")
        if (case.model, case.dtype) in weights and case.reduction == "none"
    )
    sizes = sizes_by_points(table, cases)
    center = table.center(weights[cases[0].model, cases[0].dtype], "weights_bytes") if cases else None
    if not sizes or center is None:
        return None
    model = center[0] / MIB
    sheet = parts.Sheet(_payload_title(sizes, model), f"{style.setting(cases[0])}; log scales", HEIGHT + 0.55)
    ax = sheet.axes(LEFT, 0.05, parts.WIDTH - LEFT - PAYLOAD_LABELS, HEIGHT)
    lengths = sorted({length for line in sizes.values() for length in line})
    parts.log_axis(ax, "x", lengths, measured=True)
    parts.log_axis(ax, "y", [model, *(mib for line in sizes.values() for mib in line.values())])
    parts.grid_lines(ax)
    ends = [labels.End(ax.get_xlim()[1], model, f"the model's weights, {style.digits(model)} MiB", style.INK)]
    ax.axhline(model, color=style.INK, linewidth=1.2, gid="weights")
    shade = style.colour("functional_submodel")
    for points, line in sizes.items():
        mibs: list[parts.Center] = [(mib, None, None) for mib in line.values()]
        name = " or ".join(style.POINTS.get(one) or style.plain(one, 18) for one in points)
        parts.line(ax, list(line), mibs, shade, style.marker(points[0]), 3, name, "MiB")
        ends.append(labels.End(max(line), line[max(line)], name, shade))
    ax.set_xlabel("sequence length, tokens")
    ax.set_ylabel("hidden states per example, MiB")
    labels.end_labels(ax, ends)
    return sheet.figure


def sizes_by_points(table: Table, cases: Iterable[Case]) -> dict[tuple[str, ...], dict[int, float]]:
    """MiB per example by length, for the points that were measured; points that weigh the same at every
    length share an entry."""
    lines: dict[str, dict[int, float]] = defaultdict(dict)
    for case in sorted(cases, key=lambda case: case.length):
        per_example = payload_per_example(table, case)
        if case.points != OUTPUT and per_example:
            lines[case.points][case.length] = per_example / MIB
    known = choose.ordered(choose.Row(REFERENCE, points, "none") for points in lines)
    shared: dict[tuple[str, ...], dict[int, float]] = {}
    for points in (row.points for row in known):
        twin = next((key for key, line in shared.items() if line == lines[points]), None)
        if twin:
            shared[*twin, points] = shared.pop(twin)
        else:
            shared[points,] = lines[points]
    return shared


def _payload_title(sizes: dict[tuple[str, ...], dict[int, float]], model: float) -> str:
    """How many examples' hidden states weigh as much as the model."""
    line = next((line for points, line in sizes.items() if "all" in points), None)
    if line is None:
        return "What the hidden states of one example weigh"
    length = max(line)
    examples = math.ceil(model / line[length])
    many = "1 example" if examples == 1 else f"{examples:,} examples"
    return f"All hidden states of {many} of {length:,} tokens weigh as much as the model"
