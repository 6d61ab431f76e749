"""What the suites in `bench/` stand on: a pytest plugin that turns a job into parametrized tests, gives
them what they measure with, and reports each record as it comes.

Started by `hiddencost run` with `--jobs FILE --report-fd N`; with neither, `pytest bench/` measures a
grid (`--grid`, the smoke grid by default) and reports through pytest-benchmark alone. Times of a group
are taken in one rotation when the group's first test asks for them; pytest-benchmark is then given the
samples through its `timer` option (see Replay).
"""

from __future__ import annotations

import os
import random
import socket
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from hiddencost import (
    backends,
    environment,
    grid,
    lookups,
    measure,
    memory,
    models,
    own,
    peers,
    rotation,
    store,
    strategies,
    survey,
)
from hiddencost.doing import START_ANEW, Doing, end_with
from hiddencost.errors import UserError
from hiddencost.grid import checking, planning
from hiddencost.grid.checking import Catalogue
from hiddencost.grid.planning import METRIC_OF_SUITE, ROTATED, Job, Task
from hiddencost.records import OVER_BUDGET, REFERENCE, TWIN, Case, Environment, Measurement
from hiddencost.turns import Turns

CATALOGUE = Catalogue(
    strategies=tuple(
        dict.fromkeys(
            one.name
            for one in (*strategies.STRATEGIES, *(way for peer in peers.PEERS.values() for way in peer.ways))
        )
    ),
    check_backend=backends.check,
    check_device=backends.check_device,
    check_strategy=own.check,
    check_model=models.check,
    max_length=models.max_length,
    blocks=models.blocks,
    surveyed=tuple(survey.SURVEYED),
)


FOR_OPTIONAL = 0.7
"""Share of a block's time within which an optional group may begin. The rest goes to more rounds of all."""


class Replay:
    """A timer for pytest-benchmark that plays durations which were recorded before.

    pytest-benchmark reads its timer before and after each round; the difference is the next duration.
    """

    __name__ = "replay"

    def __init__(self) -> None:
        self._durations: Iterator[float] = iter(())
        self._now = 0.0
        self._within = False

    def __call__(self) -> float:
        if self._within:
            self._now += next(self._durations, 0.0)
        self._within = not self._within
        return self._now

    def play(self, seconds: Sequence[float]) -> Callable[[], None]:
        """Loads the durations of the next rounds; the function to benchmark does nothing."""
        self._durations, self._within = iter(seconds), False
        return lambda: None


REPLAY = Replay()


class Reporter:
    """Writes records to the supervisor's pipe, one line each; nowhere without one."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def __call__(self, record: Measurement | Environment) -> None:
        if self._descriptor is not None:
            os.write(self._descriptor, store.encode(record))


class Measured:
    """What a session of one or more jobs has measured, and how it measures more."""

    def __init__(
        self,
        jobs: Sequence[Job],
        report: Reporter,
        tell: Callable[[Case], None] = lambda case: None,
        turns: Turns | None = None,
    ) -> None:
        self.jobs = jobs
        self.report = report
        self.tell = tell
        self.turns = turns
        self._began = time.perf_counter()
        self._process: measure.Process | None = None
        self._groups: set[Case] = set()
        self._found: dict[tuple[Case, str], Measurement] = {}

    @property
    def process(self) -> measure.Process:
        """This process with its backend started, which is done at the first request."""
        if self._process is None:
            job = self.jobs[0]
            seconds, threads = backends.start(job.backend, job.time.threads, job.device)
            self._process = measure.Process(
                job.block, job.seed, job.time, self.tell, self.turns, job.fault, job.meeting
            )
            self.report(environment.capture(job.block, threads, threads["intra_op"], *job.ground))
            for package, taken in seconds.items():
                case = Case(model="import", strategy=package, backend=job.backend, device=job.device)
                self.keep(self._process.measurement(case, "import_seconds", [taken]))
        return self._process

    def keep(self, record: Measurement | Environment) -> None:
        """Reports a record, and keeps a measurement for the test that asks for it."""
        while self._process and self._process.loads:
            self.report(self._process.loads.pop())
        self.report(record)
        if isinstance(record, Measurement):
            self._found[record.case, record.metric] = record
            # It is this process that holds the device, not a child that reads its memory: what is left of a
            # full one would not be what the next case has.
            if record.state == "out_of_memory" and record.case.device == "gpu" and self._process:
                os._exit(START_ANEW)

    def keep_of(self, task: Task, record: Measurement) -> None:
        """Keeps a measurement of a process that takes no times: it may have several jobs, and the block is
        that of the task's own."""
        block = next(job.block for job in self.jobs if task in job.tasks)
        self.keep(msgspec.structs.replace(record, block=block))

    def timed(self, task: Task, selected: Callable[[], Iterable[Task]]) -> Measurement:
        """The times of a task's case; its whole group is measured at the first request, and so are all
        look-ups."""
        if task.suite == "lookup":
            if (task.case, "lookup_seconds") not in self._found:
                cases = [t.case for t in selected() if t.suite == "lookup"]
                with self.turns.alone() if self.turns else nullcontext():
                    for record in lookups.lookups(self.process, cases):
                        self.keep(record)
            return self._found[task.case, "lookup_seconds"]
        group = self.jobs[0].rotates(task.case)
        if group not in self._groups:
            self._groups.add(group)
            job = self.jobs[0]
            chosen = {t.case: t for t in selected() if t.suite in ROTATED and job.rotates(t.case) == group}
            if all(t.optional for t in chosen.values()) and (reason := self._over_budget()):
                for case in chosen:
                    record = self.process.failure(case, "seconds", "skipped", reason)
                    self.keep(msgspec.structs.replace(record, notes={OVER_BUDGET: reason}))
                return self._found[task.case, "seconds"]
            groups = {case.group for case in chosen}
            for planned in job.tasks:  # a selection keeps its reference and its twin
                if planned.case.group in groups and planned.case.strategy in (REFERENCE, TWIN):
                    chosen.setdefault(planned.case, planned)
            for record in rotation.rotation(self.process, list(chosen.values())):
                self.keep(record)
        return self._found[task.case, "seconds"]

    def _over_budget(self) -> str:
        """Why nothing optional is begun any more in this block, or ''. The first block decides for all."""
        job = self.jobs[0]
        if job.block or job.time.budget is None:
            return ""
        spent, share = time.perf_counter() - self._began, job.time.budget / job.time.blocks
        if spent < FOR_OPTIONAL * share:
            return ""
        return (
            f"left out: this machine used up {FOR_OPTIONAL:.0%} of a block's share ({share:.0f} s) of the "
            f"time budget of {job.time.budget:g} s; a larger --budget measures it"
        )

    def memory(self, task: Task) -> Measurement:
        """The peak of a task's case; the process of its whole job is run at the first request."""
        metric = METRIC_OF_SUITE[task.suite]
        if (task.case, metric) not in self._found:
            read = {"memory": memory.heap, "resident": memory.resident, "device": memory.device}[task.suite]
            for record in read(next(job for job in self.jobs if task in job.tasks), tell=self.tell):
                self.keep(record)
        return self._found[task.case, metric]


def ok(measurement: Measurement) -> Sequence[float]:
    """The values, or the test's outcome: skipped with the reason, or failed with it."""
    if measurement.state == "skipped":
        pytest.skip(measurement.reason)
    if measurement.state != "ok":
        pytest.fail(f"{measurement.state}: {measurement.reason}", pytrace=False)
    return measurement.values


def resident_bytes() -> int:
    """This process's resident set."""
    return int(psutil.Process().memory_info().rss)


# -- pytest's hooks and fixtures, imported by bench/conftest.py --


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("hiddencost")
    group.addoption("--jobs", metavar="FILE", help="planned jobs, as `hiddencost run` writes them")
    group.addoption("--report-fd", type=int, metavar="N", help="file descriptor that takes the records")
    group.addoption("--doing", metavar="FILE", help="file that tells which case the process is at")
    group.addoption("--lifeline-fd", type=int, metavar="N", help="pipe whose end ends this process")
    group.addoption("--turns-fd", type=int, metavar="N", help="socket of who says whose turn it is")
    group.addoption("--grid", default="smoke", metavar="NAME", help="grid to measure without --jobs")


def pytest_configure(config: pytest.Config) -> None:
    try:
        jobs = _jobs(config)
    except UserError as error:
        raise pytest.UsageError(str(error)) from None
    file, lifeline = config.getoption("--doing"), config.getoption("--lifeline-fd")
    doing = Doing(Path(file), new=False) if file else None
    tell = doing.tell if doing else lambda case: None
    turns = _turns(config, doing.resting if doing else nullcontext)
    config.stash[MEASURED] = Measured(jobs, Reporter(config.getoption("--report-fd")), tell, turns)
    if lifeline is not None:
        end_with(lifeline)


MEASURED = pytest.StashKey[Measured]()


def _jobs(config: pytest.Config) -> list[Job]:
    path = config.getoption("--jobs")
    if path:
        return msgspec.json.decode(Path(path).read_bytes(), type=list[Job])
    source = grid.grid_path(config.getoption("--grid"))
    planned, _ = grid.read(source)
    checking.check(planned, CATALOGUE, f"grid {source}")
    jobs = [*planning.timed_jobs(planned)[:1], *planning.memory_jobs(planned)]
    return [job for job in jobs if job.ground == jobs[0].ground]  # a process has the settings of one


def _turns(config: pytest.Config, resting: Callable[[], AbstractContextManager[None]]) -> Turns | None:
    descriptor = config.getoption("--turns-fd")
    return None if descriptor is None else Turns(socket.socket(fileno=descriptor), resting)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`test_forward(task, ...)` gets the tasks of the suite `forward`, and so on."""
    if "task" not in metafunc.fixturenames:
        return
    suite = metafunc.function.__name__.removeprefix("test_")
    jobs = metafunc.config.stash[MEASURED].jobs
    tasks = [task for job in jobs for task in job.tasks if task.suite == suite]
    metafunc.parametrize("task", tasks, ids=[str(task.case) for task in tasks])


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Timed groups come in this block's own order, drawn from the recorded seed; what is optional comes
    last in the first block, as planned. Data sets of several sizes stay together, in the order planned."""
    jobs = config.stash[MEASURED].jobs
    if not jobs:
        return
    key = f"{jobs[0].seed}/{jobs[0].block}"
    tasks = [task for job in jobs for task in job.tasks]
    needed = {task.case.group for task in tasks if not task.optional}

    def order(item: pytest.Item) -> tuple[int, int]:
        task = _task(item)
        if task is None or task.suite in ("memory", "resident", "device", "points"):
            return 2, 0
        if jobs[0].block == 0 and task.case.group not in needed:
            return 1, 0
        rotated = task.suite in ROTATED
        place = str(jobs[0].rotates(task.case.with_(examples=None)) if rotated else task.case)
        return 0, random.Random(zlib.crc32(f"{key}/{task.suite}/{place}".encode())).randrange(2**31)

    items.sort(key=order)


def _task(item: pytest.Item) -> Task | None:
    found = getattr(item, "callspec", None)
    return found.params.get("task") if found else None


def pytest_benchmark_generate_machine_info(config: pytest.Config) -> dict[str, Any]:
    """The environment as pytest-benchmark's JSON keeps it."""
    captured = environment.capture(0, {}, own_load=environment.cores())
    return {"node": "", "cpu": captured.processor, **msgspec.to_builtins(captured)}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Growth is measured in its tests, and so is what is found: what they are at is told, an error is a
    record."""
    task = _task(item)
    if task is None or task.suite not in ("growth", "points"):
        return (yield)
    measured = item.config.stash[MEASURED]
    measured.tell(task.case)
    try:
        with measured.turns.alone() if measured.turns else nullcontext():
            return (yield)
    except Exception as error:
        metric, state = METRIC_OF_SUITE[task.suite], measure.state_of(error)
        measured.keep_of(task, measured.process.failure(task.case, metric, state, measure.told(error)))
        raise


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Measured:
    return request.config.stash[MEASURED]


@pytest.fixture
def times(measured: Measured, request: pytest.FixtureRequest, task: Task) -> Sequence[float]:
    """The seconds of the task's case, a round each."""
    return ok(measured.timed(task, lambda: filter(None, map(_task, request.session.items))))


@pytest.fixture
def peak(measured: Measured, task: Task) -> Sequence[float]:
    """The peak of the task's case in bytes."""
    return ok(measured.memory(task))
