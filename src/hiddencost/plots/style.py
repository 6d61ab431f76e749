"""How the plots look: colours, markers, words and numbers, and the settings they are drawn under.

One strategy has one colour in every plot. Matplotlib keeps its settings in one global table, some of
which (SVG text, hash salt) exist nowhere else: `settings` lends that table under a lock.
"""

from __future__ import annotations

import colorsys
import functools
import hashlib
import io
import re
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import matplotlib
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

from hiddencost.formatting import one_line
from hiddencost.records import OUTPUT, REFERENCE, SINGLE_BLOCK, TWIN, Case

_Given = TypeVar("_Given")
_Drawn = TypeVar("_Drawn", bound=Figure | None)

COLOURS: dict[str, str] = {
    REFERENCE: "#000000",
    TWIN: "#999999",
    "functional_submodel": "#0072B2",
    "functional_freed": "#8C1D40",
    "functional_submodel_per_call": "#56B4E9",
    "get_layer_name": "#A08A00",
    "get_layer_index": "#CC79A7",
    "indexed_in_advance": "#009E73",
    "always_return_all": "#D55E00",
    "always_return_stacked": "#E69F00",
    "on_request": "#7E3F8F",
    "layers_property": "#6B4A2B",
    "dict_in_advance": "#00543D",
    SINGLE_BLOCK: "#666666",
    "streamed": "#4D7C0F",
    "linear_probe": "#3A4DB0",
    "random_labels": "#C9A27A",
}
"""Okabe and Ito's palette, yellow darkened to be seen on white, and shades beside it."""

LABELS: dict[str, str] = {
    REFERENCE: "final output only",
    TWIN: "the same again (A/A)",
    "functional_submodel": "sub-model",
    "functional_freed": "freed run",
    "functional_submodel_per_call": "sub-model per call",
    "get_layer_name": "get_layer(name)",
    "get_layer_index": "get_layer(index)",
    "indexed_in_advance": "indexed in advance",
    "always_return_all": "always return all",
    "always_return_stacked": "always return, stacked",
    "on_request": "on request",
    "layers_property": "model.layers",
    "dict_in_advance": "dict in advance",
    SINGLE_BLOCK: "largest single block",
    "streamed": "streamed to files",
    "linear_probe": "linear probe",
    "random_labels": "random labels",
}

POINTS: dict[str, str] = {
    "last": "last",
    "middle": "middle",
    "last_four": "last four",
    "all": "all",
}
ALWAYS_ALL = {("always_return_all", "all"), ("always_return_stacked", "all")}
"""Ways whose name says their points."""
MARKERS: dict[str, str] = {OUTPUT: "o", "last": "v", "middle": "s", "last_four": "D", "all": "^"}
OTHER_MARKER = "P"

INK = "#222222"
QUIET = "#6A6A6A"
GRID = "#E4E4E4"
BAND = "#CFCFCF"
TEXT = 9.0
SMALL = 8.0
TITLE = 11.5
DPI = 150
TOLD = "told "
"""How the gid of an artist begins that tells something when the mouse is on it: the rest is the text."""
LONGEST = 30
"""Characters of a name that a plot shows; the rest becomes an ellipsis."""

SETTINGS: dict[str, object] = {
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "Helvetica", "sans-serif"],
    "font.size": TEXT,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "figure.dpi": 100.0,
    "text.color": INK,
    "axes.edgecolor": "#999999",
    "axes.linewidth": 0.8,
    "axes.labelcolor": INK,
    "axes.labelsize": TEXT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "axes.axisbelow": True,
    "axes.titlesize": TEXT,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titlepad": 5.0,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "xtick.color": "#999999",
    "ytick.color": "#999999",
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 3.0,
    "ytick.major.size": 3.0,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "hiddencost",
}

_MACHINE = (
    "backend",
    "interactive",
    "toolbar",
    "timezone",
    "webagg",
    "tk",
    "docstring",
    "keymap",
    "date.epoch",
)
_LOCK = threading.RLock()


@contextmanager
def settings() -> Iterator[None]:
    """Matplotlib's own defaults with SETTINGS on top, whatever the user's matplotlibrc says.

    A name in a script that the font lacks is drawn as boxes in the PNG and as itself in the SVG; that
    is no reason to warn.
    """
    defaults = {
        key: value for key, value in matplotlib.rcParamsDefault.items() if not key.startswith(_MACHINE)
    }
    with _LOCK, warnings.catch_warnings(), matplotlib.rc_context({**defaults, **SETTINGS}):  # type: ignore[dict-item]
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from font")
        yield


def styled(draw: Callable[[_Given], _Drawn]) -> Callable[[_Given], _Drawn]:
    """`draw`, run under `settings`."""

    @functools.wraps(draw)
    def drawn(given: _Given) -> _Drawn:
        with settings():
            return draw(given)

    return drawn


def save(figure: Figure, stem: Path) -> None:
    """Write `<stem>.svg` and `<stem>.png`: the same bytes for the same figure, text kept as text. What the
    figure tells (see TOLD) becomes a title of its place in the SVG."""
    title = figure.get_suptitle().replace(r"\$", "$").replace("\n", " ")
    with settings():
        svg = io.StringIO()
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None, "Title": title})
        text = re.sub(rf'<g id="{TOLD}([^"]*)">', r'<g class="told"><title>\1</title>', svg.getvalue())
        stem.with_name(f"{stem.name}.svg").write_text(text, encoding="utf-8")
        figure.savefig(stem.with_name(f"{stem.name}.png"), dpi=DPI, metadata={"Software": None})


def colour(strategy: str) -> str:
    """The colour of a strategy: fixed for known ones, else one that follows from the name alone."""
    if strategy in COLOURS:
        return COLOURS[strategy]
    digest = hashlib.sha256(strategy.encode("utf-8", "surrogatepass")).digest()
    hue, lightness = int.from_bytes(digest[:2], "big") / 2**16, 0.3 + 0.2 * digest[2] / 255
    return to_hex(colorsys.hls_to_rgb(hue, lightness, 0.55)).upper()


def marker(points: str) -> str:
    """The marker of the points that a case returns."""
    return MARKERS.get(points, OTHER_MARKER)


def ink(shade: str) -> str:
    """The colour, darkened until text in it has a contrast of 4.5 to 1 on white (WCAG 2 level AA)."""
    red, green, blue = to_rgb(shade)
    while contrast((red, green, blue), (1.0, 1.0, 1.0)) < 4.5:
        red, green, blue = red * 0.95, green * 0.95, blue * 0.95
    return to_hex((red, green, blue))


def contrast(one: Sequence[float], other: Sequence[float]) -> float:
    """The contrast of two sRGB colours, from 1 to 21, as WCAG 2 defines it."""
    dark, light = sorted((_luminance(*one), _luminance(*other)))
    return (light + 0.05) / (dark + 0.05)


def _luminance(*channels: float) -> float:
    """Relative luminance of an sRGB colour, as WCAG 2 defines it."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def plain(name: str, longest: int = LONGEST) -> str:
    """A name from a record as one line of text: no mathtext, no control characters, not too long."""
    flat = one_line(name)
    if len(flat) > longest:
        flat = flat[: longest - 1] + "…"
    return flat.replace("$", r"\$")


def way(case: Case) -> str:
    """What a case does, in words: its strategy, and the points that it returns."""
    name = LABELS.get(case.strategy) or plain(case.strategy)
    if case.strategy == "on_request":
        name += ", off" if case.points == OUTPUT else ""
    if case.points != OUTPUT and (case.strategy, case.points) not in ALWAYS_ALL:
        name += ", " + (POINTS.get(case.points) or plain(case.points, 18))
    return name if case.reduction == "none" else f"{name}, {plain(case.reduction, 12)}"


def setting(case: Case) -> str:
    """The model and the ground that a case ran on, in words."""
    return f"{plain(case.model)}, {plain(case.backend)} on {plain(case.device)}, {plain(case.dtype)}"


def shape(case: Case) -> str:
    """Batch by length."""
    return f"{case.batch} × {case.length}"


def seconds(value: float) -> str:
    """A time with a unit that suits it, to two or three digits."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= scale:
            return f"{digits(value / scale)} {unit}"
    return f"{digits(value / 1e-9)} ns"


def digits(value: float) -> str:
    """A number with the digits that a reader needs: 0.52, 4.4, 52, 1,234."""
    size = abs(value)
    return f"{value:,.0f}" if size >= 9.95 else f"{value:.1f}" if size >= 0.995 else f"{value:.2g}"


def ratio(value: float) -> str:
    """A ratio with two decimals, or fewer where it is far from 1."""
    return f"{value:.2f}" if value < 9.995 else f"{value:,.0f}"


def time_unit(values: Iterable[float]) -> tuple[float, str]:
    """(factor, unit) that brings the typical of these times to a readable size."""
    known = sorted(value for value in values if value > 0)
    typical = known[len(known) // 2] if known else 1.0
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if typical >= scale:
            return 1 / scale, unit
    return 1e9, "ns"


def ratios(values: Iterable[float]) -> str:
    """A range of ratios, or the one that all of them round to."""
    known = sorted(values)
    low, high = ratio(known[0]), ratio(known[-1])
    return low if low == high else f"{low} to {high}"
