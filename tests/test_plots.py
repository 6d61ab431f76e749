"""The plots of a run: what is drawn is what the table says, for any run, and reads well."""

from __future__ import annotations

import itertools
import math
import re
import subprocess
import sys
import threading
import xml.etree.ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib
import msgspec
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from synthetic import CALLS, MIDDLE, synthetic_run

from hiddencost.claims import CLAIMS
from hiddencost.plots import PLOTS, choose, labels, parts, render, style
from hiddencost.plots.lookup import slope
from hiddencost.records import REFERENCE, ROUNDS_WANTED, TOGETHER, Case, Measurement, Run
from hiddencost.stats import Cost, Table, ahead_from

MIB = 2**20
NAMES = [plot.name for plot in PLOTS]
LACKING = ("dataset_growth", "payload", "backends", "together", "freed", "probing", "foretold")
"""Plots that a run without some modes has no data for."""
HOSTILE = {
    "minilm": "mi<ni> & $lm$",
    "bert_24x256": "$x^2$ \\frac{ </text> " + "long " * 20,
    "always_return_stacked": "my$new$strategy<b>",
    "indexed_in_advance": "an_unknown_strategy_with_a_name_that_does_not_end",
}


def replaced(run: Run, change: Callable[[Measurement], Measurement | None]) -> Run:
    """The run with every measurement changed, or left out where `change` returns None."""
    kept = [changed for line in run.measurements if (changed := change(line)) is not None]
    return msgspec.structs.replace(run, measurements=tuple(kept))


def renamed(run: Run, names: dict[str, str]) -> Run:
    """The run with other names of models and strategies, and its last-four points under their own names."""

    def changed(case: Case) -> Case:
        return case.with_(
            model=names.get(case.model, case.model),
            strategy=names.get(case.strategy, case.strategy),
            points="block_0,block_3$,block_5" if case.points == "last_four" else case.points,
        )

    header = msgspec.structs.replace(run.header, planned=tuple(map(changed, run.header.planned)))
    renamed = replaced(run, lambda line: msgspec.structs.replace(line, case=changed(line.case)))
    return msgspec.structs.replace(renamed, header=header)


def beside_jax(run: Run) -> Run:
    """The run with JAX in it too, where eager calls take half the time of TensorFlow's and jitted ones twice
    that of a graph, and peaks are a quarter smaller; at 16 x 128 the two took turns."""
    modes = {"eager": ("eager", 0.5), "graph": ("jit", 2.0)}
    own, also = [], []
    for line in run.measurements:
        if line.metric == "seconds" and (line.case.batch, line.case.length) == (16, 128):
            line = msgspec.structs.replace(line, notes={TOGETHER: "all 16x128"})
        own.append(line)
        if line.case.mode in modes and line.case.batch and line.metric in ("seconds", "peak_heap_bytes"):
            mode, times = modes[line.case.mode]
            factor = times if line.metric == "seconds" else 0.75
            case = line.case.with_(backend="jax", mode=mode)
            values = tuple(factor * value for value in line.values)
            also.append(msgspec.structs.replace(line, case=case, values=values))
    planned = dict.fromkeys([*run.header.planned, *(line.case for line in also)])
    header = msgspec.structs.replace(run.header, planned=tuple(planned))
    return msgspec.structs.replace(run, header=header, measurements=(*own, *also))


def with_freed(run: Run) -> Run:
    """The run with the whole models run freed too, eagerly: in nine tenths of the time at 4 x 128, with a
    quarter of the heap (a half on JAX) at every shape."""
    factors = {"seconds": 0.9, "peak_heap_bytes": 0.25}
    also = []
    for line in run.measurements:
        case = line.case
        timed_elsewhere = line.metric == "seconds" and (case.batch, case.length) != (4, 128)
        if (
            (case.strategy, case.mode) != (REFERENCE, "eager")
            or line.metric not in factors
            or timed_elsewhere
        ):
            continue
        factor = factors[line.metric] * (2 if case.backend == "jax" and line.metric != "seconds" else 1)
        values = tuple(factor * value for value in line.values)
        freed = case.with_(strategy="functional_freed")
        also.append(msgspec.structs.replace(line, case=freed, values=values))
    return msgspec.structs.replace(run, measurements=(*run.measurements, *also))


def drawn(name: str, run: Run) -> Figure:
    """The figure of a plot that has data."""
    figure = next(plot for plot in PLOTS if plot.name == name).draw(Table(run))
    assert figure is not None
    return figure


def line_of(ax: Axes, label: str) -> Line2D:
    """The one line with this label."""
    (line,) = [line for line in ax.lines if line.get_label() == label]
    return line


def of_gid(ax: Axes, gid: str) -> list[Line2D]:
    """The lines that carry an id."""
    return [line for line in ax.lines if line.get_gid() == gid]


def title(figure: Figure) -> str:
    """The title on one line, its spaces plain."""
    return re.sub(r"\s+", " ", figure.get_suptitle())


def with_a_device(run: Run, device: str = "gpu") -> Run:
    """The run with one more model, in graph mode on the device, where a copy of all hidden states to NumPy
    takes 3 passes, and to page-locked memory half a pass."""
    passes = {"host_copy_seconds": 3.0, "host_copy_pinned_seconds": 0.5}
    moved = []
    for line in run.measurements:
        case = line.case
        if case.model == "minilm" and (case.mode, case.batch, line.metric) == ("graph", 1, "seconds"):
            there = case.with_(model="on_a_device", device=device)
            moved.append(msgspec.structs.replace(line, case=there))
            if case.points == "all":
                took = float(np.median(line.values))
                moved += [
                    Measurement(case=there, metric=metric, values=(took * share,), block=line.block)
                    for metric, share in passes.items()
                ]
    return msgspec.structs.replace(run, measurements=(*run.measurements, *moved))


@pytest.fixture(scope="module")
def run() -> Run:
    return with_a_device(with_freed(beside_jax(synthetic_run())))


@pytest.fixture(scope="module")
def table(run: Run) -> Table:
    return Table(run)


@pytest.fixture(scope="module")
def variants(run: Run) -> dict[str, Run]:
    """Runs that differ in what they lack or in how they are named."""
    return {
        "full": run,
        "two blocks": with_a_device(with_freed(beside_jax(synthetic_run(seed=1, blocks=2)))),
        "one block": with_a_device(with_freed(beside_jax(synthetic_run(seed=2, blocks=1)))),
        "hostile": renamed(run, HOSTILE),
        "one mode": replaced(
            run, lambda line: line if line.case.mode == "graph" or line.case.layers else None
        ),
        "two modes": replaced(run, lambda line: line if line.case.mode in ("graph", "eager") else None),
    }


@pytest.fixture(scope="module")
def rendered(run: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A folder that did not exist, with the plots of the full run; and what `render` returned."""
    folder = tmp_path_factory.mktemp("run") / "new" / "plots"
    return folder, render(run, folder)


# -- the face --


def test_a_full_run_draws_every_plot(rendered: tuple[Path, list[str]]) -> None:
    folder, names = rendered
    assert names == NAMES
    written = {path.name for path in folder.iterdir()}
    assert written == {f"{name}.{suffix}" for name in NAMES for suffix in ("svg", "png")}


def test_an_empty_run_draws_nothing_and_removes_stale_files(run: Run, tmp_path: Path) -> None:
    (tmp_path / "latency_length.svg").write_text("stale")
    (tmp_path / "payload.png").write_text("stale")
    (tmp_path / "notes.txt").write_text("not a plot")
    assert render(replaced(run, lambda line: None), tmp_path) == []
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_run_without_any_success_draws_nothing(run: Run, tmp_path: Path) -> None:
    failed = replaced(
        run, lambda line: msgspec.structs.replace(line, values=(), state="timeout", reason="too slow")
    )
    assert render(failed, tmp_path) == []


def test_names_are_unique_and_known_to_the_claims() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert {claim.plot for claim in CLAIMS if claim.plot} <= set(NAMES)
    assert all(plot.question.endswith("?") for plot in PLOTS)


def test_values_of_a_wrong_case_are_never_drawn(run: Run, tmp_path: Path) -> None:
    bad = Case(model="minilm", strategy="always_return_all", points="all", mode="graph", batch=1, length=16)

    def change(line: Measurement) -> Measurement:
        if line.case == bad and line.metric == "seconds" and line.block == 0:
            return msgspec.structs.replace(line, values=(), state="wrong", reason="values differ")
        return line

    render(replaced(run, change), tmp_path)
    svg = (tmp_path / "overhead.svg").read_text(encoding="utf-8")
    assert ">wrong<" in svg
    assert "always returning" not in svg


# -- files --


def test_renders_are_identical_even_at_once_and_under_other_settings(
    run: Run, rendered: tuple[Path, list[str]], tmp_path: Path
) -> None:
    folders = [tmp_path / "one", tmp_path / "other"]
    before = dict(matplotlib.rcParams)
    with matplotlib.rc_context({"text.color": "red", "axes.grid": True, "svg.fonttype": "path"}):
        threads = [threading.Thread(target=render, args=(run, folder)) for folder in folders]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert dict(matplotlib.rcParams) == before
    for name, suffix in itertools.product(NAMES, ("svg", "png")):
        expected = (rendered[0] / f"{name}.{suffix}").read_bytes()
        assert all((folder / f"{name}.{suffix}").read_bytes() == expected for folder in folders), name


def test_svg_keeps_text_as_text_with_its_title(rendered: tuple[Path, list[str]]) -> None:
    for name in NAMES:
        content = (rendered[0] / f"{name}.svg").read_text(encoding="utf-8")
        root = xml.etree.ElementTree.fromstring(content)
        assert root.tag.endswith("svg")
        assert "sans-serif" in content
        assert "<text" in content
        assert "<dc:date>" not in content
        assert "glyph" not in content.lower()


def test_no_pyplot_and_no_framework_is_imported() -> None:
    code = (
        "import sys, hiddencost.plots; "
        "print([name for name in ('matplotlib.pyplot', 'keras', 'tensorflow') if name in sys.modules])"
    )
    path = str(Path(__file__).parent.parent / "src")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": path}
    )
    assert done.stdout.strip() == "[]"


# -- looks --


def test_each_known_strategy_has_a_colour_of_its_own() -> None:
    assert len(set(style.COLOURS.values())) == len(style.COLOURS)
    assert set(style.LABELS) == set(style.COLOURS)
    pairs = itertools.combinations([to_rgb(value) for value in style.COLOURS.values()], 2)
    assert min(math.dist(one, other) for one, other in pairs) > 0.2
    assert len(set(style.MARKERS.values()) | {style.OTHER_MARKER}) == len(style.MARKERS) + 1


def test_an_unknown_strategy_has_a_stable_colour() -> None:
    assert style.colour("brand_new") == style.colour("brand_new")
    assert style.colour("brand_new") != style.colour("brand_newer")
    assert style.colour("brand_new") not in style.COLOURS.values()


def test_text_in_any_colour_is_readable_on_white() -> None:
    for shade in (*style.COLOURS.values(), "#FFFFFF", "#FFFF00"):
        red, green, blue = (
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(style.ink(shade))
        )
        assert 1.05 / (0.2126 * red + 0.7152 * green + 0.0722 * blue + 0.05) >= 4.5
    assert style.ink("#000000") == "#000000"


def test_plain_names_are_one_line_without_mathtext() -> None:
    assert style.plain("a$b$") == r"a\$b\$"
    assert style.plain("a\nb\tc\x00d") == "a b c d"
    assert style.plain("x" * 99) == "x" * (style.LONGEST - 1) + "…"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (4e-8, "40 ns"),
        (4.44e-6, "4.4 µs"),
        (0.0081, "8.1 ms"),
        (0.25, "250 ms"),
        (1.234, "1.2 s"),
        (0, "0 ns"),
    ],
)
def test_seconds_in_words(value: float, text: str) -> None:
    assert style.seconds(value) == text


def test_hostile_names_are_drawn_as_they_are(variants: dict[str, Run], tmp_path: Path) -> None:
    assert render(variants["hostile"], tmp_path) == NAMES
    texts = {}
    for name in NAMES:
        root = xml.etree.ElementTree.parse(tmp_path / f"{name}.svg")
        texts[name] = " ".join("".join(node.itertext()) for node in root.iter())
        assert r"\$" not in texts[name]
    assert "mi<ni> & $lm$" in texts["latency_length"]
    assert "my$new$strategy<b>" in texts["overhead"]
    assert "block_0,block_3$," in texts["overhead"]
    assert "an_unknown_strategy_with_a_na…" in texts["memory_modes"]


def visible_texts(figure: Figure) -> Iterator[Text]:
    """Every text that is drawn, once."""
    yield from figure.texts
    if figure._suptitle is not None and figure._suptitle not in figure.texts:
        yield figure._suptitle
    for legend in figure.legends:
        yield from legend.get_texts()
    for ax in figure.axes:
        yield from ax.texts
        yield from (ax.title, ax._left_title, ax._right_title, ax.xaxis.label, ax.yaxis.label)
        for axis, (low, high) in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
            for tick in axis.get_major_ticks():
                if min(low, high) <= tick.get_loc() <= max(low, high) and tick.label1.get_visible():
                    yield tick.label1


def boxes(figure: Figure) -> list[tuple[str, Bbox]]:
    """What each text says and where it stands, in pixels, less a pixel on each side, without its arrow."""
    with style.settings():
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        found = [
            (text.get_text(), Text.get_window_extent(text, canvas.get_renderer()).padded(-1))
            for text in visible_texts(figure)
            if text.get_text().strip()
        ]
    return found


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("variant", ["full", "two blocks", "one block", "hostile", "one mode", "two modes"])
def test_no_text_is_clipped_or_lies_on_another(variants: dict[str, Run], variant: str, name: str) -> None:
    figure = next(plot for plot in PLOTS if plot.name == name).draw(Table(variants[variant]))
    if figure is None:
        assert "mode" in variant
        assert name in LACKING
        return
    found = boxes(figure)
    width, height = figure.bbox.width, figure.bbox.height
    for text, box in found:
        assert min(box.x0, box.y0, width - box.x1, height - box.y1) >= 0, f"clipped: {text}"
    for (one, box), (other, second) in itertools.combinations(found, 2):
        assert not box.overlaps(second), f"{one!r} lies on {other!r}"


@pytest.mark.parametrize("name", NAMES)
def test_every_plot_has_units_and_a_title(run: Run, name: str) -> None:
    figure = drawn(name, run)
    assert len(title(figure)) > 20
    said = " ".join([ax.get_xlabel() + " " + ax.get_ylabel() for ax in figure.axes])
    assert re.search(r"\b(ms|µs|s|MiB|GiB)\b|time / (reference|plain forward pass)|accuracy, %", said)
    assert all(ax.get_xlabel() for ax in figure.axes)
    assert figure.get_facecolor() == (1.0, 1.0, 1.0, 1.0)


# -- backends --


def test_backends_stand_side_by_side_at_the_shape_that_all_have(run: Run, table: Table) -> None:
    figure = drawn("backends", run)
    times, ratios, peaks = figure.axes
    assert [label.get_text() for label in times.get_yticklabels()] == [
        "tensorflow, eager",
        "tensorflow, graph",
        "tensorflow, xla",
        "jax, eager",
        "jax, jit",
    ]
    seconds = [patch.get_width() for patch in times.patches if patch.get_gid() == "time"]
    plain = Case(model="minilm", strategy="final_only", mode="eager", batch=16, length=128)
    center = table.center(plain, "seconds")
    assert center is not None
    assert seconds[0] == pytest.approx(1000 * center[0])
    assert seconds[3] == pytest.approx(0.5 * seconds[0])
    assert seconds[4] == pytest.approx(2 * seconds[1])
    dots = [line.get_xdata()[0] for line in of_gid(ratios, "ratio")]
    assert dots == pytest.approx([MIDDLE, 1.0] * 5, rel=0.03)
    bars = [patch.get_width() for patch in peaks.patches if patch.get_gid() == "peak"]
    assert bars[6:8] == pytest.approx([0.75 * bars[0], 0.75 * bars[1]])
    assert title(figure).startswith("A plain pass is fastest with jax in eager mode (152 ms), ")


def test_cpu_and_gpu_stand_side_by_side() -> None:
    def on_gpu(line: Measurement) -> Measurement:
        metric = {"peak_heap_bytes": "peak_device_bytes"}.get(line.metric, line.metric)
        values = tuple(value / 10 if line.metric == "seconds" else value for value in line.values)
        return msgspec.structs.replace(line, case=line.case.with_(device="gpu"), metric=metric, values=values)

    plain = replaced(synthetic_run(), lambda line: line if line.case.mode in ("eager", "graph") else None)
    both = msgspec.structs.replace(
        plain, measurements=(*plain.measurements, *map(on_gpu, plain.measurements))
    )
    figure = drawn("backends", both)
    times, _, peaks = figure.axes
    assert [label.get_text() for label in times.get_yticklabels()] == [
        "tensorflow, eager on cpu",
        "tensorflow, eager on gpu",
        "tensorflow, graph on cpu",
        "tensorflow, graph on gpu",
    ]
    seconds = [patch.get_width() for patch in times.patches if patch.get_gid() == "time"]
    assert seconds[1] == pytest.approx(seconds[0] / 10)
    held = [patch.get_width() for patch in peaks.patches if patch.get_gid() == "peak"]
    assert held[2:4] == pytest.approx(held[:2])
    assert "in graph mode on gpu (" in title(figure)


def test_copies_to_the_host_stand_beside_the_call_in_passes() -> None:
    figure = drawn("copying", with_a_device(synthetic_run()))
    (ax,) = figure.axes
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names[0] == "on_a_device 1 × 16: tensorflow, graph (8.0 ms)"
    assert len(names) == len(set(names)) > 3
    calls, to_numpy, to_pinned = (
        [line.get_xdata()[0] for line in of_gid(ax, gid)] for gid in ("call", "to_numpy", "to_pinned")
    )
    assert calls == pytest.approx([1.0] * len(names), rel=0.03)
    assert to_numpy == pytest.approx([3.0] * len(names), rel=0.03)
    assert to_pinned == pytest.approx([0.5] * len(names), rel=0.03)
    assert re.fullmatch(
        r"On gpu, computing all hidden states takes [\d. to]+ of a plain pass; bringing them to NumPy takes "
        r"[\d. to]+ on top",
        title(figure),
    )


def test_there_is_nothing_to_bring_from_a_cpu() -> None:
    plot = next(plot for plot in PLOTS if plot.name == "copying")
    assert plot.draw(Table(with_a_device(synthetic_run(), "cpu"))) is None


def test_without_a_peak_backends_have_two_panels() -> None:
    def untold(line: Measurement) -> Measurement | None:
        return None if line.metric == "peak_heap_bytes" else line

    figure = drawn("backends", replaced(beside_jax(synthetic_run()), untold))
    assert [ax.get_title("left") for ax in figure.axes] == ["plain forward pass", "reading hidden states"]


def test_the_freed_run_stands_beside_keras_own_with_what_it_saves(run: Run, table: Table) -> None:
    figure = drawn("freed", run)
    peaks, times = figure.axes
    assert title(figure) == (
        "Dropping each tensor after its last use takes 4.0 times less memory for minilm on tensorflow, "
        "and 2.0 times less where it helps least"
    )
    names = [label.get_text() for label in peaks.get_yticklabels()]
    assert [name.split(" ")[0] for name in names] == ["minilm", "minilm", "bert_24x256", "bert_24x256"]
    own = [line.get_xdata()[0] for line in of_gid(peaks, "own")]
    freed = [line.get_xdata()[0] for line in of_gid(peaks, "freed")]
    assert [a / b for a, b in zip(own, freed, strict=True)] == pytest.approx([4, 2, 4, 2])
    case = Case(model="minilm", strategy=REFERENCE, batch=16, length=128)
    assert own[0] * MIB == pytest.approx(table.center(case, "peak_heap_bytes")[0])
    assert [text.get_text() for text in times.texts] == ["0.90", "0.90"]


def test_a_model_that_gains_nothing_from_the_freed_run_is_named(run: Run) -> None:
    def as_much(line: Measurement) -> Measurement:
        freed = (line.case.strategy, line.case.model) == ("functional_freed", "minilm")
        if not freed or line.metric != "peak_heap_bytes" or line.case.backend == "jax":
            return line
        return msgspec.structs.replace(line, values=tuple(4 * value for value in line.values))

    assert title(drawn("freed", replaced(run, as_much))).endswith("on tensorflow, no less for minilm")


def test_one_backend_has_nothing_beside_it() -> None:
    assert next(plot for plot in PLOTS if plot.name == "backends").draw(Table(synthetic_run())) is None


# -- latency --


def test_latency_lines_have_the_centers_of_the_table(run: Run, table: Table) -> None:
    figure = drawn("latency_length", run)
    assert [ax.get_title(loc="left") for ax in figure.axes] == [
        f"{mode}, batch 1" for mode in ("eager", "graph", "xla")
    ]
    assert figure.axes[0].get_ylabel() == "time, ms"
    for ax, mode in zip(figure.axes, ("eager", "graph", "xla"), strict=True):
        for strategy, points, label in (
            ("final_only", "output", "final output only"),
            ("functional_submodel", "middle", "sub-model, middle"),
            ("always_return_all", "all", "always return all"),
        ):
            line = line_of(ax, label)
            lengths = [16, 64, 128, 256, 512]
            assert list(line.get_xdata()) == lengths
            for length, y in zip(lengths, line.get_ydata(), strict=True):
                case = Case(
                    model="minilm", strategy=strategy, points=points, mode=mode, batch=1, length=length
                )
                center = table.center(case, "seconds")
                assert center is not None
                assert y == pytest.approx(1e3 * center[0])
            assert line.get_color() == style.COLOURS[strategy]


def test_latency_intervals_are_drawn(run: Run, table: Table) -> None:
    ax = drawn("latency_batch", run).axes[1]
    case = Case(model="minilm", strategy="final_only", mode="graph", batch=16, length=128)
    center = table.center(case, "seconds")
    assert center is not None
    assert center[1] is not None
    assert center[2] is not None
    ends = [list(line.get_ydata()) for line in of_gid(ax, "interval") if line.get_xdata()[0] == 16]
    assert any(end == pytest.approx([1e3 * center[1], 1e3 * center[2]]) for end in ends)


def test_latency_title_has_the_computed_share(run: Run, table: Table) -> None:
    shares = []
    for length in (16, 64, 128, 256, 512):
        case = Case(
            model="minilm",
            strategy="functional_submodel",
            points="middle",
            mode="graph",
            batch=1,
            length=length,
        )
        comparison = table.compare(case)
        assert comparison is not None
        shares.append(comparison.ratio)
    assert min(shares) == pytest.approx(MIDDLE, rel=0.01)
    assert f"takes {style.ratios(shares)} of a forward pass at every length (graph)" in title(
        drawn("latency_length", run)
    )


def test_titles_follow_the_data(run: Run) -> None:
    def slower(line: Measurement) -> Measurement:
        if line.case.points == "middle" and line.metric == "seconds":
            return msgspec.structs.replace(line, values=tuple(1.5 * value for value in line.values))
        return line

    assert "takes 0.78 to 0.79 of a forward pass" in title(drawn("latency_length", replaced(run, slower)))
    assert "takes 0.78 of a forward pass" in title(drawn("overhead", replaced(run, slower)))


def test_data_sets_of_predict_do_not_enter_the_sweeps(run: Run, table: Table) -> None:
    cases = choose.forward_cases(table, "seconds")
    assert {case.examples for case in cases if case.mode == "predict"} == {4, 64}
    assert not any(case.batch == 32 for case in cases)


def test_a_short_sweep_is_left_out(run: Run) -> None:
    few = replaced(run, lambda line: line if line.case.length in (0, 16, 128) else None)
    assert next(plot for plot in PLOTS if plot.name == "latency_length").draw(Table(few)) is None


# -- overhead --


def overhead_cases(table: Table, mode: str) -> dict[str, Case]:
    cases = table.cases("seconds", mode=mode, batch=1, length=16)
    return {style.way(case): case for case in cases if case.strategy != "final_only"}


def test_overhead_draws_ratio_interval_band_and_value(run: Run, table: Table) -> None:
    figure = drawn("overhead", run)
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names[0] == "the same again (A/A)"
    for ax, mode in zip(figure.axes, ("eager", "graph", "xla", "predict"), strict=True):
        assert ax.get_title(loc="left") == mode
        dots = {names[int(dot.get_ydata()[0])]: dot for dot in of_gid(ax, "ratio")}
        spans = {names[int(line.get_ydata()[0])]: list(line.get_xdata()) for line in of_gid(ax, "interval")}
        words = {names[int(text.xy[1])]: text for text in ax.texts if text.xy[0] == 1}
        cases = overhead_cases(table, mode)
        assert set(dots) == set(cases)
        for name, case in cases.items():
            found = table.compare(case)
            assert found is not None
            assert dots[name].get_xdata()[0] == pytest.approx(found.ratio)
            assert spans[name] == pytest.approx([found.low, found.high])
            assert words[name].get_text() == style.ratio(found.ratio)
            bold = table.verdict(case).word in ("slower", "faster")
            assert (words[name].get_fontweight() == "bold") == bold
        (band,) = [patch for patch in ax.patches if patch.get_gid() == "band"]
        extent = table.band(next(iter(cases.values())))
        assert (band.get_x(), band.get_x() + band.get_width()) == pytest.approx(extent)
        assert [line.get_xdata()[0] for line in of_gid(ax, "one")] == [1.0]


def test_overhead_says_why_a_way_has_no_time(run: Run) -> None:
    said = [[text.get_text() for text in ax.texts] for ax in drawn("overhead", run).axes]
    assert "crashed" in said[2]
    assert "skipped" in said[1]
    assert "skipped" not in said[0]
    assert said[3].count("skipped") == 2


def test_a_ratio_beyond_the_axis_is_an_arrow_with_its_value(run: Run) -> None:
    def slow(line: Measurement) -> Measurement:
        if line.case.strategy == "functional_submodel_per_call" and line.metric == "seconds":
            return msgspec.structs.replace(line, values=tuple(30 * value for value in line.values))
        return line

    ax = drawn("overhead", replaced(run, slow)).axes[0]
    (arrow,) = [dot for dot in of_gid(ax, "ratio") if dot.get_marker() == ">"]
    assert arrow.get_xdata()[0] == ax.get_xlim()[1] < 1.7
    assert any(re.fullmatch(r"2[45]", text.get_text()) for text in ax.texts)


def test_overhead_without_a_band_says_so(variants: dict[str, Run]) -> None:
    figure = drawn("overhead", variants["one block"])
    assert not [patch for ax in figure.axes for patch in ax.patches if patch.get_gid() == "band"]
    assert any("No band" in text.get_text() for text in figure.texts)


def test_overhead_prefers_the_smallest_precise_shape(run: Run) -> None:
    rng = np.random.default_rng(0)

    def shaky(line: Measurement) -> Measurement:
        if line.metric == "seconds" and (line.case.batch, line.case.length) == (1, 16):
            factor = float(np.exp(rng.normal(0, 0.1)))
            return msgspec.structs.replace(line, values=tuple(factor * value for value in line.values))
        return line

    assert any("1 × 16" in text.get_text() for text in drawn("overhead", run).texts)
    assert any("1 × 128" in text.get_text() for text in drawn("overhead", replaced(run, shaky)).texts)


def test_overhead_shapes_stand_in_order(run: Run) -> None:
    figure = drawn("overhead_shapes", run)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["1 × 16", "1 × 128", "16 × 128"]


# -- memory --


def memory_case(strategy: str, points: str, mode: str, length: int) -> Case:
    return Case(model="bert_24x256", strategy=strategy, points=points, mode=mode, batch=16, length=length)


def test_memory_lines_and_floors(run: Run, table: Table) -> None:
    figure = drawn("memory_length", run)
    assert any("bert_24x256" in text.get_text() for text in figure.texts)
    lengths = [32, 64, 128, 256]
    for ax, mode in zip(figure.axes, ("eager", "graph", "xla"), strict=True):
        assert ax.get_title(loc="left") == f"{mode}, batch 16"
        peaks = line_of(ax, "always return all")
        floors = line_of(ax, "live_set_floor all")
        payloads = line_of(ax, "payload_floor all")
        assert [list(line.get_xdata()) for line in (peaks, floors, payloads)] == [lengths] * 3
        for index, length in enumerate(lengths):
            case = memory_case("always_return_all", "all", mode, length)
            alone = memory_case("single_block", "output", mode, length)
            payload = 24 * 16 * length * 256 * 4
            (peak,), (block,) = (
                table.medians(case, "peak_heap_bytes"),
                table.medians(alone, "peak_heap_bytes"),
            )
            assert peaks.get_ydata()[index] == pytest.approx(peak / MIB)
            assert payloads.get_ydata()[index] == pytest.approx(payload / MIB)
            assert floors.get_ydata()[index] == pytest.approx((payload + block) / MIB)
        assert {line.get_label() for line in ax.lines} >= {
            f"{floor} {points}"
            for floor in ("live_set_floor", "payload_floor")
            for points in ("output", "middle", "all")
        }


def test_the_floor_of_the_plain_pass_counts_its_output(table: Table) -> None:
    case = memory_case("final_only", "output", "graph", 256)
    assert table.payload_floor(case) == pytest.approx(16 * 256 * 256 * 4)
    floor, peak = table.live_set_floor(case), table.center(case, "peak_heap_bytes")
    assert floor is not None
    assert peak is not None
    assert 1.0 < peak[0] / floor < 1.1


def test_memory_title_has_the_computed_excess(run: Run, table: Table) -> None:
    case = memory_case("final_only", "output", "eager", 256)
    peak, floor = table.center(case, "peak_heap_bytes"), table.live_set_floor(case)
    assert peak is not None
    assert floor is not None
    assert peak[0] / floor > 2
    text = title(drawn("memory_length", run))
    assert f"{style.ratio(peak[0] / floor)} in eager mode" in text
    assert "at length 256" in text


def test_memory_modes_bars_and_ticks(run: Run, table: Table) -> None:
    figure = drawn("memory_modes", run)
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    for ax, mode in zip(figure.axes, ("eager", "graph", "xla"), strict=True):
        row = names.index("sub-model, all")
        (bar,) = [
            bar
            for bar in ax.containers
            if bar.patches[0].get_y() < row < bar.patches[0].get_y() + bar.patches[0].get_height()
        ]
        case = memory_case("functional_submodel", "all", mode, 256)
        peak = table.center(case, "peak_heap_bytes")
        floor = table.live_set_floor(case)
        assert peak is not None
        assert floor is not None
        assert bar.patches[0].get_width() == pytest.approx(peak[0] / MIB)
        at = [line.get_xdata()[0] for line in of_gid(ax, "live") if round(np.mean(line.get_ydata())) == row]
        assert at == pytest.approx([floor / MIB])


# -- look-ups --


def test_a_group_that_time_cut_short_says_so_in_the_plot(run: Run) -> None:
    def cut(line: Measurement) -> Measurement:
        if line.metric == "seconds" and line.case.mode == "eager" and line.block == 0:
            return msgspec.structs.replace(line, notes={ROUNDS_WANTED: "99"})
        return line

    figure = drawn("overhead", replaced(run, cut))
    told = [text.get_text() for ax in figure.axes for text in ax.texts if "reference" in text.get_text()]
    assert [text.endswith(", capped") for text in told] == [
        "eager" in ax.get_title(loc="left") for ax in figure.axes
    ]
    assert any("Capped: time ended" in text.get_text().replace("\n", " ") for text in figure.texts)
    whole = drawn("overhead", run)
    assert not any("apped" in text.get_text() for ax in whole.axes for text in (*ax.texts, *whole.texts))


def test_lookup_slopes_and_lines(run: Run, table: Table) -> None:
    first, second = drawn("lookup", run).axes
    line = line_of(first, "get_layer(index)")
    assert list(line.get_xdata()) == [12, 22, 50, 100, 300, 1000]
    case = Case(model="lookup", strategy="get_layer_index", layers=1000, position=999)
    center = table.center(case, "lookup_seconds")
    assert center is not None
    assert line.get_ydata()[-1] == pytest.approx(center[0] * 1e6)
    assert list(line_of(second, "dict in advance").get_xdata()) == [0, 25, 50, 75, 99]
    said = [text.get_text() for text in first.texts]
    assert any(re.fullmatch(r"get_layer\(index\)\n2[56]\d ± \d+ ns/layer", text) for text in said)
    assert "Among 1,000 layers get_layer(index) takes" in title(drawn("lookup", run))


def test_lookup_slope_of_exact_times() -> None:
    lines = [
        Measurement(
            case=Case(model="lookup", strategy="get_layer_name", layers=layers, position=layers - 1),
            metric="lookup_seconds",
            values=(1e-6 + 2e-8 * layers,),
            block=block,
        )
        for layers in (12, 100, 1000)
        for block in range(5)
    ]
    few = msgspec.structs.replace(synthetic_run(blocks=1), measurements=tuple(lines))
    found = slope(Table(few), {line.case.layers or 0: line.case for line in lines})
    assert found is not None
    assert found[0] == pytest.approx(2e-8)
    (ax,) = drawn("lookup", few).axes
    assert "20.0 ± 0.0 ns/layer" in ax.texts[0].get_text()


# -- one-off costs and growth --


def test_break_even() -> None:
    built, plain = Cost(once=0.64, each=0.004), Cost(once=0.008, each=0.008)
    crossing = built.crossing(plain)
    assert crossing == pytest.approx(159)
    assert ahead_from(159.0) == 160
    assert built.after(200) < plain.after(200)
    assert built.after(158) > plain.after(158)
    assert Cost(once=0.1, each=0.01).crossing(plain) is None
    assert Cost(once=0.001, each=0.004).crossing(plain) is None


def test_one_off_stacks_build_and_first_call_and_marks_break_even(run: Run, table: Table) -> None:
    figure = drawn("one_off", run)
    bars = {ax.get_title(loc="left"): ax for ax in figure.axes if ax.get_title(loc="left")}
    assert list(bars) == ["eager", "graph", "xla", "predict"]
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    case = Case(
        model="minilm", strategy="functional_submodel", points="middle", mode="graph", batch=1, length=16
    )
    build, first, each = (
        table.center(case, metric) for metric in ("build_seconds", "first_call_seconds", "seconds")
    )
    plain = table.center(case.group, "seconds")
    assert build
    assert first
    assert each
    assert plain
    row = names.index("sub-model, middle")
    widths = [
        bar.patches[0].get_width()
        for bar in bars["graph"].containers
        if round(bar.patches[0].get_y() + bar.patches[0].get_height() / 2) == row
    ]
    assert widths == pytest.approx([build[0], first[0]])
    calls = 1 + (build[0] + first[0] - plain[0]) / (plain[0] - each[0])
    dots = [dot.get_xdata()[0] for ax in figure.axes for dot in of_gid(ax, "even")]
    assert any(dot == pytest.approx(calls) for dot in dots)
    assert f"from call {math.floor(calls) + 1} on" in title(figure)


def test_growth_draws_each_call_from_the_blocks(run: Run, table: Table) -> None:
    seconds, resident = drawn("growth", run).axes
    case = Case(
        model="bert_tiny",
        strategy="functional_submodel_per_call",
        points="middle",
        mode="graph",
        batch=1,
        length=16,
    )
    taken = np.array(list(table.blocks(case, "growth_seconds").values()))
    line = line_of(seconds, "sub-model per call, middle, graph")
    assert np.asarray(line.get_ydata()) == pytest.approx(1e3 * np.exp(np.log(taken).mean(axis=0)))
    sizes = np.array(list(table.blocks(case, "growth_bytes").values()))
    grown = (sizes - sizes[:, 4:5]).mean(axis=0)[4:] / MIB  # since the fifth call
    assert np.asarray(line_of(resident, "sub-model per call, middle, graph").get_ydata()) == pytest.approx(
        grown
    )
    assert list(line_of(resident, "sub-model per call, middle, graph").get_xdata()) == [*range(5, CALLS + 1)]
    text = title(drawn("growth", run))
    assert f"Over {CALLS} calls in graph mode a sub-model built at each call takes 50 traces" in text
    assert f"and {round(grown[-1])} MiB, one built once takes 1 trace and 0 MiB" in text


# -- data sets and payload --


def test_dataset_growth_draws_the_formula_beside_the_peak(run: Run, table: Table) -> None:
    seconds, peak = drawn("dataset_growth", run).axes
    assert list(line_of(seconds, "always return all").get_xdata()) == [64, 128, 256, 512]
    formula = line_of(peak, "formula always return all")
    assert list(formula.get_xdata()) == [0, 512]
    assert formula.get_ydata()[1] == pytest.approx(6 * 512 * 128 * 384 * 4 / MIB)
    pooled = line_of(peak, "formula sub-model, all, mean")
    assert pooled.get_ydata()[1] == pytest.approx(6 * 512 * 384 * 4 / MIB)
    case = Case(
        model="minilm",
        strategy="always_return_all",
        points="all",
        mode="predict",
        batch=32,
        length=128,
        examples=512,
    )
    center = table.center(case, "peak_heap_bytes")
    assert center is not None
    assert line_of(peak, "always return all").get_ydata()[-1] == pytest.approx(center[0] / MIB)
    assert f"{center[0] / MIB:,.0f} with all hidden states" in title(drawn("dataset_growth", run))


def test_payload_against_the_weights(run: Run) -> None:
    figure = drawn("payload", run)
    (ax,) = figure.axes
    assert list(line_of(ax, "all").get_ydata()) == pytest.approx(
        [24 * length * 256 * 4 / MIB for length in (32, 64, 128, 256)]
    )
    assert line_of(ax, "last or middle").get_ydata()[-1] == pytest.approx(256 * 256 * 4 / MIB)
    (weights,) = of_gid(ax, "weights")
    assert weights.get_ydata()[0] == pytest.approx(107_372_544 / MIB)
    examples = math.ceil(107_372_544 / (24 * 256 * 256 * 4))
    assert f"All hidden states of {examples} examples of 256 tokens" in title(figure)


# -- parts --


def test_spread_labels_keep_their_distance_and_move_least() -> None:
    assert labels.spread([0, 50, 100], 10, 0, 100) == [0, 50, 100]
    assert labels.spread([50, 50], 10, 0, 100) == [45, 55]
    assert labels.spread([0, 0, 0], 10, 0, 100) == [0, 10, 20]
    assert labels.spread([99, 100], 10, 0, 100) == [90, 100]
    assert labels.spread([], 10, 0, 100) == []
    rng = np.random.default_rng(0)
    for count in range(1, 12):
        placed = labels.spread(sorted(rng.uniform(0, 200, count)), 15, 0, 200)
        assert all(b - a >= 15 - 1e-9 for a, b in itertools.pairwise(placed))


def test_lines_that_coincide_share_a_label() -> None:
    ends = [
        labels.End(1, y, name, "#000000") for y, name in ((1.0, "a"), (1.04, "b"), (0.5, "c"), (0.97, "d"))
    ]
    assert [end.text for end in labels.clustered(ends, 0.05)] == ["a +\u00a02\u00a0more", "c"]


def test_round_ticks_are_few_and_inside() -> None:
    for low, high in ((0.9, 1.2), (3, 400), (1e-9, 1e9), (4.1, 91), (0.02, 500)):
        ticks = parts.round_ticks(low, high)
        assert 1 <= len(ticks) <= 7
        assert all(low <= tick <= high for tick in ticks)


def test_titles_are_balanced() -> None:
    assert parts.balanced("one two three four", 80) == ["one two three four"]
    lines = parts.balanced("word " * 25, 84)
    assert len(lines) == 2
    assert abs(len(lines[0]) - len(lines[1])) <= 5
    assert parts.balanced("", 84) == []
    assert parts.wrapped("batch × length 1 × 16 and 4 × 512", 30) == ["batch × length 1 × 16 and", "4 × 512"]
