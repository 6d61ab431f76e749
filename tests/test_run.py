"""The real main job, end to end: measured in processes of its own, stored, reported."""

import json
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from hiddencost import grid, store
from hiddencost.grid import planning
from hiddencost.models import minilm_folder
from hiddencost.records import METRICS, REFERENCE, TWIN
from hiddencost.rotation import CONTROL_CALLS
from hiddencost.stats import Table

COMMAND = Path(sys.executable).parent / "hiddencost"


def hiddencost(*arguments, **options):
    return subprocess.run([COMMAND, *map(str, arguments)], capture_output=True, text=True, **options)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """A run of the smoke grid on MiniLM: its folder and what the command printed."""
    folder = tmp_path_factory.mktemp("smoke") / "run"
    done = hiddencost("run", "--grid", "smoke", "--out", folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


def test_every_planned_case_is_measured_and_none_failed(smoke):
    run = store.read(smoke[0])
    parsed, _ = grid.read(grid.grid_path("smoke"))
    jobs = [*planning.timed_jobs(parsed), *planning.memory_jobs(parsed)]
    assert run.header.planned == planning.planned(jobs)
    assert {m.case for m in run.measurements} >= set(run.header.planned)
    assert [m for m in run.measurements if m.state not in ("ok", "skipped")] == []
    assert run.ending.how == "complete"


def test_times_are_paired_in_both_blocks_and_the_sub_model_takes_about_half(smoke):
    table = Table(store.read(smoke[0]))
    timed = table.cases("seconds")
    for case in timed:
        mine, theirs = table.blocks(case, "seconds"), table.blocks(case.group, "seconds")
        often = 1 if case.strategy in (REFERENCE, TWIN) else CONTROL_CALLS
        assert {block: often * len(values) for block, values in mine.items()} == {
            block: len(values) for block, values in theirs.items()
        }
        assert set(mine) == {0, 1}
    (middle,) = [c for c in timed if (c.strategy, c.points) == ("functional_submodel", "middle")]
    assert 0.3 < table.compare(middle).ratio < 0.8  # a sanity bound, not a gate
    assert {c.strategy for c in timed} >= {REFERENCE, TWIN}


def test_memory_and_payload_are_read(smoke):
    table = Table(store.read(smoke[0]))
    (case,) = [c for c in table.cases("peak_heap_bytes", strategy="always_return_all") if c.length == 64]
    payload = 7 * 4 * 64 * 384 * 4
    assert table.medians(case, "payload_bytes") == [payload]
    assert table.medians(case, "output_bytes") == [payload]
    assert table.medians(case, "peak_heap_bytes")[0] > payload
    assert table.live_set_floor(case) > payload


def test_the_environment_of_each_process_is_stored(smoke):
    run = store.read(smoke[0])
    blocks = {m.block for m in run.measurements}
    assert {environment.block for environment in run.environments} == blocks
    first = run.environments[0]
    assert first.threads == {"intra_op": 1, "inter_op": 1}
    assert {"keras", "keras-hub", "tensorflow", "numpy", "hiddencost"} <= set(first.versions)


def test_the_report_and_the_plots_are_there_and_the_last_screen_fits(smoke):
    folder, printed = smoke
    report = (folder / "report.md").read_text()
    assert report.startswith("# What does a hidden state cost?")
    assert "get_layer(name) is a linear scan" in report
    plots = sorted(path.stem for path in (folder / "plots").glob("*.svg"))
    assert {"overhead", "lookup", "one_off"} <= set(plots)
    assert all(f"plots/{name}.png" in report for name in plots)
    screen = printed[printed.index("minilm, tensorflow") :]
    assert "slice_and_dice" in screen
    assert f"Report:   {folder / 'report.md'}" in screen
    assert screen.count("\n") <= 24


def test_pytest_benchmarks_own_json_is_written_per_block(smoke):
    for block in (0, 1):
        written = json.loads((smoke[0] / "pytest-benchmark" / f"block-{block}.json").read_text())
        names = [benchmark["name"] for benchmark in written["benchmarks"]]
        assert "test_forward[minilm-graph-1x16-functional_submodel-middle]" in names
        run = store.read(smoke[0])
        stored = {
            str(m.case): m.values for m in run.measurements if m.metric == "seconds" and m.block == block
        }
        for benchmark in written["benchmarks"]:
            case = benchmark["name"].removeprefix("test_forward[").removesuffix("]")
            if case in stored:
                assert benchmark["stats"]["data"] == pytest.approx(list(stored[case]), rel=1e-4)


def test_latest_is_the_newest_run_and_selection_by_pytest_works(tmp_path):
    done = hiddencost(
        "run", "--grid", "smoke", "--blocks", "1", "--seconds", "0.2", "--", "-k", "lookup", cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr
    run = store.read(tmp_path / "reports" / "latest")
    assert {m.metric for m in run.measurements} == {"lookup_seconds", "import_seconds"}
    assert "planned cases without any measurement" in done.stdout
    again = hiddencost("report", "reports/latest", cwd=tmp_path)
    assert again.returncode == 0
    assert again.stdout.startswith("no models, no backend, 0 timing blocks, 0 memory processes")


def started(folder, tmp_path):
    """A run of the smoke grid that has stored its first time."""
    process = subprocess.Popen(
        [COMMAND, "run", "--grid", "smoke", "--out", folder],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=tmp_path,
    )
    results = folder / store.RESULTS
    for _ in range(600):
        if results.exists() and b'"metric":"seconds"' in results.read_bytes():
            return process
        time.sleep(0.1)
    raise AssertionError("no time was stored within a minute")


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_measured_and_leaves_no_process(tmp_path):
    folder = tmp_path / "run"
    process = started(folder, tmp_path)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert f"What was measured is kept: hiddencost report {folder}" in output
    assert "Traceback" not in output
    psutil.wait_procs(children, timeout=10)
    assert not [child for child in children if child.is_running()]
    run = store.read(folder)
    assert run.ending.how == "interrupted"
    assert [m for m in run.measurements if m.metric == "seconds"]
    assert hiddencost("report", folder).returncode == 0


@pytest.mark.slow
def test_a_killed_worker_costs_what_it_had_left_and_the_run_goes_on(tmp_path):
    folder = tmp_path / "run"
    process = started(folder, tmp_path)
    (worker,) = psutil.Process(process.pid).children()
    worker.kill()
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    run = store.read(folder)
    crashed = [m for m in run.measurements if m.state == "crashed"]
    assert crashed
    assert {m.reason for m in crashed} == {
        "block 0: its process was killed by signal 9 (see logs/block-0.log)"
    }
    assert [m for m in run.measurements if m.block == 1 and m.metric == "seconds" and m.state == "ok"]


REAL_PLAN = """
name = "tiny"
[time]
blocks = 2
seconds = 0.5
[[forward]]
model = ["bert_tiny"]
strategy = ["functional_submodel", "always_return_all"]
points = ["all"]
mode = ["eager", "graph"]
batch = [1, 2]
length = [8]
[[memory]]
reading = "heap"
model = ["bert_tiny"]
strategy = ["always_return_all"]
points = ["all"]
mode = ["graph"]
batch = [4]
length = [32, 64]
"""


@pytest.mark.slow
def test_a_real_run_killed_five_times_is_resumed_to_its_end(tmp_path):
    (tmp_path / "tiny.toml").write_text(REAL_PLAN)
    command = [COMMAND, "run", "--grid", "tiny.toml", "--out", "run"]
    generator = random.Random(0)
    for _ in range(5):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=tmp_path)
        with suppress(subprocess.TimeoutExpired):
            process.wait(generator.uniform(8, 25))
        workers = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.kill()
        process.wait()
        psutil.wait_procs(workers, timeout=10)
        assert not [worker for worker in workers if worker.is_running()]
        store.read(tmp_path / "run")
        command = [COMMAND, "run", "--resume", "run"]
    done = hiddencost("run", "--resume", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    run = store.read(tmp_path / "run")
    assert [m for m in run.measurements if m.state != "ok"] == []
    timed = [(m.case, m.block) for m in run.measurements if m.metric == "seconds"]
    assert len(set(timed)) == 2 * 4 * 4
    assert len(timed) - len(set(timed)) <= 5 * 4
    assert {m.case for m in run.measurements} >= set(run.header.planned)


@pytest.mark.slow
def test_the_wheel_carries_the_suites_and_installs(tmp_path):
    root = Path(__file__).parents[1]
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, root],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--no-deps", "--target", tmp_path / "site", wheel],
        check=True,
        capture_output=True,
    )
    code = "from hiddencost import grid; print(grid.bench_folder()); print(grid.grid_path('smoke'))"
    found = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env={"PYTHONPATH": str(tmp_path / "site")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert found[0] == str(tmp_path / "site" / "hiddencost" / "bench")
    assert (Path(found[0]) / "test_forward.py").is_file()
    assert Path(found[1]).is_file()


def test_every_metric_that_is_emitted_is_listed_in_records(smoke):
    assert {m.metric for m in store.read(smoke[0]).measurements} <= {metric.name for metric in METRICS}


def test_a_relative_preset_folder_is_measured(tmp_path):
    (tmp_path / "mine").symlink_to(minilm_folder())
    done = hiddencost(
        *("run", "--grid", "smoke", "--model", "preset:./mine", "--blocks", "1", "--seconds", "0.1"),
        *("--mode", "eager", "--strategy", "functional_submodel", "--", "-k", "forward"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    times = [m for m in store.read(tmp_path / "reports" / "latest").measurements if m.metric == "seconds"]
    assert {m.state for m in times} == {"ok"}
    assert {m.case.model for m in times} == {"preset:./mine"}


def test_a_forward_case_and_a_data_set_case_of_one_group_are_measured_together(tmp_path):
    """Four batches of 2 in forward's predict are the 8 examples of the data set."""
    text = """
name = "both"
[time]
blocks = 1
seconds = 0.1
[[forward]]
model = ["bert_tiny"]
strategy = ["functional_submodel"]
points = ["all"]
mode = ["predict"]
batch = [2]
length = [8]
[dataset]
model = ["bert_tiny"]
batch = 2
length = 8
examples = [8]
"""
    (tmp_path / "both.toml").write_text(text)
    done = hiddencost("run", "--grid", tmp_path / "both.toml", "--out", tmp_path / "run")
    assert done.returncode == 0, done.stdout + done.stderr
    run = store.read(tmp_path / "run")
    assert [m for m in run.measurements if m.state != "ok"] == []
    assert len({m.case for m in run.measurements if m.metric == "seconds"}) == 6


@pytest.mark.slow
def test_doctor_tells_the_noise_floor_of_this_machine_and_leaves_nothing_behind(tmp_path):
    done = hiddencost("doctor", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    floor = (
        r"{}, 1 x 16, .* m?s.*: ratio (\d\.\d+) \[.*\]; smallest slowdown that a gate of one case would "
        r"find here: \d+\.\d%"
    )
    for mode in ("eager", "graph"):
        found = re.search(floor.format(mode), done.stdout)
        assert found, done.stdout
        assert 0.7 < float(found[1]) < 1.4  # a sanity bound, not a gate
    assert not list(tmp_path.iterdir())


def test_extract_goes_on_with_its_own_folder_alone(tmp_path):
    text, states = tmp_path / "t.txt", tmp_path / "states"
    text.write_text("Rain fell.\nThe library keeps old maps.\n")
    given = ("extract", "--model", "bert_tiny", "--input", text, "--output", states, "--reduce", "mean")
    told = "2 lines, 13 tokens: 1 files, 1.148 KiB in "
    first = hiddencost(*given)
    assert (first.returncode, first.stdout[: len(told)]) == (0, told), first.stderr
    again = hiddencost(*given)
    assert (again.returncode, again.stdout) == (0, f"{states}: nothing is missing\n{first.stdout}")
    text.write_text("Rain fell.\nThe library keeps new maps.\n")
    other = hiddencost(*given)
    assert other.returncode == 2
    assert other.stderr.startswith(f"hiddencost: {states}: holds other states: text was '")
    (tmp_path / "file").write_text("")
    given = (*given[:-4], "--output", tmp_path / "file")
    assert hiddencost(*given).stderr == f"hiddencost: --output {tmp_path}/file: is a file: give a folder\n"
    zero = hiddencost(*given[:-2], "--output", tmp_path / "new", "--max-length", 0)
    assert (zero.returncode, zero.stderr) == (
        2,
        "hiddencost: --max-length 0: bert_tiny takes 3 to 512 tokens\n",
    )
