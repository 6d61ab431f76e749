"""Other libraries on the same weights: their ways, and the turns that they take with Keras."""

import importlib.util
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

from hiddencost import backends, grid, measure, page, peers, rotation, store, suites
from hiddencost.errors import UserError
from hiddencost.grid import Time, checking, planning
from hiddencost.grid.planning import Meeting
from hiddencost.page.together import best_ways, best_ways_of_all, together
from hiddencost.records import OUTPUT, REFERENCE, SINGLE_BLOCK, TOGETHER, TWIN, Case, Header, Measurement, Run
from hiddencost.stats import Table

TESTS = Path(__file__).parent
LIBRARIES = ("transformers", "nnsight", "transformer_lens")
CASE = Case(model="minilm", strategy=REFERENCE, batch=1, length=16)


def python():
    """An interpreter that has the peers, if there is one."""
    if all(map(importlib.util.find_spec, LIBRARIES)):
        return sys.executable
    beside = TESTS.parent / ".venv-torch"
    return beside / "bin" / "python" if (beside / ".peers").exists() else None


PYTHON = python()  # found now: this process hides torch later
with_peers = pytest.mark.skipif(not PYTHON, reason="the peers are not installed: make test-backends")


def test_a_grid_names_the_ways_that_each_peer_has():
    assert {name: tuple(way.name for way in peer.ways) for name, peer in peers.PEERS.items()} == grid.PEERS
    assert set(LIBRARIES) == set(grid.PEERS)
    names = [name for ways in grid.PEERS.values() for name in ways]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("peer", LIBRARIES)
def test_a_peer_has_its_own_ways_and_a_reference_and_keras_has_the_others(peer):
    for case, summary in (
        (CASE.with_(backend=peer), "the plain forward pass of the same library: its reference"),
        (CASE, "the plain forward pass, final output only: the reference"),
    ):
        assert peers.strategy(case).summary == summary
        assert peers.strategy(case.with_(strategy=TWIN)).build is peers.strategy(case).build
    assert grid.has(peer, grid.PEERS[peer][0])
    assert not grid.has("jax", grid.PEERS[peer][0])
    assert not grid.has(peer, "functional_submodel")
    assert grid.has("jax", "functional_submodel")


def test_points_of_a_peer_are_selected_by_name_though_their_tensors_have_no_hash():
    loaded = peers.LoadedPeer.__new__(peers.LoadedPeer)
    loaded.bert = SimpleNamespace(
        embeddings=object(),
        encoder=SimpleNamespace(layer=[object(), object(), object()]),
        parameters=lambda: iter([SimpleNamespace(element_size=lambda: 2)]),
        config=SimpleNamespace(hidden_size=8),
    )
    wanted = loaded.points().select("embeddings,block_1,0")
    assert [(point.name, point.width, point.token_bytes) for point in wanted] == [
        ("embeddings", 8, 16),
        ("block_1", 8, 16),
    ]
    assert wanted[1].layer is loaded.bert.encoder.layer[1]
    assert peers._places(wanted) == [0, 2]


def test_each_backend_is_planned_with_its_own_ways_and_all_share_their_blocks():
    planned, _ = grid.read(grid.grid_path("peers"))
    jobs = planning.timed_jobs(planned)
    assert {job.together for job in jobs} == {True}
    assert [job.backend for job in jobs if job.block == 0] == planned.backend
    ways = {job.backend: {task.case.strategy for task in job.tasks} for job in jobs}
    assert ways["jax"] == ways["torch"] == {REFERENCE, TWIN, "functional_submodel"}
    assert ways["nnsight"] == {REFERENCE, TWIN, "trace", "trace_stopped"}
    modes = {job.backend: {task.case.mode for task in job.tasks} for job in jobs}
    assert (modes["jax"], modes["tensorflow"], modes["torch"]) == ({"jit"}, {"xla"}, {"eager", "export"})
    assert len({job.rotates(task.case) for job in jobs for task in job.tasks}) == 4  # shapes


def test_peers_beside_keras_are_planned_without_its_mixed_precision():
    text = """
name = "x"
backend = ["jax", "transformers"]
[[forward]]
model = ["minilm"]
strategy = ["functional_submodel", "forward_hooks"]
points = ["all"]
mode = ["eager"]
batch = [1]
length = [8]
dtype = ["float32", "mixed_bfloat16"]
"""
    jobs = planning.timed_jobs(grid.parse(text, "x.toml"))
    by_turns = grid.parse(text.replace("[[forward]]", "together = true\n[[forward]]"), "x.toml")
    with pytest.raises(
        UserError, match=r"dtype float32, mixed_bfloat16: a policy of Keras, which transformers"
    ):
        checking.check(by_turns, checking.anywhere(suites.CATALOGUE), "x.toml")
    dtypes = {job.backend: {task.case.dtype for task in job.tasks} for job in jobs}
    assert dtypes == {"jax": {"float32", "mixed_bfloat16"}, "transformers": {"float32"}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('strategy = ["trace"]\nmodel = ["minilm"]', "[forward] strategy trace: a way of nnsight"),
        (
            'strategy = ["forward_hooks"]\nmodel = ["bert_tiny"]\nbackend = ["transformers"]',
            "[forward] model 'bert_tiny': transformers has pretrained weights alone: take minilm",
        ),
        (
            'strategy = ["forward_hooks"]\nmodel = ["minilm"]\nbackend = ["transformers"]\n'
            'dtype = ["mixed_bfloat16"]',
            "[forward] dtype mixed_bfloat16: a policy of Keras, which no peer has",
        ),
        (
            'strategy = ["functional_submodel"]\nmodel = ["minilm"]\nbackend = ["jax"]',
            "[[forward]] backend 'jax': not one of the grid's; one of: tensorflow",
        ),
        (
            'strategy = ["functional_submodel"]\nmodel = ["minilm"]\n[time]\nbudget = 9',
            "[time] budget: not where all take turns (together = true): `seconds` says how long they do",
        ),
        (
            'strategy = ["functional_submodel"]\nmodel = ["minilm"]\n[time]\nprecision = 0.001',
            "[time] precision: not where all take turns (together = true): `seconds` says how long they do",
        ),
        (
            'strategy = ["functional_submodel"]\nmodel = ["minilm"]\ndtype = ["float32", "bfloat16"]',
            "dtype bfloat16, float32: one alone where all take turns (together = true)",
        ),
        (
            'strategy = ["functional_submodel", "forward_hooks"]\nmodel = ["minilm"]\n'
            'backend = ["transformers", "tensorflow"]\n'
            '[[forward]]\nstrategy = ["functional_submodel"]\nmodel = ["minilm"]\npoints = ["all"]\n'
            'mode = ["eager"]\nbatch = [2]\nlength = [8]\nbackend = ["tensorflow"]',
            "minilm-eager-2x8-final_only: all take turns (together = true), and the first backend, "
            "transformers, has nothing to compare it with",
        ),
    ],
)
def test_what_no_peer_can_do_is_one_line(text, message):
    backends = next((line[10:] for line in text.splitlines() if line[:10] == "backend = "), '["tensorflow"]')
    backends = backends if "transformers" in backends else '["tensorflow"]'
    axes = 'points = ["all"]\nmode = ["eager"]\nbatch = [1]\nlength = [8]'
    planned = grid.parse(
        f'name = "x"\nbackend = {backends}\ntogether = true\n[[forward]]\n{axes}\n{text}', "x.toml"
    )
    from hiddencost.suites import CATALOGUE

    with pytest.raises(UserError) as caught:
        checking.check(planned, checking.anywhere(CATALOGUE), "x.toml")
    assert str(caught.value) == f"x.toml: {message}"


def meeting(tmp_path, first="transformers"):
    place = Meeting(backend=first, values=str(tmp_path))
    return measure.Process(0, 1, Time(), meeting=place)


def states(value, padded=0.0):
    """One point at two tokens, the second of them padding."""
    return {"block_0": np.array([[[value], [padded]]], "float32"), OUTPUT: []}


def test_the_first_backend_leaves_its_states_and_the_others_are_held_against_them(tmp_path):
    process, mask = meeting(tmp_path), np.array([[1, 0]])
    theirs, mine = CASE.with_(backend="transformers"), CASE.with_(backend="jax")
    waiting = threading.Thread(
        target=measure.same_elsewhere, args=(process, mine, {"padding_mask": mask}, states(2.0))
    )
    waiting.start()
    measure.same_elsewhere(process, theirs, {"attention_mask": mask}, states(2.0))
    waiting.join(10)
    assert not waiting.is_alive()
    assert [path.name for path in tmp_path.iterdir()] == ["minilm-float32-1x16.npz"]
    measure.same_elsewhere(process, mine, {"padding_mask": mask}, states(2.009, padded=7.0))
    with pytest.raises(measure.WrongValuesError, match=r"values differ by 1\.0e-02 of the largest"):
        measure.same_elsewhere(process, mine, {"padding_mask": mask}, states(2.02))
    fused = mine.with_(model="minilm_fused")
    with pytest.raises(measure.WrongValuesError):
        measure.same_elsewhere(process, fused, {"padding_mask": mask}, states(2.02))
    measure.same_elsewhere(process, mine.with_(mode="predict"), {}, {})  # is not compared


def test_states_are_compared_whole_without_a_mask_and_of_a_preset_by_its_folder(tmp_path):
    process, pixels = meeting(tmp_path), {"inputs": np.zeros((1, 2, 2, 3))}
    first = CASE.with_(model="preset:/data/bert", backend="transformers")
    measure.same_elsewhere(process, first, pixels, states(2.0))
    measure.same_elsewhere(process, first.with_(backend="jax"), pixels, states(2.0))
    with pytest.raises(measure.WrongValuesError, match="values differ by"):
        measure.same_elsewhere(process, first.with_(backend="jax"), pixels, states(2.0, padded=1.0))


def test_models_of_other_weights_take_turns_apart(monkeypatch):
    """As they are planned: their calls are no one sequence."""
    found = {}
    for model in ("minilm", "minilm_fused", "bert_tiny"):
        ready = rotation.Ready(CASE.with_(model=model), None, seconds=[1.0], places=[0])

        def prepared(*_, ready=ready):
            yield from ()
            return [ready]

        monkeypatch.setattr(rotation, "_prepared", prepared)
        monkeypatch.setattr(rotation, "_rounds", lambda *_: {})
        process = SimpleNamespace(
            turns=True, meeting=True, measurement=measure.Process(0, 1, Time()).measurement
        )
        (times,) = rotation.rotation(process, [planning.Task(suite="forward", case=ready.case)])
        found[model] = times.notes[TOGETHER]
    assert found == {
        "minilm": "all minilm 1x16",
        "minilm_fused": "all minilm 1x16",
        "bert_tiny": "all bert_tiny 1x16",
    }


def test_pytest_by_hand_measures_what_the_first_backend_can(monkeypatch, tmp_path):
    """A process has the settings of one."""
    axes = 'model = ["bert_tiny"]\nstrategy = ["always_return_all"]\npoints = ["all"]\nmode = ["eager"]'
    shape = "batch = [1]\nlength = [8]"
    text = f'name = "x"\nbackend = ["tensorflow", "jax"]\n[[forward]]\n{axes}\n{shape}\n'
    (tmp_path / "x.toml").write_text(f'{text}[[memory]]\nreading = "heap"\n{axes}\n{shape}\n')
    monkeypatch.setattr(suites.checking, "check", lambda *_: None)
    options = {"--jobs": None, "--grid": str(tmp_path / "x.toml")}
    jobs = suites._jobs(SimpleNamespace(getoption=options.__getitem__))
    assert {(job.backend, task.suite) for job in jobs for task in job.tasks} == {
        ("tensorflow", "forward"),
        ("tensorflow", "memory"),
    }


def test_look_ups_are_those_of_the_first_backend_that_is_none_of_the_peers():
    text = """
name = "x"
backend = ["transformers", "jax", "tensorflow"]
[[forward]]
model = ["minilm"]
strategy = ["final_only"]
points = []
mode = ["eager"]
batch = [1]
length = [8]
[lookup]
layers = [12]
positions = []
"""
    jobs = planning.timed_jobs(grid.parse(text, "x.toml"))
    found = {job.backend for job in jobs for task in job.tasks if task.suite == "lookup"}
    assert found == {"jax"}


def test_what_a_library_computes_at_padding_is_not_held_against_it(monkeypatch):
    """Keras's own ways compute the same there too: they run the same operations."""
    monkeypatch.setattr(backends, "to_numpy", lambda value: value)
    every = SimpleNamespace(select=lambda points: [SimpleNamespace(name=points)])
    process = SimpleNamespace(
        of=lambda case: (None, every), inputs=lambda case: {"attention_mask": np.array([[1, 0]])}
    )
    itself = SimpleNamespace(states=lambda result: [result])

    def found(value, padded, backend):
        case = CASE.with_(strategy="a_way", points="block_0", backend=backend)
        return measure.difference(case, states(value, padded)["block_0"], itself, process, states(2.0))

    assert found(2.0, 7.0, "transformer_lens") == 0.0
    for value, padded, backend in ((2.1, 0.0, "transformer_lens"), (2.0, 7.0, "torch")):
        with pytest.raises(measure.WrongValuesError, match="values differ by"):
            found(value, padded, backend)


def test_a_first_backend_that_leaves_nothing_is_told_and_not_waited_for_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "AWAIT_SECONDS", 0.01)
    with pytest.raises(UserError, match=r"^transformers has left no hidden states to compare with$"):
        measure.same_elsewhere(meeting(tmp_path), CASE, {"padding_mask": np.array([[1, 1]])}, states(1.0))


def run_of_two(blocks=6, slower=3.0):
    """Keras takes `slower` times as long as transformers, whose calls stand between; half of it for the
    middle. Each call takes longer than the one before, as on a machine that gets slower."""
    peer = CASE.with_(backend="transformers")
    cases = {
        peer: 1.0,
        CASE: slower,
        CASE.with_(strategy="functional_submodel", points="middle"): slower / 2,
        peer.with_(strategy="output_hidden_states", points="all"): 1.1,
    }
    found = []
    for block in range(blocks):
        order = [case for _ in range(8) for case in cases]
        for number, (case, taken) in enumerate(cases.items()):
            places = tuple(range(number, len(order), len(cases)))
            seconds = tuple(1e-2 * taken * (1.001 + block * 1e-5) ** place for place in places)
            found.append(
                Measurement(
                    case=case,
                    metric="seconds",
                    values=seconds,
                    places=places,
                    block=block,
                    notes={TOGETHER: "all 1x16"},
                )
            )
    header = Header(
        schema_version=1,
        hiddencost_version="0",
        started="2026-11-24",
        command="",
        grid_name="peers",
        grid="",
        seed=1,
        git_commit="",
        planned=tuple(cases),
    )
    return Run(header=header, environments=(), measurements=tuple(found))


def test_cases_that_took_turns_are_compared_across_their_processes():
    table = Table(run_of_two())
    found = table.compare(CASE, CASE.with_(backend="transformers"))
    assert found.ratio == pytest.approx(3.0, rel=2e-3)
    assert table.compare(CASE.with_(strategy="functional_submodel", points="middle")).ratio == pytest.approx(
        0.5, rel=2e-3
    )


def test_what_was_measured_again_stands_for_what_it_replaces():
    """Else two rotations would be read as one, with two calls in each place."""
    run, again = run_of_two(), run_of_two(slower=5.0)
    both = Run(header=run.header, environments=(), measurements=(*run.measurements, *again.measurements))
    table = Table(both)
    assert table.compare(CASE, CASE.with_(backend="transformers")).ratio == pytest.approx(5.0, rel=2e-3)
    assert [len(table.rotation("all 1x16", block)) for block in range(6)] == [4] * 6


def test_the_terminal_shows_the_fastest_way_of_each_backend():
    lines = page.together_lines(run_of_two())
    assert [line for line in lines if line.startswith(("plain", "fastest", "minilm"))] == [
        "plain forward pass, time over a plain forward pass of transformers",
        "fastest way to read: middle, time over a plain forward pass of transformers",
    ]
    more = run_of_two()
    other = CASE.with_(strategy="always_return_all", points="all")
    like = next(m for m in more.measurements if m.case.points == "all")
    added = [msgspec.structs.replace(m, case=other) for m in more.measurements if m.case == like.case]
    header = msgspec.structs.replace(more.header, planned=(*more.header.planned, other))
    more = msgspec.structs.replace(more, header=header, measurements=(*more.measurements, *added))
    assert any(line.startswith("fastest way to read: all") for line in page.together_lines(more))


def test_the_page_shows_every_way_beside_the_first_plain_pass():
    run = run_of_two()
    *_, shape = together(Table(run)).grids
    assert shape.title == "minilm 1x16"
    cells = [list(row) for row in shape.rows]
    assert [row[:2] for row in cells] == [
        ["transformers, eager", "plain forward pass"],
        ["tensorflow, eager", "plain forward pass"],
        ["tensorflow, eager", "functional_submodel middle"],
        ["transformers, eager", "output_hidden_states all"],
    ]
    assert [row[3][:4] for row in cells] == ["1", "3.00", "1.50", "1.10"]
    assert [row[2][:4] for row in cells] == ["–", "–", "0.50", "1.10"]
    assert "## Side by side: backends and other libraries" in page.markdown(run, [])
    assert page.together_lines(Run(header=run.header, environments=(), measurements=())) == []
    # Not over the plain pass of whoever came second, where that of the first one failed.
    others = tuple(m for m in run.measurements if m.case != CASE.with_(backend="transformers"))
    assert page.together_lines(Run(header=run.header, environments=(), measurements=others)) == []


def test_the_fastest_way_is_chosen_shape_by_shape():
    run = run_of_two()
    peer = CASE.with_(backend="transformers")
    hooks, graph = (peer.with_(strategy=name, points="middle") for name in ("forward_hooks", "fx_graph"))
    found = list(run.measurements)
    for batch, taken in ((1, {hooks: 0.6, graph: 0.5}), (4, {peer: 1.0, hooks: 0.7, graph: 0.9})):
        for case, ratio in taken.items():
            found += [
                msgspec.structs.replace(
                    plain,
                    case=case.with_(batch=batch),
                    values=tuple(value * ratio for value in plain.values),
                    places=(),
                    notes={TOGETHER: f"all {batch}x16"},
                )
                for plain in run.measurements
                if plain.case == peer
            ]
    header = msgspec.structs.replace(run.header, planned=tuple(dict.fromkeys(m.case for m in found)))
    (table,) = best_ways(Table(Run(header=header, environments=(), measurements=tuple(found))), "middle")
    assert table.header == ("backend", "way", "1x16", "4x16")
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["transformers, eager"][0] == "fx_graph, forward_hooks"
    assert [cell[:4] for cell in rows["transformers, eager"][1:]] == ["0.50", "0.70"]
    assert rows["tensorflow, eager"][0] == "functional_submodel"
    assert [cell[:4] for cell in rows["tensorflow, eager"][1:]] == ["1.50", "–"]


def test_the_leanest_way_is_chosen_of_all_whose_heap_was_read():
    """Also of those that took no turns; what was read at a shape at which none took turns is left out."""
    run = run_of_two()
    peer = CASE.with_(backend="transformers")
    hooks, graph = (peer.with_(strategy=name, points="middle") for name in ("forward_hooks", "fx_graph"))
    held = {
        hooks: 3 * 2**20,
        graph: 2**20,
        graph.with_(batch=4): 2**19,
        CASE.with_(strategy="functional_submodel", points="middle"): 2**21,
        CASE: 2**22,
        CASE.with_(strategy=SINGLE_BLOCK): 2**18,
    }
    read = (Measurement(case=case, metric="peak_heap_bytes", values=(heap,)) for case, heap in held.items())
    header = msgspec.structs.replace(run.header, planned=(*run.header.planned, *held))
    run = Run(header=header, environments=(), measurements=(*run.measurements, *read))
    fastest, leanest = best_ways(Table(run), "middle")
    assert [row[:2] for row in fastest.rows] == [("tensorflow, eager", "functional_submodel")]
    assert (leanest.title, leanest.header) == (
        "leanest way to read: middle, peak heap",
        ("backend", "way", "1x16"),
    )
    assert leanest.rows == (
        ("tensorflow, eager", "functional_submodel", "2.000 MiB"),
        ("transformers, eager", "fx_graph", "1.000 MiB"),
    )
    (_, passes), *_ = best_ways_of_all(Table(run))
    assert passes.rows == (("tensorflow, eager", "plain forward pass", "4.000 MiB"),)
    titles = [line for line in page.together_lines(run) if line.endswith("peak heap")]
    assert titles == ["plain forward pass, peak heap", "leanest way to read: middle, peak heap"]


def test_the_plot_shows_each_backend_at_each_shape_with_its_plain_pass_middle_and_all():
    from hiddencost.plots.together import together

    figure = together(Table(run_of_two()))
    (ax,) = figure.axes
    assert ax.get_title(loc="left") == "1 × 16"
    assert [label.get_text() for label in ax.get_yticklabels()] == [
        "transformers, eager",
        "tensorflow, eager",
    ]
    dots = [
        (line.get_marker(), line.get_ydata()[0], line.get_xdata()[0])
        for line in ax.lines
        if line.get_gid() == "ratio"
    ]
    assert sorted((marker, height) for marker, height, _ in dots) == [("^", 0), ("o", 0), ("o", 1), ("s", 1)]
    ratios = {(marker, height): ratio for marker, height, ratio in dots}
    assert ratios["^", 0] == pytest.approx(1.1, rel=2e-3)
    assert ratios["s", 1] == pytest.approx(1.5, rel=2e-3)
    title = figure.get_suptitle().replace("\n", " ")
    assert title.startswith(
        "At best, shape by shape, the middle hidden state takes 1.50 with Keras (1: a plain forward pass"
    )
    assert together(Table(Run(header=run_of_two().header, environments=(), measurements=()))) is None


TURNS = """
name = "turns"
backend = ["transformers", "nnsight", "transformer_lens", "torch"]
together = true
[time]
blocks = 1
seconds = 0.5
min_rounds = 2
[[forward]]
model = ["minilm"]
strategy = [
  "functional_submodel", "output_hidden_states", "forward_hooks", "forward_hooks_stopping",
  "truncated_model", "fx_graph", "trace", "trace_stopped", "run_with_cache", "stop_at_layer",
]
points = ["middle", "embeddings,block_2", "all"]
mode = ["eager"]
batch = [2]
length = [16]
[[memory]]
reading = "heap"
model = ["minilm"]
strategy = ["truncated_model", "stop_at_layer"]
points = ["middle"]
mode = ["eager"]
batch = [2]
length = [16]
"""


@with_peers
def test_every_way_of_every_peer_reads_the_right_hidden_states_by_turns_with_keras(tmp_path):
    (tmp_path / "turns.toml").write_text(TURNS)
    done = subprocess.run(
        [Path(PYTHON).parent / "hiddencost", "run", "--grid", "turns.toml", "--out", "run"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "time over a plain forward pass of transformers" in done.stdout
    found = store.read(tmp_path / "run")
    assert [m for m in found.measurements if m.state != "ok"] == []
    timed = {m.case: m for m in found.measurements if m.metric == "seconds"}
    assert {(c.backend, c.strategy) for c in timed} == {
        (name, way) for name, ways in grid.PEERS.items() for way in (REFERENCE, TWIN, *ways)
    } | {("torch", way) for way in (REFERENCE, TWIN, "functional_submodel")}
    places = sorted(place for m in timed.values() for place in m.places)
    assert places == list(range(len(places)))
    differences = [m.values[0] for m in found.measurements if m.metric == "max_abs_difference"]
    assert len(differences) == len(timed)
    assert max(differences) <= measure.TOLERANCE["float32"]
    peaks = {m.case.backend for m in found.measurements if m.metric == "peak_heap_bytes"}
    assert peaks == {"transformers", "transformer_lens"}
