"""Starts the processes that measure, stores what they report, and shows how far they are.

Each process is one `pytest bench/test_SUITE.py ...` that is given a job or several and writes its
records, a line each, to a pipe; this process is the only writer of the run folder. Timing blocks run one
at a time; memory jobs, whose readings do not depend on what else runs, are dealt to two processes.
"""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import IO, Protocol

import msgspec

from hiddencost import backends
from hiddencost.columns import columns_of
from hiddencost.doing import START_ANEW, Doing
from hiddencost.environment import out_of_memory_kills
from hiddencost.errors import UserError
from hiddencost.grid import bench_folder
from hiddencost.grid.planning import METRIC_OF_SUITE, ROTATED, Fault, Job, Meeting
from hiddencost.keeping import now
from hiddencost.nursery import Forked, Nursery, worker_environment
from hiddencost.records import (
    OVER_BUDGET,
    REFERENCE,
    Case,
    Ending,
    Environment,
    Line,
    Lost,
    Measurement,
    Origin,
    Run,
    State,
)
from hiddencost.turns import Round, conduct, in_any_order, there_and_back

MEMORY_WORKERS = 2
LEAST_SCALE, MOST_SCALE = 0.3, 10.0
"""How far a budget may shorten or lengthen the rotations that the grid plans. Shorter ones save little:
what takes time then is tracing, and the groups that need it for their fewest rounds anyway."""
PYTEST_USAGE_ERROR = 4
PYTEST_OPTIONS = ("-q", "-p", "pytest_benchmark.plugin", "-p", "no:unraisableexception", "--assert=plain")
"""How a process runs pytest: with the one plugin that the suites need (worker_environment keeps those that
happen to be installed away), and without what only tests want. Hypothesis's plugin, the rewriting of
assertions and the collection of garbage at the end took a quarter of the time that a block takes to get ready
(a decision of the gate on 8 blocks: 78 s without, 100 s with them)."""


class Progress(Protocol):
    """What is told while a run goes on: `total` tasks, each one told when it is done."""

    def done(self, label: str, count: int) -> None: ...


class Untold:
    """The progress of a run that nobody follows."""

    def done(self, label: str, count: int) -> None:
        pass


Worker = subprocess.Popen[bytes] | Forked
Left = dict[tuple[Case, str, int], None]
"""(case, metric, block) of what a process has still to report, in order."""


class Writes(Protocol):
    """Where records go: a run folder, or, from a node of a cluster, to the supervisor of the run. folder: for
    logs, and for what pytest-benchmark writes."""

    @property
    def folder(self) -> Path: ...

    def write(self, line: Line) -> None: ...


CASE_TIMEOUT = 300.0
"""Seconds after which a case that shows no sign of life is given up."""


@dataclass(frozen=True)
class End:
    """How a process ended that left something undone, and the case that it was at. anew: it said that a new
    one is to go on. killed: by a signal, and did not end by itself."""

    state: State
    reason: str
    case: Case | None = None
    anew: bool = False
    killed: bool = False

    def blames_one_of(self, left: Left) -> bool:
        """Whether the case that it was at is not done yet."""
        return any(case == self.case for case, *_ in left)


@dataclass
class Supervisor:
    """One run: the writer of its folder, what is told of it, and the workers that are alive. temporary: the
    folder for what they leave when they are killed, where it is not the system's."""

    writer: Writes
    progress: Progress
    pytest_arguments: Sequence[str] = ()
    case_timeout: float = CASE_TIMEOUT
    nurseries: Mapping[tuple[str, str], Nursery] = field(default_factory=dict)  # fork workers, by ground
    bench: Path = field(default_factory=bench_folder)
    temporary: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _rotated: dict[Origin, float] = field(
        default_factory=partial(defaultdict, float)
    )  # seconds of timed calls
    _left_out: set[Case] = field(default_factory=set)
    _too_large: set[Case] = field(default_factory=set)
    _given_up: dict[Case, tuple[End, int, str]] = field(default_factory=dict)  # by turns: block, log
    _alive: set[Worker] = field(default_factory=set)
    _stopped: bool = False

    def run(self, timed: Sequence[Job], memory: Sequence[Job]) -> str:
        """Runs all jobs here. Returns `complete` or `interrupted`; what was measured is stored either way,
        and no process is left behind."""
        with temporary_folder() as self.temporary:
            return until_interrupted([self], lambda: self.work(timed, memory))

    def work(self, timed: Sequence[Job], memory: Sequence[Job]) -> None:
        """Runs all jobs here, however that ends."""
        self._work_together([job for job in timed if job.together])
        self._work_in_turn([job for job in timed if not job.together])
        self._work_side_by_side(memory)

    def _work_in_turn(self, jobs: Sequence[Job]) -> None:
        """Timing blocks, as long as the budget allows."""
        pace = Pace(jobs)
        for job in jobs:
            began, scale = time.perf_counter(), pace.scale(job)
            self._work([self.to_measure(job, scale)])
            pace.learn(job, scale, time.perf_counter() - began, self.rotated(job))

    def to_measure(self, job: Job, scale: float) -> Job:
        """What is measured of a timing block, with its rotations multiplied: without what the first one has
        left out, which is told."""
        kept = paced(job, scale, self._left_out)
        if len(kept.tasks) < len(job.tasks):
            self.progress.done("left out", len(job.tasks) - len(kept.tasks))
        return kept

    def rotated(self, job: Job) -> float:
        """Seconds of the timed calls of a block."""
        return self._rotated.get(job.origin, 0.0)

    def lose(self, jobs: Sequence[Job], left: Left, reason: str) -> None:
        """What has arrived of these jobs does not count, and all of it is `left` again."""
        every = all_of(jobs)
        with self._lock:
            for job in jobs:
                self.writer.write(lost(job, reason))
                self._rotated.pop(job.origin, None)
                self._left_out -= {task.case for task in job.tasks}
            self.progress.done("lost", len(left) - len(every))
        left.update(every)

    def _work_together(self, jobs: Sequence[Job]) -> None:
        """Timing blocks in which all backends and devices take turns, each in a process of its own."""
        values = self.writer.folder.resolve() / "logs" / "values"
        for block in dict.fromkeys(job.block for job in jobs):
            values.mkdir(parents=True, exist_ok=True)
            mine = [job for job in jobs if job.block == block]
            meeting = Meeting(backend=mine[0].backend, values=str(values))
            hands = [(self, msgspec.structs.replace(job, meeting=meeting)) for job in mine]
            _by_turns(hands, in_any_order, mine[0])

    def work_by_ground(self, jobs: Sequence[Job]) -> None:
        """Memory jobs, in a process for each backend and device: it has the settings of one."""
        for alike in by_ground(jobs).values():
            self._work(alike)

    def _work_side_by_side(self, jobs: Sequence[Job]) -> None:
        hands: list[Sequence[Job]] = []
        for (_, device), alike in by_ground(jobs).items():
            if device == "cpu":
                hands += filter(None, (alike[i::MEMORY_WORKERS] for i in range(MEMORY_WORKERS)))
            else:  # which has room for one
                self._work(alike)
        _at_once([self], [partial(self._work, hand) for hand in hands], most=MEMORY_WORKERS)

    def stop(self) -> None:
        """Ends all workers, and lets none begin."""
        with self._lock:
            self._stopped = True
            for worker in self._alive:
                _kill(worker)

    def _work(self, jobs: Sequence[Job]) -> None:
        """Measures the jobs in a process. Where it dies or hangs, the case that it was at is noted, and a
        new process goes on with what is left; a group that was cut short is measured again. Once that is
        done without blaming a case, where it was killed at none."""
        attempt, blameless = 0, False
        while jobs and not self._stopped:
            left = all_of(jobs)
            name = jobs[0].name + (f"-again-{attempt}" if attempt else "")
            end = self._worker(jobs, name, left)
            if self._stopped or self.pytest_arguments or not left:
                return
            given_up: Collection[Case]
            if end.anew:
                given_up = self._too_large
            elif end.killed and not blameless and not end.blames_one_of(left):
                given_up, blameless = (), True
            else:
                given_up = self.note(end, name, left)
            jobs = unfinished(jobs, left.keys(), given_up)
            attempt += 1

    def _work_by_turns(self, job: Job, name: str, left: Left, turns: socket.socket) -> End | None:
        """Measures the job in one process that takes turns with others, and takes what is done from `left`.
        How it ended, where that was early."""
        with turns:
            end = self._worker([job], name, left, turns)
        if end.anew:
            at = next(task.case for task in job.tasks if task.case in self._too_large)
            end = replace(end, case=at)
        return end if left and not self._stopped else None

    def kept(self, job: Job) -> Job:
        """The job without what a process that took turns has ended at."""
        tasks = tuple(task for task in job.tasks if task.case not in self._given_up)
        return msgspec.structs.replace(job, tasks=tasks)

    def tell_given_up(self, job: Job) -> None:
        """A record for each case of a block at which a process ended, in this block or in one before."""
        for case, metric, block in all_of([job]):
            if case in self._given_up:
                end, ended_in, name = self._given_up[case]
                why = f"its process {end.reason} (see logs/{name}.log)"
                if block != ended_in:
                    why = f"not tried again: in block {ended_in} its process {end.reason}"
                self._note_one((case, metric, block), end.state, why)

    def give_up(self, end: End, job: Job, name: str, left: Left) -> None:
        """What the process was at when it ended is not tried by turns again."""
        for case, _, _ in self._blamed(end, left):
            self._given_up[case] = end, job.block, name

    def _worker(
        self,
        jobs: Sequence[Job],
        name: str,
        left: Left,
        turns: socket.socket | None = None,
    ) -> End:
        """One process: starts it, stores its records as they come, and ends it where a case hangs."""
        log = self.writer.folder / "logs" / f"{name}.log"
        log.parent.mkdir(exist_ok=True)
        doing = Doing(log.with_suffix(".doing"))
        kills_before = out_of_memory_kills()
        with open(log, "wb") as log_file, _pipe() as (records, sender), _pipe() as (alive, _lifeline):
            with self._lock:
                if self._stopped:
                    return End("crashed", "was not started")
                pipes = {
                    "--report-fd": sender.fileno(),
                    "--lifeline-fd": alive.fileno(),
                }
                if turns:
                    pipes["--turns-fd"] = turns.fileno()
                worker = self._start(jobs, name, pipes, log_file)
                self._alive.add(worker)
            if turns:
                turns.close()
            sender.close()
            hung = threading.Event()
            watch = threading.Thread(target=self._watch, args=(worker, doing, hung), daemon=True)
            watch.start()
            for line in records:
                self._store(line, left)
            code = worker.wait()
            watch.join()
            with self._lock:
                self._alive.discard(worker)
                _kill(worker)  # a process that it started may have outlived it
        if code == PYTEST_USAGE_ERROR:
            raise UserError(
                f"pytest refused its arguments {list(self.pytest_arguments)}: see {log} (a plugin's own take "
                "-p and the plugin's name too)"
            )
        case, _ = doing.told()
        log.with_suffix(".doing").unlink()
        if code == START_ANEW:
            return End("out_of_memory", "had no memory left", anew=True)
        if hung.is_set():
            return End("timeout", f"hung for more than {self.case_timeout:g} s", case)
        if code == -signal.SIGKILL and out_of_memory_kills() > kills_before:
            return End("out_of_memory", "was killed by the kernel for want of memory", case, killed=True)
        if code < 0:
            return End("crashed", f"was killed by signal {-code}", case, killed=True)
        return End("crashed", f"ended with code {code}", case)

    def _watch(self, worker: Worker, doing: Doing, hung: threading.Event) -> None:
        """Ends a worker whose case hangs, and sets `hung`."""
        late = 0
        while worker.poll() is None:
            case, seconds = doing.told()
            most = self.case_timeout if case else max(self.case_timeout, CASE_TIMEOUT)  # it still begins
            late = late + 1 if seconds > most else 0
            if late == 2:  # one reading may have been torn by the worker's writing
                hung.set()
                _kill(worker)
            time.sleep(min(0.1, self.case_timeout / 4))

    def _start(
        self,
        jobs: Sequence[Job],
        name: str,
        pipes: Mapping[str, int],
        log_file: IO[bytes],
    ) -> Worker:
        folder = self.writer.folder.resolve()
        jobs_file = folder / "logs" / f"{name}.jobs.json"
        jobs_file.write_bytes(msgspec.json.encode(jobs))
        (folder / "pytest-benchmark").mkdir(exist_ok=True)
        suites = {str(self.bench / f"test_{task.suite}.py") for job in jobs for task in job.tasks}
        arguments = [
            *PYTEST_OPTIONS,
            f"--rootdir={self.bench}",
            f"-c={self.bench / 'pytest.ini'}",
            *sorted(suites),
        ]
        arguments += [f"--jobs={jobs_file}", f"--doing={folder / 'logs' / name}.doing"]
        arguments += [f"--benchmark-storage=file://{folder / 'pytest-benchmark'}"]  # not in the user's folder
        arguments += [f"--benchmark-json={folder / 'pytest-benchmark' / name}.json", *self.pytest_arguments]
        if self.nurseries:
            return self.nurseries[jobs[0].ground].start(arguments, pipes, log_file)
        numbers = [f"{option}={descriptor}" for option, descriptor in pipes.items()]
        programs = str(folder / "logs" / "programs")
        kept = backends.find(jobs[0].backend).keeping(programs) if jobs[0].time.keep_programs else {}
        return subprocess.Popen(
            [sys.executable, "-m", "pytest", *numbers, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log_file,
            stderr=subprocess.STDOUT,
            pass_fds=list(pipes.values()),
            start_new_session=True,
            env={**worker_environment(os.environ), **kept, **in_folder(self.temporary)},
        )

    def _store(self, line: bytes, left: Left) -> None:
        if not line.endswith(b"\n"):
            return  # the worker was killed while it wrote
        self.keep(msgspec.json.decode(line, type=Measurement | Environment), left)

    def keep(self, record: Measurement | Environment, left: Left) -> None:
        """Stores a record, tells it, and takes what it is of from what is `left`."""
        with self._lock:
            self.writer.write(record)
            if isinstance(record, Environment):
                return
            if record.state == "out_of_memory":
                self._too_large.add(record.case)
            if OVER_BUDGET in record.notes:
                self._left_out.add(record.case)
            if record.metric == "seconds":
                self._rotated[record.origin] += sum(record.values)
            key = (record.case, record.metric, record.block)
            if key in left:
                del left[key]
                self.progress.done(str(record.case), 1)

    def note(self, end: End, name: str, left: Left) -> set[Case]:
        """A record for what the process was at when it ended, taken out of `left`. That is one case;
        all of a group whose reference it was, as nothing there can be compared; and everything where it
        is not known, or was done already. name: of its log, or ''. Returns those cases."""
        given_up = self._blamed(end, left) or list(left)
        for key in given_up:
            self._note_one(
                key, end.state, f"its process {end.reason}" + f" (see logs/{name}.log)" * bool(name)
            )
            del left[key]
        return {case for case, _, _ in given_up}

    def _blamed(self, end: End, left: Left) -> list[tuple[Case, str, int]]:
        """What is left of the case that the process was at, or of the group whose reference it was."""
        at = [key for key in left if key[0] == end.case]
        if end.case is not None and end.case.strategy == REFERENCE:
            at = [key for key in left if key[0].group == end.case and key[1] == "seconds"] or at
        return at

    def _note_one(self, key: tuple[Case, str, int], state: State, reason: str) -> None:
        case, metric, block = key
        with self._lock:
            self.writer.write(
                Measurement(
                    case=case, metric=metric, state=state, reason=f"block {block}: {reason}", block=block
                )
            )
            self.progress.done(str(case), 1)


def temporary_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder of the system's that is gone when the block ends, whatever is in it."""
    return tempfile.TemporaryDirectory(prefix="hiddencost-", ignore_cleanup_errors=True)


def in_folder(temporary: str) -> dict[str, str]:
    """The variables of a process whose temporary files are to lie there; '': where the system has them."""
    return {"TMPDIR": temporary} if temporary else {}


def until_interrupted(supervisors: Sequence[Supervisor], work: Callable[[], None]) -> str:
    """Does the work, ends all workers and writes the last line of each run: `complete` or `interrupted`.
    Raises UserError where a run's files cannot be written any more."""
    began = time.perf_counter()
    how = "complete"
    try:
        work()
    except KeyboardInterrupt:
        how = "interrupted"
    except OSError as error:  # of this process: those of workers are theirs
        raise _ended_early(supervisors[0].writer.folder, error) from None
    finally:
        for supervisor in supervisors:
            supervisor.stop()
    ending = Ending(finished=now(), how=how, seconds=round(time.perf_counter() - began, 1))
    for supervisor in supervisors:
        try:
            supervisor.writer.write(ending)
        except OSError as error:
            raise _ended_early(supervisor.writer.folder, error) from None
    return how


def _ended_early(folder: Path, error: OSError) -> UserError:
    if not folder.is_dir():
        return UserError(f"{folder}: was deleted while it was measured: nothing of it is left")
    why = error.strerror or error
    return UserError(f"{folder}: ended early: {why}. Go on with what is missing: --resume {folder}")


def side_by_side(
    before: Supervisor,
    after: Supervisor,
    timed: Sequence[Job],
    memory: Sequence[Job],
    fault: Fault | None = None,
) -> str:
    """Runs all jobs on both sides, each block in two processes that take turns; who leads changes from block
    to block. fault: what the side after is made worse by. Returns `complete` or `interrupted`."""
    alike = fault and Fault(strategy=fault.strategy, slower=fault.slower, untimed=True)

    def like(job: Job) -> Job:
        return msgspec.structs.replace(job, fault=alike)

    def worse(job: Job) -> Job:
        return msgspec.structs.replace(job, fault=fault)

    def work() -> None:
        for job in timed:
            _by_turns([(before, like(job)), (after, worse(job))], there_and_back(leader=job.block % 2), job)
        calls = [
            partial(before.work_by_ground, memory),
            partial(after.work_by_ground, [worse(job) for job in memory]),
        ]
        # A GPU has room for one.
        _at_once([before, after], calls, most=1 if any(job.device != "cpu" for job in memory) else None)

    return until_interrupted([before, after], work)


Hand = tuple[Supervisor, Job]


def by_ground(jobs: Sequence[Job]) -> dict[tuple[str, str], list[Job]]:
    """The jobs of each backend and device, in order."""
    found: dict[tuple[str, str], list[Job]] = defaultdict(list)
    for job in jobs:
        found[job.ground].append(job)
    return found


def _by_turns(hands: Sequence[Hand], one_round: Round, job: Job) -> None:
    """Measures the jobs at the same time, each in a process that takes turns with the others. Where one ends
    early, at a case, all are measured again without it. job: whose seed, block and rounds all of them have.
    """
    every = hands
    for attempt in itertools.count():
        hands = [(supervisor, kept) for supervisor, own in every if (kept := supervisor.kept(own)).tasks]
        lefts = [all_of([own]) for _, own in hands]
        names = [own.name + (f"-again-{attempt}" if attempt else "") for _, own in hands]
        ends = _in_turn(hands, names, lefts, one_round, job)
        early = [
            (supervisor, own, name, left, end)
            for (supervisor, own), name, left, end in zip(hands, names, lefts, ends, strict=True)
            if end
        ]
        blamed = [one for one in early if one[4].anew or one[4].blames_one_of(one[3])]
        if not blamed:
            for supervisor, _, name, left, end in early:
                supervisor.note(replace(end, case=None), name, left)
            for supervisor, own in every:  # now that nothing of the block will be lost
                supervisor.tell_given_up(own)
            return
        for (supervisor, own), left in zip(hands, lefts, strict=True):
            supervisor.lose([own], left, "measured again without what a process ended at")
        for supervisor, own, name, left, end in blamed:
            supervisor.give_up(end, own, name, left)


def _in_turn(
    hands: Sequence[Hand], names: Sequence[str], lefts: Sequence[Left], one_round: Round, job: Job
) -> list[End | None]:
    """Each in a process of its own, once. How those ended that ended early."""
    pairs = [socket.socketpair() for _ in hands]
    mine = [pair[0] for pair in pairs]
    ends: list[End | None] = [None for _ in hands]

    def work(place: int) -> None:
        supervisor, own = hands[place]
        ends[place] = supervisor._work_by_turns(own, names[place], lefts[place], pairs[place][1])

    calls = [partial(work, place) for place in range(len(hands))]
    try:
        _at_once(
            [supervisor for supervisor, _ in hands],
            calls,
            lambda: conduct(mine, one_round, job.time.min_rounds, f"{job.seed}/{job.block}"),
        )
    finally:
        for connection in mine:
            connection.close()
    return ends


def _at_once(
    supervisors: Sequence[Supervisor],
    calls: Sequence[Callable[[], None]],
    meanwhile: Callable[[], None] = lambda: None,
    most: int | None = None,
) -> None:
    """Makes the calls in threads, at most so many at a time, and does something meanwhile in this one. When
    it is interrupted, the supervisors' workers are ended."""
    with ThreadPoolExecutor(most or max(1, len(calls))) as pool:
        try:
            working = [pool.submit(call) for call in calls]
            meanwhile()
            for hand in working:
                hand.result()
        except KeyboardInterrupt:
            for supervisor in supervisors:
                supervisor.stop()  # or leaving the pool would wait for the workers
            raise


@contextmanager
def _pipe() -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """A pipe's read and write end."""
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb") as reader, os.fdopen(write_end, "wb", 0) as writer:
        yield reader, writer


def lost(job: Job, reason: str) -> Lost:
    """What tells that a job's records so far do not count."""
    return Lost(block=job.block, backend=job.backend, device=job.device, reason=reason)


def all_of(jobs: Sequence[Job]) -> Left:
    return {(task.case, METRIC_OF_SUITE[task.suite], job.block): None for job in jobs for task in job.tasks}


def remaining(jobs: Sequence[Job], run: Run) -> list[Job]:
    """What is still to be measured of a run that ended early: every task without a record, with the
    whole of its group where they are timed in rotation; never what was left out for want of time."""
    missing = set(all_of(jobs))
    found = columns_of(run)
    missing.difference_update(found.keys(found.of({metric for _, metric, _ in missing})))
    return unfinished(jobs, missing, set(found.met(found.with_note(OVER_BUDGET.__eq__))))


def unfinished(
    jobs: Sequence[Job], missing: Collection[tuple[Case, str, int]], given_up: Collection[Case]
) -> list[Job]:
    """The jobs with the tasks whose (case, metric, block) is missing, and the whole of their groups where
    those are timed in rotation; without the cases that are given up. Jobs without tasks are left out."""
    groups = {(case.group, block) for case, metric, block in missing if metric == "seconds"}
    blocks = {block for _, metric, block in missing if metric == "seconds"}
    left = []
    for job in jobs:
        if job.together and job.block in blocks:  # all that takes turns is measured again
            left.append(job)
            continue
        tasks = tuple(
            t
            for t in job.tasks
            if t.case not in given_up
            and (
                (t.case, METRIC_OF_SUITE[t.suite], job.block) in missing
                or (t.suite in ROTATED and (t.case.group, job.block) in groups)
            )
        )
        if tasks:
            left.append(msgspec.structs.replace(job, tasks=tasks))
    return left


class Pace:
    """How long the rotations of these timing blocks may take. Where the grid has a budget, the first block of
    a backend and device shows how long one takes besides its rotations (starting, tracing, compiling); those
    of the others get what is left."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._planned = Counter(job.ground for job in jobs)
        self._done: Counter[tuple[str, str]] = Counter()
        self._spent: defaultdict[tuple[str, str], float] = defaultdict(float)
        self._scales: dict[tuple[str, str], float] = {}

    def scale(self, job: Job) -> float:
        """By what the rotations of a block are to be multiplied that begins now."""
        return self._scales.get(job.ground, 1.0)

    def learn(self, job: Job, scale: float, taken: float, rotated: float) -> None:
        """What a block took, in seconds, and its timed calls of that, whose rotations had that scale."""
        ground = job.ground
        self._done[ground] += 1
        self._spent[ground] += taken
        left = self._planned[ground] - self._done[ground]
        if job.time.budget is None or not left or not rotated:
            return
        budget = job.time.budget * self._planned[ground] / job.time.blocks
        wanted = (budget - self._spent[ground]) / left - (taken - rotated)
        self._scales[ground] = min(max(scale * wanted / rotated, LEAST_SCALE), MOST_SCALE)


def paced(job: Job, scale: float, left_out: Collection[Case]) -> Job:
    """The job with the seconds of each rotation multiplied, without the cases that are left out."""
    tasks = (
        msgspec.structs.replace(task, seconds=task.seconds * scale)
        for task in job.tasks
        if task.case not in left_out
    )
    return msgspec.structs.replace(job, tasks=tuple(tasks))


def _kill(worker: Worker) -> None:
    """Ends a worker's whole process group, if any of it is left."""
    with suppress(ProcessLookupError):
        os.killpg(worker.pid, signal.SIGKILL)
