"""All hidden states, computed on a device and then brought to the host, in passes of the model."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hiddencost.claims.copying import Copied, copied
from hiddencost.claims.evidence import Triple
from hiddencost.formatting import listed, quantity
from hiddencost.plots import choose, parts, style
from hiddencost.plots.choose import Row
from hiddencost.records import Case
from hiddencost.stats import Table

POINTS = "all"
STEPS = (("call", "the call", "o", "#222222"), ("to_numpy", "to NumPy", "^", "#0072B2"),
         ("to_pinned", "to page-locked memory", "v", "#D55E00"))  # fmt: skip
"""What is drawn of each case: its attribute, name, marker and colour."""
ROW, TOP, AXIS, VALUES = 0.26, 0.3, 0.5, 1.3
CAPTION = (
    "Times the plain pass (in brackets) on the same device: ● the call that computes all hidden states, "
    "▲ bringing them to NumPy's memory afterwards, ▼ to page-locked memory; lines: 95 % intervals."
)


@style.styled
def copying(table: Table) -> Figure | None:
    """A row for each model, shape, backend and mode; nothing for a run on the CPU alone."""
    found = _one_of_each(copied(table))
    if not found:
        return None
    names = [_name(one) for one in found]
    devices = listed(dict.fromkeys(style.plain(one.case.device) for one in found))
    scope = f"All hidden states, on {devices}{_named(table)}; batch × length"
    sheet = parts.Sheet(_title(found, devices), scope, TOP + ROW * len(found) + AXIS, CAPTION)
    left = parts.EDGE + 0.1 + max(map(parts.text_width, names))
    ax = sheet.axes(left, TOP, parts.WIDTH - left - 0.05 - VALUES, ROW * len(found))
    parts.rows(ax, [Row(str(one.case), "", "") for one in found], names)
    values = [triple[0] for one in found for step, *_ in STEPS if (triple := getattr(one, step))]
    parts.log_axis(ax, "x", (min(values) / 1.4, max(values) * 1.4))
    ax.set_title("call · to NumPy · to page-locked memory")
    ax.set_xlabel("time / plain forward pass")
    ax.axvline(1.0, color="#777777", linewidth=0.5, zorder=2)
    for height, one in enumerate(found):
        _draw(ax, height, one, names[height])
    return sheet.figure


def _one_of_each(every: Sequence[Copied]) -> list[Copied]:
    """The way that returns all hidden states of each group: of several, that which plots know first."""
    groups: dict[object, list[Copied]] = {}
    for one in sorted(every, key=lambda one: _work(one.case)):
        if one.case.points == POINTS and one.case.reduction == "none" and one.to_numpy:
            groups.setdefault(one.case.group, []).append(one)
    return [
        next(one for row in choose.ordered(choose.row_of(m.case) for m in members)
             for one in members if choose.row_of(one.case) == row)
        for members in groups.values()
    ]  # fmt: skip


def _work(case: Case) -> tuple[str, str, int]:
    """Programs of the same work come one below the other."""
    return case.model, case.dtype, case.batch * case.length


def _draw(ax: Axes, height: int, one: Copied, name: str) -> None:
    told = []
    for step, words, marker, shade in STEPS:
        triple: Triple | None = getattr(one, step)
        if triple is None:
            continue
        value, low, high = triple
        if low is not None and high is not None:
            ax.plot([low, high], [height, height], color=shade, linewidth=1.3, zorder=3, gid="interval")
        ax.plot([value], [height], marker, color=shade, markersize=5, zorder=4, gid=step)
        parts.told(ax, value, height, f"{name}, {words}: {quantity(value, low, high)}")
        told.append(style.ratio(value))
    parts.value(ax, height, " · ".join(told), VALUES)


def _name(one: Copied) -> str:
    case = one.case
    dtype = "" if case.dtype == "float32" else f" {style.plain(case.dtype)}"
    program = f"{style.plain(case.backend)}, {style.plain(case.mode)}"
    what = f"{style.plain(case.model)} {style.shape(case)}{dtype}"
    return f"{what}: {program} ({style.seconds(one.plain_seconds)})"


def _named(table: Table) -> str:
    """The names of the devices, as their driver tells them."""
    names = [style.plain(name, 40) for name in table.run.gpus]
    return f" ({listed(names)})" if names else ""


def _title(found: Sequence[Copied], devices: str) -> str:
    """What computing all hidden states takes, and what having them in NumPy takes on top."""
    calls = [one.call[0] for one in found if one.call]
    copies = [one.to_numpy[0] for one in found if one.to_numpy]
    computing = f"computing all hidden states takes {style.ratios(calls)} of a plain pass; " if calls else ""
    return f"On {devices}, {computing}bringing them to NumPy takes {style.ratios(copies)} on top"
