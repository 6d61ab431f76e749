"""The other backends, each in a process of its own: Keras fixes its backend when it is imported."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hiddencost import backends, grid
from hiddencost.errors import UserError
from hiddencost.records import Case

TESTS = Path(__file__).parent
OTHERS = [name for name in grid.MODES if name != "tensorflow"]
INSTALLED = [name for name in OTHERS if importlib.util.find_spec(name)]  # this process hides them later


@pytest.fixture(params=OTHERS)
def other(request):
    if request.param not in INSTALLED:
        pytest.skip(f"{request.param} is not installed: make test-backends")
    return request.param


def run(backend, *command):
    environment = {**os.environ, "TEST_BACKEND": backend}
    done = subprocess.run(
        [sys.executable, *command], cwd=TESTS, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-3000:]
    return done.stdout


def test_every_strategy_gives_the_right_values_in_every_mode(other):
    own = ("-W", "ignore::DeprecationWarning") if other == "torch" else ()  # Keras's and torch's own
    told = run(
        other, "-m", "pytest", "-q", *own, f"--rootdir={TESTS.parent}", str(TESTS / "test_strategies.py")
    )
    assert " passed" in told
    assert "skipped" not in told


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
    """KerasHub imports TensorFlow where it finds it, and two frameworks get in each other's way. What looks
    into `sys.modules` for one of them, as scipy does, must not find a trace of it there."""
    code = (
        "import os, sys; os.environ['KERAS_BACKEND'] = 'tensorflow'; from hiddencost import backends; "
        "backends.import_packages('tensorflow'); "
        "print([name for name in ('tensorflow', 'jax', 'torch') if name in sys.modules])"
    )
    assert run("tensorflow", "-c", code).strip() == "['tensorflow']"
