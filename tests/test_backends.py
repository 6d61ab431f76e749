"""The other backends, each in a process of its own: Keras fixes its backend when it is imported."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hiddencost import backends, grid, store
from hiddencost.errors import UserError
from hiddencost.records import Case

TESTS = Path(__file__).parent
OTHERS = [name for name in grid.MODES if name != "tensorflow" and name not in grid.PEERS]
COMPILED = {"jax": {"jit"}, "torch": {"compile", "export"}}


def alone(backend):
    """The interpreter of an environment with this backend and without TensorFlow, if there is one."""
    python = TESTS.parent / f".venv-{backend}" / "bin" / "python"
    return python if python.exists() else None


PYTHONS = {
    name: sys.executable if importlib.util.find_spec(name) else alone(name)
    for name in OTHERS  # found now: this process hides them later
}


@pytest.fixture(params=OTHERS)
def other(request):
    if not PYTHONS[request.param]:
        pytest.skip(f"{request.param} is not installed: make test-backends")
    return request.param


def run(backend, *command):
    environment = {**os.environ, "TEST_BACKEND": backend}
    done = subprocess.run(
        [PYTHONS.get(backend, sys.executable), *command],
        cwd=TESTS,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-3000:]
    return done.stdout


def passes(other, files, *options):
    own = ("-W", "ignore::DeprecationWarning") if other == "torch" else ()  # Keras's and torch's own
    told = run(
        other, "-m", "pytest", "-q", *own, f"--rootdir={TESTS.parent}", *options, *(TESTS / f for f in files)
    )
    assert " passed" in told
    assert "skipped" not in told


def test_every_strategy_gives_the_right_values_in_every_mode(other):
    passes(other, ["test_strategies.py"])


def test_a_forecast_is_near_what_the_loaded_model_takes():
    if not PYTHONS["jax"]:
        pytest.skip("jax is not installed: make test-backends")
    passes("jax", ["test_lowering.py"])


def test_the_lines_to_paste_leave_the_hidden_states(other):
    passes(other, ["test_paste.py"])


def test_hidden_states_are_found_read_and_freed(other):
    """But for most backbones, which take minutes (TEST_BACKEND=jax pytest tests/test_stacks.py)."""
    files = ["test_graph.py", "test_stacks.py", "test_freed.py", "test_extracting.py"]
    passes(other, files, "-k", "not Backbone or Albert or T5B or Gemma3n or XLNet")


def test_all_backends_give_the_same_hidden_states(other, process, tmp_path):
    run(other, str(TESTS / "minilm_values.py"), str(tmp_path / "theirs.npz"))
    case = Case(model="minilm", strategy="functional_submodel", points="all", batch=4, length=32)
    mine = [
        backends.to_numpy(value)
        for value in process.built(case)(backends.place(process.inputs(case), "eager", 4))
    ]
    theirs = np.load(tmp_path / "theirs.npz")
    for mode in grid.MODES[other]:
        if mode not in ("predict", "train"):
            assert len(mine) == 7
            for number, state in enumerate(mine):
                assert np.abs(state - theirs[f"{mode}-{number}"]).max() < 2e-4, (mode, number)


def test_a_backend_that_is_not_installed_is_told_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"^backend 'jax' is not installed: pip install 'hiddencost\[jax\]'$"):
        backends.check("jax")


def test_other_frameworks_are_hidden_from_a_process(tmp_path):
    """KerasHub imports what it finds, and two frameworks get in each other's way. What looks into
    `sys.modules` for one of them, as scipy does, must not find a trace of it there; nor must looking for
    torch, as dynamo looks for TensorFlow, raise anything."""
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    code = (
        "import importlib.util, os, sys; sys.path.insert(0, sys.argv[1]); "
        "os.environ['KERAS_BACKEND'] = 'tensorflow'; from hiddencost import backends; "
        "found = importlib.util.find_spec('torch').origin; backends.import_packages('tensorflow'); "
        "print([name for name in ('tensorflow', 'jax', 'torch') if name in sys.modules], "
        "found == sys.argv[1] + '/torch.py', importlib.util.find_spec('torch'))"
    )
    assert run("tensorflow", "-c", code, str(tmp_path)).strip() == "['tensorflow'] True None"


ALONE = """
name = "alone"
[time]
blocks = 1
seconds = 0.2
min_rounds = 2
[[forward]]
model = ["bert_tiny"]
strategy = ["functional_submodel"]
points = ["all"]
mode = ["eager", "jit", "compile", "export"]
batch = [2]
length = [16]
[[memory]]
reading = "heap"
model = ["bert_tiny"]
strategy = ["functional_submodel"]
points = ["all"]
mode = ["eager"]
batch = [2]
length = [16]
"""


@pytest.mark.parametrize("backend", OTHERS)
def test_a_grid_runs_where_tensorflow_is_not_installed(backend, tmp_path):
    """A machine with a GPU may have one framework, and not that one."""
    python = alone(backend)
    if not python:
        pytest.skip(f"there is no environment with {backend} alone: make venv-{backend}")
    absent = subprocess.run([python, "-c", "import tensorflow"], capture_output=True, text=True)
    assert "No module named 'tensorflow'" in absent.stderr
    (tmp_path / "alone.toml").write_text(ALONE)
    done = subprocess.run(
        [python.parent / "hiddencost", "run", "--grid", "alone.toml", "--backend", backend, "--out", "run"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = store.read(tmp_path / "run")
    assert [m for m in found.measurements if m.state != "ok"] == []
    timed = {m.case.mode for m in found.measurements if m.metric == "seconds"}
    assert timed == {"eager", *COMPILED[backend]}
    assert {m.case.mode for m in found.measurements if m.metric == "peak_heap_bytes"} == {"eager"}
    assert {"tensorflow" in e.versions for e in found.environments} == {False}
