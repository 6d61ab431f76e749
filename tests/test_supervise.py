"""The supervisor: it keeps the time budget, a bad case costs one case, and a killed run is resumed."""

import errno
import fcntl
import math
import os
import random
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import fake_run
import msgspec
import psutil
import pytest

from hiddencost import grid, store, suites, supervise
from hiddencost.doing import Doing
from hiddencost.errors import UserError
from hiddencost.grid import planning
from hiddencost.records import (
    OVER_BUDGET,
    REFERENCE,
    SCHEMA_VERSION,
    TWIN,
    Case,
    Ending,
    Header,
    Measurement,
    Run,
)
from hiddencost.supervise import Supervisor

HEADER = Header(
    schema_version=SCHEMA_VERSION,
    hiddencost_version="0",
    started="2026-01-01T00:00:00+00:00",
    command="hiddencost run",
    grid_name="g",
    grid="",
    seed=1,
    git_commit="",
)

CASE = Case(model="bert_tiny", strategy=REFERENCE, batch=1, length=8)
WAY = CASE.with_(strategy="functional_submodel", points="all")


def job(block=0, optional=True, **time):
    tasks = tuple(
        planning.Task(suite="forward", case=case, seconds=0.05, optional=optional)
        for case in (CASE, CASE.with_(strategy=TWIN), WAY)
    )
    return planning.Job(block=block, seed=1, time=grid.Time(**time), tasks=tasks)


class Counted:
    """What a run's progress bar is told."""

    def __init__(self):
        self.told = []

    def done(self, label, count):
        self.told.append((label, count))


def scales(monkeypatch, budget, besides, rotation, left_out=()):
    """How much longer than planned the rotations of each of five blocks were asked to be, on a fake clock
    where a block takes `besides` seconds and its rotations, as planned, `rotation`; and the supervisor."""
    clock, asked = [0.0], []
    monkeypatch.setattr(supervise.time, "perf_counter", lambda: clock[0])
    supervisor = Supervisor(None, Counted())

    def work(self, jobs):
        (given,) = jobs
        asked.append(given.tasks[0].seconds / 0.05)
        rotated = rotation * asked[-1]
        clock[0] += besides + rotated
        self._rotated[given.origin] = rotated
        self._left_out.update(left_out)

    monkeypatch.setattr(Supervisor, "_work", work)
    supervisor._work_in_turn([job(block, budget=budget) for block in range(5)])
    return asked, clock[0], supervisor


def test_rotations_fill_the_budget_once_the_first_block_has_shown_what_else_takes_time(monkeypatch):
    asked, took, _ = scales(monkeypatch, budget=500, besides=60, rotation=20)
    assert asked == pytest.approx([1, 2.25, 2.25, 2.25, 2.25])  # (500 - 80) / 4 = 105 a block, 45 of it calls
    assert took == pytest.approx(500)


def test_a_slow_machine_shortens_its_rotations_but_not_to_nothing(monkeypatch):
    asked, took, _ = scales(monkeypatch, budget=500, besides=80, rotation=40)
    assert asked[1:] == pytest.approx([0.375] * 4)
    assert took == pytest.approx(500)
    assert scales(monkeypatch, budget=100, besides=80, rotation=40)[0][1:] == pytest.approx([0.3] * 4)


def test_without_a_budget_every_block_is_as_planned(monkeypatch):
    assert scales(monkeypatch, budget=None, besides=80, rotation=40)[0] == [1] * 5


def test_what_the_first_block_left_out_the_others_leave_out_too(monkeypatch):
    *_, supervisor = scales(monkeypatch, budget=500, besides=60, rotation=20, left_out=[WAY])
    assert supervisor.progress.told == [("left out", 1)] * 4
    kept = supervise.paced(job(), 2.0, {WAY})
    assert [(task.case, task.seconds) for task in kept.tasks] == [
        (CASE, 0.1),
        (CASE.with_(strategy=TWIN), 0.1),
    ]


def measured(process, planned):
    """What a session of that job reports of the seconds of its cases."""
    session = suites.Measured([planned], lambda record: None)
    session._process = process
    session.timed(planned.tasks[0], lambda: planned.tasks)
    return {case: found for (case, metric), found in session._found.items() if metric == "seconds"}


def test_an_optional_group_is_left_out_with_the_reason_when_the_share_is_used_up(process, tiny):
    found = measured(process, job(budget=1e-9))
    assert set(found) == {CASE, CASE.with_(strategy=TWIN), WAY}
    for case, record in found.items():
        assert isinstance(record, Measurement), case
        assert record.state == "skipped"
        assert OVER_BUDGET in record.notes
        assert record.reason.startswith(
            "left out: this machine used up 70% of a block's share (0 s) of the time budget"
        )


@pytest.mark.parametrize(
    "planned", [job(budget=1e-9, optional=False), job(block=1, budget=1e-9), job(budget=1000), job()]
)
def test_what_is_needed_or_fits_is_measured_and_only_the_first_block_decides(process, tiny, planned):
    assert {record.state for record in measured(process, planned).values()} == {"ok"}


# -- a bad case costs one case --


def supervised(tmp_path, monkeypatch, tasks, timeout=60.0, suite="forward", kills=(), together=False):
    """The measurements of one block of these strategies, measured by the fake worker."""
    monkeypatch.setattr(Supervisor, "_start", fake_run.start_with(0.001))
    if kills:
        counted = iter(kills)
        monkeypatch.setattr(supervise, "out_of_memory_kills", lambda: next(counted))
    cases = [CASE, CASE.with_(strategy=TWIN), *(CASE.with_(strategy=name, points="all") for name in tasks)]
    if suite == "lookup":
        cases = [Case(model="lookup", strategy=name, layers=12, position=3) for name in tasks]
    planned = planning.Job(
        block=0,
        seed=1,
        time=grid.Time(),
        tasks=tuple(planning.Task(suite=suite, case=case) for case in cases),
        together=together,
    )
    writer = store.Writer(tmp_path / "run", HEADER)
    assert Supervisor(writer, Counted(), case_timeout=timeout).run([planned], []) == "complete"
    writer.close()
    run = store.read(tmp_path / "run")
    return {m.case.strategy: (m.state, m.reason) for m in run.measurements}


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize(
    ("name", "timeout", "kills", "state", "reason"),
    [
        ("dies", 60, (), "crashed", "was killed by signal 11"),
        ("hangs", 0.5, (), "timeout", "hung for more than 0.5 s"),
        ("eats", 60, (7, 8, 8), "out_of_memory", "was killed by the kernel for want of memory"),
        ("eats", 60, (7, 7, 7), "crashed", "was killed by signal 9"),
    ],
)
def test_a_case_that_ends_its_process_costs_itself_and_its_group_is_measured_again(
    tmp_path, monkeypatch, name, timeout, kills, state, reason, together
):
    found = supervised(
        tmp_path, monkeypatch, ["get_layer_name", name, "on_request"], timeout, kills=kills, together=together
    )
    assert found.pop(name) == (state, f"block 0: its process {reason} (see logs/block-0.log)")
    assert found == dict.fromkeys((REFERENCE, TWIN, "get_layer_name", "on_request"), ("ok", ""))


def test_a_case_that_a_device_cannot_hold_is_a_record_and_a_new_worker_goes_on(tmp_path, monkeypatch):
    found = supervised(tmp_path, monkeypatch, ["get_layer_name", "fills", "on_request"])
    assert found.pop("fills") == ("out_of_memory", "RESOURCE_EXHAUSTED")
    assert found == dict.fromkeys((REFERENCE, TWIN, "get_layer_name", "on_request"), ("ok", ""))
    assert len(store.read(tmp_path / "run").measurements) == 5
    assert [path.name for path in sorted((tmp_path / "run" / "logs").glob("*.doing"))] == []


def test_by_turns_a_case_that_a_device_cannot_hold_costs_itself(tmp_path, monkeypatch):
    found = supervised(tmp_path, monkeypatch, ["get_layer_name", "fills", "on_request"], together=True)
    assert found.pop("fills") == (
        "out_of_memory",
        "block 0: its process had no memory left (see logs/block-0.log)",
    )
    assert found == dict.fromkeys((REFERENCE, TWIN, "get_layer_name", "on_request"), ("ok", ""))


def test_a_worker_whose_device_is_full_reports_that_and_asks_for_a_new_one(process, tiny, monkeypatch):
    class EndedError(Exception):
        pass

    def end(code):
        raise EndedError(code)

    monkeypatch.setattr(suites.os, "_exit", end)
    reported = []
    session = suites.Measured([job()], reported.append)
    session._process = process
    for device in ("cpu", "gpu"):
        full = process.failure(WAY.with_(device=device), "seconds", "out_of_memory", "full")
        if device == "cpu":
            session.keep(full)
        else:
            with pytest.raises(EndedError, match=r"^75$"):
                session.keep(full)
        assert reported[-1] == full


@pytest.mark.parametrize("keep", [True, False])
def test_workers_share_a_folder_for_programs_where_the_grid_keeps_them(tmp_path, monkeypatch, keep):
    """In the run's logs, which are not committed."""
    started = []
    monkeypatch.setattr(
        supervise.subprocess, "Popen", lambda command, **options: started.append(options["env"])
    )
    writer = store.Writer(tmp_path / "run", HEADER)
    supervisor = Supervisor(writer, Counted())
    (tmp_path / "run" / "logs").mkdir()
    planned = grid.Time(keep_programs=keep)
    supervisor._start([msgspec.structs.replace(job(), backend="jax", time=planned)], "block-0", {}, None)
    writer.close()
    folder = started[0].get("JAX_COMPILATION_CACHE_DIR")
    assert folder == (str(tmp_path / "run" / "logs" / "programs") if keep else None)


def test_a_worker_imports_nothing_from_the_current_folder_in_place_of_a_package(tmp_path):
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "__init__.py").write_text("raise SystemExit('mine')")
    command = [sys.executable, "-m", "json.tool", "--help"]

    def code(environment):
        return subprocess.run(command, cwd=tmp_path, capture_output=True, env=environment).returncode

    assert code({name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}) != 0
    assert code(supervise.worker_environment(os.environ)) == 0


@pytest.mark.parametrize(("device", "most"), [("cpu", None), ("gpu", 1)])
def test_side_by_side_each_block_has_another_leader_and_a_gpu_one_case(tmp_path, monkeypatch, device, most):
    """Whatever backends a block has."""
    led, at_once = [], []
    monkeypatch.setattr(supervise, "there_and_back", lambda leader: leader)
    monkeypatch.setattr(
        supervise, "_by_turns", lambda hands, leader, job: led.append((job.block, job.backend, leader))
    )
    monkeypatch.setattr(supervise, "_at_once", lambda who, calls, most: at_once.append(most))
    sides = [Supervisor(store.Writer(tmp_path / name, HEADER), Counted()) for name in ("before", "after")]
    timed = [
        msgspec.structs.replace(job(block), backend=backend)
        for block in range(2)
        for backend in ("tensorflow", "jax")
    ]
    memory = [msgspec.structs.replace(job(100), device=device)]
    assert supervise.side_by_side(*sides, timed, memory) == "complete"
    for side in sides:
        side.writer.close()
    assert led == [(0, "tensorflow", 0), (0, "jax", 0), (1, "tensorflow", 1), (1, "jax", 1)]
    assert at_once == [most]


def test_a_worker_loads_no_plugin_of_pytest_but_the_one_that_the_suites_need(tmp_path):
    asked = [
        *supervise.PYTEST_OPTIONS,
        "--collect-only",
        "--trace-config",
        f"--rootdir={tmp_path}",
        str(tmp_path),
    ]
    caller = {**os.environ, "PYTEST_ADDOPTS": "--no-such-option"}
    told = subprocess.run(
        [sys.executable, "-m", "pytest", *asked],
        env=supervise.worker_environment(caller),
        capture_output=True,
        text=True,
    ).stdout
    modules = set(re.findall(r"PLUGIN registered: <module '([^']+)'", told))
    assert {name for name in modules if not name.startswith("_pytest.")} == {"pytest_benchmark.plugin"}
    assert "_pytest.terminal" in modules
    assert "_pytest.unraisableexception" not in modules


@pytest.mark.parametrize("together", [False, True])
def test_two_bad_cases_cost_two_cases(tmp_path, monkeypatch, together):
    found = supervised(tmp_path, monkeypatch, ["dies", "get_layer_name", "eats"], together=together)
    assert found["dies"][0] == found["eats"][0] == "crashed"
    assert found["eats"][1].endswith("(see logs/block-0-again-1.log)")
    assert found["get_layer_name"] == ("ok", "")


def test_a_group_that_was_reported_in_part_is_measured_again_with_its_reference(tmp_path, monkeypatch):
    """The worker dies after the reference and its twin are reported, having told the last case of all."""
    found = supervised(tmp_path, monkeypatch, ["stumbles", "get_layer_name"])
    assert found["get_layer_name"][0] == "crashed"
    assert found["stumbles"] == ("ok", "")
    cases = [m.case.strategy for m in store.read(tmp_path / "run").measurements]
    assert cases.count(REFERENCE) == cases.count(TWIN) == 2


def test_nobody_is_blamed_once_where_a_process_is_killed_at_what_is_done(tmp_path, monkeypatch):
    found = supervised(tmp_path, monkeypatch, ["falls", "dict_in_advance", "get_layer_name"], suite="lookup")
    assert found == dict.fromkeys(("falls", "dict_in_advance", "get_layer_name"), ("ok", ""))


def test_look_ups_have_no_group_that_would_be_measured_again(tmp_path, monkeypatch):
    found = supervised(tmp_path, monkeypatch, ["get_layer_name", "dies", "dict_in_advance"], suite="lookup")
    assert [found[name][0] for name in ("get_layer_name", "dies", "dict_in_advance")] == [
        "ok",
        "crashed",
        "ok",
    ]


@pytest.mark.parametrize("together", [False, True])
def test_a_case_that_ends_its_process_with_an_exit_code_costs_itself(tmp_path, monkeypatch, together):
    found = supervised(tmp_path, monkeypatch, ["get_layer_name", "fails"], together=together)
    assert found["fails"][0] == "crashed"
    assert found["fails"][1].endswith("its process ended with code 3 (see logs/block-0.log)")
    assert found["get_layer_name"] == ("ok", "")


def test_a_process_that_ends_before_any_case_leaves_a_record_for_everything_it_had_left(tmp_path):
    left = {(case, "seconds", 0): None for case in (CASE, WAY)}
    writer = store.Writer(tmp_path / "run", HEADER)
    end = supervise.End("crashed", "ended with code 3", None)
    assert Supervisor(writer, Counted()).note(end, "block-0", left) == {CASE, WAY}
    writer.close()
    assert not left
    assert {(m.state, m.reason) for m in store.read(tmp_path / "run").measurements} == {
        ("crashed", "block 0: its process ended with code 3 (see logs/block-0.log)")
    }


def test_what_workers_leave_is_gone_with_their_run(tmp_path, monkeypatch):
    """Those that are killed have no time to."""
    seen = []
    as_ever = fake_run.start_with(0.001)

    def start(self, jobs, name, pipes, log_file):
        seen.append(Path(self.temporary))
        (seen[-1] / name).write_text("left")
        return as_ever(self, jobs, name, pipes, log_file)

    monkeypatch.setattr(fake_run, "start_with", lambda seconds: start)
    supervised(tmp_path, monkeypatch, ["dies", "get_layer_name"])
    assert len(seen) == 2
    assert not seen[0].exists()


def test_a_group_whose_reference_ends_its_process_is_given_up(tmp_path):
    other = CASE.with_(length=16)
    left = {(case, "seconds", 0): None for case in (CASE, CASE.with_(strategy=TWIN), WAY, other)}
    writer = store.Writer(tmp_path / "run", HEADER)
    end = supervise.End("crashed", "was killed by signal 11", CASE)
    Supervisor(writer, Counted()).note(end, "block-0", left)
    writer.close()
    assert list(left) == [(other, "seconds", 0)]
    assert {m.state for m in store.read(tmp_path / "run").measurements} == {"crashed"}


def test_what_a_worker_does_is_told_without_a_call_to_the_system(tmp_path):
    doing = Doing(tmp_path / "doing")
    assert doing.told()[0] is None
    Doing(tmp_path / "doing", new=False).tell(WAY)
    told, ago = doing.told()
    assert told == WAY
    assert 0 <= ago < 10
    with doing.resting():
        assert doing.told() == (WAY, -math.inf)
    told, ago = doing.told()
    assert told == WAY
    assert 0 <= ago < 10


class Watched:
    """A worker that runs for as long as there are readings left."""

    pid = 2**22 + 1  # no process has it

    def __init__(self, *ages):
        self.ages = list(ages)

    def poll(self):
        return None if self.ages else 0

    def told(self):
        return CASE, self.ages.pop(0)


def test_one_reading_torn_by_the_workers_writing_is_no_time_out(monkeypatch):
    killed = []
    monkeypatch.setattr(supervise, "_kill", killed.append)
    supervisor = Supervisor(None, Counted(), case_timeout=0.01)
    for ages, expected in (((0, 1e9, 0, 1e9, 0), 0), ((0, 1e9, 1e9, 0), 1)):
        worker, hung = Watched(*ages), threading.Event()
        supervisor._watch(worker, worker, hung)
        assert hung.is_set() == bool(expected)
        assert len(killed) == expected


# -- nothing is lost --


def jobs_of(blocks=2):
    lookups = [Case(model="lookup", strategy=name, layers=12, position=3) for name in ("a", "b")]
    tasks = (*job().tasks, *(planning.Task(suite="lookup", case=case) for case in lookups))
    return [planning.Job(block=block, seed=1, time=grid.Time(), tasks=tasks) for block in range(blocks)]


def test_what_remains_are_tasks_without_a_record_and_whole_groups():
    records = [
        Measurement(case=CASE, metric="seconds", values=(1.0,), block=0),
        Measurement(case=CASE.with_(strategy=TWIN), metric="seconds", values=(1.0,), block=0),
        Measurement(case=jobs_of()[0].tasks[3].case, metric="lookup_seconds", values=(1.0,), block=0),
    ]
    run = Run(header=HEADER, environments=(), measurements=tuple(records))
    first, second = supervise.remaining(jobs_of(), run)
    assert first.tasks == (*jobs_of()[0].tasks[:3], jobs_of()[0].tasks[4])
    assert second == jobs_of()[1]
    records.append(Measurement(case=WAY, metric="seconds", state="crashed", reason="x", block=0))
    run = Run(header=HEADER, environments=(), measurements=tuple(records))
    assert supervise.remaining(jobs_of(), run)[0].tasks == (jobs_of()[0].tasks[4],)


def test_what_was_left_out_for_want_of_time_does_not_remain():
    records = [
        Measurement(case=task.case, metric="seconds", state="skipped", block=0, notes={OVER_BUDGET: "x"})
        for task in job().tasks
    ]
    run = Run(header=HEADER, environments=(), measurements=tuple(records))
    assert [job.tasks for job in supervise.remaining(jobs_of(), run)] == [jobs_of()[0].tasks[3:]] * 2


PLAN = """
name = "fake"
[time]
blocks = 3
[[forward]]
model = ["bert_tiny"]
strategy = ["functional_submodel", "on_request"]
points = ["all"]
mode = ["eager", "graph"]
batch = [1, 2]
length = [8, 16]
[lookup]
layers = [12]
positions = []
"""
TASKS = 3 * (8 * 5 + 4)


def heed_ctrl_c():
    """Done first in a process that is sent SIGINT: whoever runs the tests may ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def fake(tmp_path, *arguments, seconds=0.001, before=None, stderr=subprocess.STDOUT):
    """The command with the fake worker, started. before: what its process does first."""
    return subprocess.Popen(
        [sys.executable, str(fake_run.__file__), str(seconds), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        cwd=tmp_path,
        preexec_fn=before,
    )


def test_a_run_whose_folder_is_deleted_meanwhile_ends_with_one_line(tmp_path):
    (tmp_path / "plan.toml").write_text(PLAN)
    process = fake(tmp_path, "run", "--grid", "plan.toml", "--out", "run", seconds=0.1)
    while not list(tmp_path.glob("run/logs/*.doing")):
        assert process.poll() is None
        time.sleep(0.01)
    (tmp_path / "run").rename(tmp_path / "gone")  # at once: deleting it file by file could meet a new one
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 2, output
    assert (
        output.splitlines()[-1] == "hiddencost: run: was deleted while it was measured: nothing of it is left"
    )
    assert "Traceback" not in output


def test_a_disk_that_is_full_at_the_very_end_is_one_line(tmp_path):
    class Full(store.Writer):
        def write(self, line):
            if isinstance(line, Ending):
                raise OSError(errno.ENOSPC, "No space left on device")

    supervisor = Supervisor(Full(tmp_path / "run", HEADER), Counted())
    with pytest.raises(UserError, match=r"run: ended early: No space left on device\. Go on with what is"):
        supervise.until_interrupted([supervisor], lambda: None)
    supervisor.writer.close()


def test_a_run_whose_first_line_cannot_be_written_leaves_its_folder_to_the_next(tmp_path):
    (tmp_path / "plan.toml").write_text(PLAN)
    given = ("run", "--grid", "plan.toml", "--out", "run")

    def full():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    process = fake(tmp_path, *given, before=full)
    output, _ = process.communicate(timeout=60)
    assert (process.returncode, output.splitlines()[-1]) == (
        2,
        "hiddencost: output folder run: not writable (File too large)",
    )
    output, _ = fake(tmp_path, *given).communicate(timeout=60)
    assert len(store.read(tmp_path / "run").measurements) == TASKS, output


def test_a_run_that_cannot_be_written_on_ends_with_one_line_and_goes_on_once_it_can(tmp_path):
    (tmp_path / "plan.toml").write_text(PLAN)

    def full():
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))

    process = fake(tmp_path, "run", "--grid", "plan.toml", "--out", "run", before=full)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 2, output
    assert (
        output.splitlines()[-1]
        == "hiddencost: run: ended early: File too large. Go on with what is missing: --resume run"
    )
    assert "Traceback" not in output
    kept = len(store.read(tmp_path / "run").measurements)
    assert 0 < kept < TASKS
    output, _ = fake(tmp_path, "run", "--resume", "run").communicate(timeout=60)
    found = store.read(tmp_path / "run").measurements
    assert len({(m.case, m.metric, m.block) for m in found}) == TASKS, output
    assert len(found) <= TASKS + 5  # the group that was cut short is measured again


def workers_of(process):
    """Never what else a run starts, like git."""
    found = []
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children():
            with suppress(psutil.NoSuchProcess):
                found += [child] * ("fake_worker" in str(child.cmdline()))
    return found


@pytest.mark.parametrize("victim", ["supervisor", "worker"])
@pytest.mark.parametrize(
    ("kills", "longest", "seconds"), [(10, 2.5, 0.02), pytest.param(50, 1.5, 0.1, marks=pytest.mark.slow)]
)
def test_a_run_killed_at_any_moment_is_resumed_and_measures_no_group_twice_but_one(
    tmp_path, monkeypatch, victim, kills, longest, seconds
):
    """Kills at random moments of a run, each resumed; then nothing is missing."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # where a killed supervisor leaves an empty folder
    (tmp_path / "plan.toml").write_text(PLAN)
    generator = random.Random(f"{victim}/{kills}")
    process = fake(tmp_path, "run", "--grid", "plan.toml", "--out", "run", seconds=seconds)
    for _ in range(kills):
        with suppress(subprocess.TimeoutExpired):
            process.wait(generator.uniform(0.2, longest))
        workers = workers_of(process)
        if victim == "supervisor":
            process.kill()
            process.communicate()
            psutil.wait_procs(workers, timeout=10)
            assert not [worker for worker in workers if worker.is_running()]
            if (tmp_path / "run" / store.RESULTS).exists():
                store.read(tmp_path / "run")
                process = fake(tmp_path, "run", "--resume", "run", seconds=seconds)
            else:
                process = fake(tmp_path, "run", "--grid", "plan.toml", "--out", "run", seconds=seconds)
        else:
            for worker in workers:
                worker.kill()
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert "Traceback" not in output
    run = store.read(tmp_path / "run")
    keys = [(m.case, m.metric, m.block) for m in run.measurements]
    assert len(set(keys)) == TASKS
    assert len(keys) - TASKS <= kills * 5  # a group of five cases for each kill
    if victim == "supervisor":
        assert {m.state for m in run.measurements} == {"ok"}
    else:
        failed = [m for m in run.measurements if m.state != "ok"]
        assert len(failed) <= kills * 5  # a reference costs its group
    again = fake(tmp_path, "run", "--resume", "run")
    assert again.communicate(timeout=60)[0].startswith("run: nothing is missing")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_asked_to_end_keeps_what_it_has_and_leaves_nothing_behind(tmp_path, monkeypatch, how):
    (tmp_path / "plan.toml").write_text(PLAN)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    process = fake(tmp_path, "run", "--grid", "plan.toml", "--out", "run", seconds=0.2, before=heed_ctrl_c)
    results = tmp_path / "run" / store.RESULTS
    while not results.exists() or b'"measurement"' not in results.read_bytes():
        assert process.poll() is None
        time.sleep(0.01)
    workers = psutil.Process(process.pid).children(recursive=True)
    assert workers
    assert list((tmp_path / "temporary").iterdir())
    process.send_signal(how)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    psutil.wait_procs(workers, timeout=10)
    assert not [worker for worker in workers if worker.is_running()]
    assert store.read(tmp_path / "run").ending.how == "interrupted"
    assert not list((tmp_path / "temporary").iterdir())


def test_a_run_that_lacks_its_last_line_alone_is_completed(tmp_path):
    """As where the disk was full by then: else it would be refused as not complete for ever."""
    (tmp_path / "plan.toml").write_text(PLAN)
    fake(tmp_path, "run", "--grid", "plan.toml", "--out", "run").communicate(timeout=60)
    path = tmp_path / "run" / store.RESULTS
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    assert store.read(tmp_path / "run").ending is None
    before = store.read(tmp_path / "run").measurements
    again = fake(tmp_path, "run", "--resume", "run")
    assert again.communicate(timeout=60)[0].startswith("run: nothing is missing")
    assert again.returncode == 0
    run = store.read(tmp_path / "run")
    assert run.ending.how == "complete"
    assert run.measurements == before


def test_resuming_is_refused_in_one_line_where_it_would_mix_what_cannot_be_compared(tmp_path):
    (tmp_path / "plan.toml").write_text(PLAN)
    fake(tmp_path, "run", "--grid", "plan.toml", "--out", "run").communicate(timeout=60)
    path = tmp_path / "run" / store.RESULTS
    whole = path.read_text()

    def refused(*arguments):
        process = fake(tmp_path, "run", "--resume", "run", *arguments)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 2, output
        return output.strip()

    assert refused("--seq", "8", "--", "-k", "x") == (
        "hiddencost: --resume takes the plan from the run: leave out --seq, what follows --"
    )
    path.write_text(whole.replace('"cores":', '"cores":9'))
    assert "run: cannot be resumed: cores was 9" in refused()
    path.write_text(re.sub(r'"numpy":"[^"]*"', '"numpy":"0.1"', whole))
    assert re.search(r"cannot be resumed: numpy was 0\.1 and is \d.*\. Start a new run", refused())
    path.write_text(re.sub(r'"git_commit":"[^"]*"', '"git_commit":"abc"', whole))
    assert "hiddencost's commit was abc and is" in refused()
    path.write_text(whole.replace('"plan":', '"plane":'))
    assert "cannot be resumed: its first line does not hold its plan" in refused()
    path.write_text(whole)
    assert (
        refused("--executor", "ray")
        == "hiddencost: run: was measured on one machine: leave out --executor ray"
    )
    path.write_text(whole.replace('"cores":', '"node":"n/1","cores":'))
    assert refused() == "hiddencost: run: was measured on a cluster: add --executor ray"
    path.write_text(whole)
    with open(path, "r+b") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        path.write_text(whole[: whole.index('{"type":"measurement"')])
        assert refused() == "hiddencost: run: another hiddencost is writing to this run"
