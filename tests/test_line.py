"""The whole line, from grid to exit code, on a fake clock: no model, exact figures."""

import functools
import json
import os
import signal
import subprocess
import sys
import time

import fake_run
import pytest
from click.testing import CliRunner
from test_supervise import fake, heed_ctrl_c

from hiddencost import cli, gate, store

PLAN = """
name = "fake"
[time]
blocks = 5
[[forward]]
model = ["bert_tiny"]
strategy = ["always_return_all"]
points = ["all"]
mode = ["graph"]
batch = [1]
length = [8]
[[memory]]
reading = "heap"
model = ["bert_tiny"]
strategy = ["always_return_all"]
points = ["all"]
mode = ["graph"]
batch = [1]
length = [8]
"""
CASE = "bert_tiny-graph-1x8-always_return_all-all"


def call(folder, *arguments, **fake):
    """(exit code, output) of a command of hiddencost in the folder, whose workers are fakes."""
    factors = {name.replace("_again", " again"): value for name, value in fake.items()}
    done = subprocess.run(
        [sys.executable, str(fake_run.__file__), "0", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "FAKE": json.dumps(factors)},
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A folder with a plan, a run of it, `first`, and its baseline."""
    folder = tmp_path_factory.mktemp("line")
    (folder / "plan.toml").write_text(PLAN)
    assert call(folder, "run", "--grid", "plan.toml", "--out", "first")[0] == 0
    assert call(folder, "baseline", "first") == (0, "reports/baseline.json: 4 figures of first\n")
    return folder


@pytest.fixture
def line(measured):
    return functools.partial(call, measured)


def judged(output):
    """The lines from the verdict on."""
    lines = output.splitlines()
    first = next(
        i for i, text in enumerate(lines) if " same" in text or "missing." in text or "regression" in text
    )
    return [" ".join(text.split()) for text in lines[first:] if text]


def test_from_grid_to_baseline_to_exit_code(line, measured):
    assert line("gate", "first") == (0, "No regression. 4 same.\n")
    before = (measured / "reports" / "baseline.json").read_bytes()

    assert line("run", "--grid", "plan.toml", "--out", "slow", always_return_all=1.05)[0] == 0
    code, output = line("gate", "slow", "--markdown", "m.md", "--json", "j.json")
    assert code == 1
    assert judged(output) == [
        "Regression. 1 slower, 1 larger, 2 same.",
        "case metric before after after / before verdict",
        f"{CASE} overhead_ratio 1.00 1.05 1.05 slower",
        f"{CASE} peak_heap_bytes 1.000 MiB 1.050 MiB +5.0 % larger",
    ]
    assert "| slower |" in (measured / "m.md").read_text()
    assert json.loads((measured / "j.json").read_text())["exit_code"] == 1
    assert line("gate", "slow", "--threshold", "6%", "--timings-advisory")[0] == 1  # the heap is still larger
    assert (measured / "reports" / "baseline.json").read_bytes() == before


def test_a_gate_that_measures_measures_again_what_it_suspects(line):
    code, output = line("gate", "--out", "real", always_return_all=1.05, always_return_all_again=1.04)
    assert code == 1
    assert "1 suspected: measured again" in output
    assert judged(output)[2] == f"{CASE} overhead_ratio 1.00 1.04 1.04 slower"
    code, output = line("gate", "--out", "chance", always_return_all=1.05)
    assert code == 0
    assert judged(output) == [
        "No regression. 4 same.",
        "case metric before after after / before verdict",
        f"{CASE} overhead_ratio 1.00 1.00 1.00 same: seemed slower at first (1.050), not when measured again",
        f"{CASE} peak_heap_bytes 1.000 MiB 1.000 MiB +0.00 % same: seemed larger at first (1.050), "
        "not when measured again",
    ]


def test_what_only_memory_suspects_is_measured_again_by_processes_with_settings_of_their_own(measured, line):
    (measured / "heap.toml").write_text(PLAN.replace('["always_return_all"]', '["on_request"]', 2).replace(
        '["on_request"]', '["always_return_all"]', 1))  # fmt: skip
    assert line("run", "--grid", "heap.toml", "--out", "heap")[0] == 0
    assert line("baseline", "heap", "--out", "heap.json")[0] == 0
    gate = ("gate", "--baseline", "heap.json", "--out")
    code, output = line(*gate, "chance-heap", on_request=1.05)
    assert (code, judged(output)[0]) == (0, "No regression. 5 same.")
    code, output = line(*gate, "larger", on_request=1.05, on_request_again=1.05)
    assert (code, judged(output)[0]) == (1, "Regression. 2 larger, 3 same.")


def test_what_makes_timings_unreliable_is_told_once_stored_and_told_with_the_verdict(line, measured):
    busy = "load average 9 on 2 cores: other work runs beside the benchmark"
    code, output = line("gate", "--out", "busy", always_return_all=1.05, warning=busy)
    assert code == 0
    assert output.count(f"warning: {busy} (hiddencost doctor)\n") == 1
    assert output.endswith(f"\n\nnote: {busy}\n")
    assert store.read(measured / "busy").header.warnings == (busy,)
    assert store.read(measured / "busy" / "again").header.warnings == ()
    assert line("gate", "busy", always_return_all=1.05)[1].endswith(f"\n\nnote: {busy}\n")
    sides = ("gate", "--against", sys.executable, "--grid", "plan.toml", "--out", "busy-sides")
    assert f"note: {busy}\n" in line(*sides, warning=busy)[1]


def test_two_sides_are_told_apart_by_their_turns(line):
    arguments = ("gate", "--against", sys.executable, "--grid", "plan.toml", "--out")
    code, output = line(*arguments, "same")
    assert code == 0
    assert judged(output)[0] == "No regression. 5 same."
    code, output = line(*arguments, "slow", always_return_all=1.03, always_return_all_again=1.03)
    assert code == 1
    assert judged(output)[2] == f"{CASE} seconds 1.00 s 1.03 s 1.03 slower"


def test_side_by_side_each_backend_is_measured_under_settings_of_its_own(line, measured):
    both = PLAN.replace('name = "fake"', 'name = "fake"\nbackend = ["tensorflow", "jax"]')
    (measured / "both.toml").write_text(both.replace('["graph"]', '["graph", "jit"]'))
    arguments = ("gate", "--against", sys.executable, "--grid", "both.toml", "--out", "both")
    code, output = line(*arguments)
    assert (code, judged(output)[0]) == (0, "No regression. 10 same.")
    logs = [log for side in ("before", "after") for log in (measured / "both" / side / "logs").glob("*.log")]
    found = {
        (job["backend"], log.read_text().splitlines()[-1])
        for log in logs
        for job in json.loads(log.with_suffix(".jobs.json").read_text())
    }
    assert found == {("tensorflow", "backend='tensorflow'"), ("jax", "backend='jax'")}


def test_a_case_that_ends_its_side_costs_itself_and_the_others_are_judged(line, measured):
    arguments = ("gate", "--against", sys.executable, "--grid", "plan.toml", "--out")
    code, output = line(*arguments, "dies", always_return_all="dies")
    assert code == 3
    told = judged(output)
    assert told[0] == "Cases are missing or failed. 2 missing, 3 same."
    assert told[2:4] == [
        f"{CASE} {metric} – – – missing: crashed: block {block}: its process was killed by signal 11 "
        f"(see logs/block-{log}.log)"
        for metric, block, log in (("seconds", 0, 0), ("peak_heap_bytes", 101, 100))
    ]
    reasons = [
        m.reason
        for m in store.read(measured / "dies" / "after").measurements
        if m.metric == "seconds" and m.state == "crashed"
    ]
    assert reasons[1:] == [
        f"block {block}: not tried again: in block 0 its process was killed by signal 11"
        for block in range(1, 5)
    ]


def test_a_side_that_measures_nothing_is_told_as_that(line):
    arguments = ("gate", "--against", sys.executable, "--grid", "plan.toml", "--out", "nothing")
    code, output = line(
        *arguments, **dict.fromkeys(("always_return_all", "final_only", "single_block"), "fails")
    )
    assert code == 5
    assert judged(output)[0].startswith("Nothing was measured. ")


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["gate", "cut"], 3, "Cases are missing or failed. 2 missing, 2 same."),
        (
            ["gate", "killed"],
            2,
            "hiddencost: killed: not complete: `hiddencost run --resume killed` measures",
        ),
        (["gate", "nowhere.known"], 2, "hiddencost: nowhere.known: does not tell where it was measured"),
        (["baseline", "nowhere.known"], 2, "hiddencost: nowhere.known: does not tell where it was measured"),
        (["gate", "empty"], 5, "Nothing was measured. 6 missing."),
        (["gate", "other"], 4, "hiddencost: not comparable: the baseline's grid plans"),
        (
            ["gate", "newer"],
            4,
            "hiddencost: not comparable: newer/results.jsonl: written by a newer hiddencost",
        ),
        (["gate", "nowhere"], 2, "hiddencost: no run at nowhere"),
        (
            ["gate", "first", "--against", "main"],
            2,
            "hiddencost: --against measures both sides itself: leave out",
        ),
        (["gate", "--grid", "smoke"], 2, "hiddencost: --grid needs --against"),
        (["gate", "first", "--threshold", "-1%"], 2, "hiddencost: --threshold -0.01: must be at least 0"),
        (
            ["gate", "first", "--threshold", "5"],
            2,
            "--threshold 5: must be at least 0 and below 1, such as 1%",
        ),
        (["gate", "first", "--markdown", "no/m.md"], 2, "hiddencost: no/m.md: its folder does not exist"),
        (["gate", "first", "--markdown", "."], 2, "hiddencost: .: cannot be written: it is a folder"),
        (["gate", "first", "--json", "first"], 2, "hiddencost: first: cannot be written: it is a folder"),
        (["gate", "first", "--json", "/dev/full"], 2, "the verdict: see above"),
        (["baseline", "nowhere"], 2, "hiddencost: no run at nowhere"),
    ],
)
def test_each_way_out_has_its_code_and_its_sentence(line, measured, arguments, code, sentence):
    whole = (measured / "first" / "results.jsonl").read_text().splitlines(keepends=True)
    for name, kept in (
        ("cut", [text for text in whole if "always_return_all" not in text or '"header"' in text]),
        ("empty", [whole[0], next(text for text in whole if "environment" in text), whole[-1]]),
        ("killed", [text for text in whole[:-1] if '"block":4' not in text]),
        ("nowhere.known", [text for text in whole if '"type":"environment"' not in text]),
        ("newer", [whole[0].replace('"schema_version":1', '"schema_version":99'), *whole[1:]]),
        ("other", [whole[0].replace('\\"length\\":[8]', '\\"length\\":[9]'), *whole[1:]]),
    ):
        (measured / name).mkdir(exist_ok=True)
        (measured / name / "results.jsonl").write_text("".join(kept))
    found, output = line(*arguments)
    assert sentence in output
    assert found == code


def test_an_interrupted_gate_is_no_regression(measured, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(gate, "read", interrupted)
    result = CliRunner().invoke(cli.main, ["gate"])
    assert (result.exit_code, result.stderr) == (130, "\nInterrupted.\n")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_gate_interrupted_while_it_measures_says_so(measured, how):
    process = fake(
        measured, "gate", "--out", f"ended-{how}", seconds=0.5, before=heed_ctrl_c, stderr=subprocess.PIPE
    )
    while not list(measured.glob(f"ended-{how}/**/*.doing")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(how)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "\nInterrupted.\n")


def test_a_reader_that_has_gone_is_no_regression_and_files_are_written_first(measured):
    """As in `hiddencost gate | head -1`."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as nobody_reads:
        done = subprocess.run(
            [sys.executable, str(fake_run.__file__), "0", "gate", "first", "--json", "gone.json"],
            cwd=measured,
            stdout=nobody_reads,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
        )
    assert (done.returncode, done.stderr) == (141, "")
    assert json.loads((measured / "gone.json").read_text())["verdict"] == "No regression. 4 same."


def test_a_fault_of_the_gate_itself_is_no_verdict(measured, monkeypatch):
    """Where it was is for us to read; 70 is what sysexits.h has for it."""

    def broken(*arguments):
        raise RuntimeError("not foreseen")

    monkeypatch.setattr(gate, "read", broken)
    result = CliRunner().invoke(cli.main, ["gate"])
    assert result.exit_code == 70
    assert result.stderr.splitlines()[-1] == "RuntimeError: not foreseen"
