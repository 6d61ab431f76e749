"""Random damage never gives a traceback, never changes what is stored, and never passes the gate."""

import json

import gate_runs
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from hiddencost import cli, gate, grid, store
from hiddencost.cli import measuring

CODES = range(6)
FUZZ = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
RUN = gate_runs.run(gate_runs.alone())
LINES = [store.encode(line) for line in (RUN.header, *RUN.environments, *RUN.measurements, RUN.ending)]
WHOLE = b"".join(LINES)
GATED = [
    i
    for i, line in enumerate(LINES)
    if b'"metric":"seconds"' in line or b'"metric":"peak_heap_bytes"' in line
]
BASELINE = gate.keep(RUN, "run")
PLAN = gate_runs.PLAN.encode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("fuzz")
    gate.write(BASELINE, made / "baseline.json")
    (made / "run").mkdir()
    return made


def code(*arguments):
    """The exit code of a command that ended in an orderly way."""
    result = CliRunner().invoke(cli.main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    assert result.exit_code in CODES
    return result.exit_code


def damaged(whole):
    """Bytes with some of them replaced, removed or put in."""
    place = some.integers(0, len(whole) - 1)
    change = some.tuples(place, some.integers(0, 40), some.binary(max_size=12))

    def apply(changes):
        found = bytearray(whole)
        for start, length, new in changes:
            found[start : start + length] = new
        return bytes(found)

    return some.lists(change, min_size=1, max_size=4).map(apply)


@FUZZ
@given(damaged(WHOLE))
def test_a_damaged_run_is_judged_or_refused_and_left_alone(folder, text):
    path = folder / "run" / store.RESULTS
    path.write_bytes(text)
    code("gate", folder / "run", "--baseline", folder / "baseline.json")
    code("baseline", folder / "run", "--out", folder / "new.json")
    assert path.read_bytes() == text


@FUZZ
@given(some.sampled_from(GATED))
def test_a_run_that_lacks_or_failed_what_is_gated_does_not_pass(folder, number):
    case = json.loads(LINES[number])["case"]
    gone = [
        line
        for line in LINES
        if json.dumps(case, separators=(",", ":")).encode() not in line or b"plan" in line
    ]
    (folder / "run" / store.RESULTS).write_bytes(b"".join(gone))
    assert code("gate", folder / "run", "--baseline", folder / "baseline.json") in (3, 5)
    failed = json.loads(LINES[number])
    failed.update(state="crashed", values=[], places=[])
    lines = [*LINES[:number], json.dumps(failed).encode() + b"\n", *LINES[number + 1 :]]
    (folder / "run" / store.RESULTS).write_bytes(b"".join(lines))
    assert code("gate", folder / "run", "--baseline", folder / "baseline.json") == 3


@FUZZ
@given(some.integers(0, max(GATED) - 1))
def test_a_run_that_was_cut_off_does_not_pass(folder, last):
    (folder / "run" / store.RESULTS).write_bytes(b"".join(LINES[: last + 1])[:-3])
    assert code("gate", folder / "run", "--baseline", folder / "baseline.json") != 0


@FUZZ
@given(damaged((BASELINE and gate.as_json)(gate.Outcome([])) + PLAN))
def test_a_file_that_is_no_baseline_is_refused(folder, text):
    (folder / "other.json").write_bytes(text)
    (folder / "run" / store.RESULTS).write_bytes(WHOLE)
    assert code("gate", folder / "run", "--baseline", folder / "other.json") in (2, 4)


def test_a_damaged_baseline_is_used_or_refused_and_left_alone(folder):
    whole = (folder / "baseline.json").read_bytes()
    (folder / "run" / store.RESULTS).write_bytes(WHOLE)

    @FUZZ
    @given(damaged(whole))
    def check(text):
        (folder / "damaged.json").write_bytes(text)
        code("gate", folder / "run", "--baseline", folder / "damaged.json")
        assert (folder / "damaged.json").read_bytes() == text

    check()


@FUZZ
@given(damaged(PLAN))
def test_a_damaged_grid_is_refused_or_planned(folder, text):
    """Up to where the measuring would start."""
    path = folder / "plan.toml"
    path.write_bytes(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "Writer", stop)
        code("run", "--grid", path, "--out", folder / "out")
    assert not (folder / "out").exists()


def stop(*arguments):
    raise SystemExit(0)


COMMANDS = ("gate", "baseline", "report", "run", "models", "strategies")
OPTIONS = tuple(
    f"--{name}" for name in ("baseline", "grid", "threshold", "strict", "against", "seq", "mode", "out")
)
VALUES = ("1%", "0", "-1", "nan", "1e999", "smoke", "gate.toml", "x/y", "a,b", "--")
WORDS = some.sampled_from(COMMANDS + OPTIONS + VALUES)
TEXT = some.text(some.characters(exclude_characters="\0"), max_size=8)  # no argument of a process can hold it


@FUZZ
@given(some.lists(some.one_of(WORDS, TEXT), max_size=6))
def test_a_command_line_of_random_words_is_refused_or_does_what_it_says(folder, words):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(store, "Writer", stop)
        patch.setattr(measuring, "supervised", stop)
        code(*words)


def test_the_grids_that_are_shipped_plan_what_the_gate_knows():
    for path in (grid.bench_folder() / "grids").glob("*.toml"):
        planned, _ = grid.read(path)
        assert set(planned.gate) <= set(grid.GATED), path
