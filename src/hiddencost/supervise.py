"""Starts the processes that measure, stores what they report, and shows how far they are.

Each process is one `pytest bench/test_SUITE.py ...` that is given a job or several and writes its
records, a line each, to a pipe; this process is the only writer of the run folder. Timing blocks run one
at a time; memory jobs, whose readings do not depend on what else runs, are dealt to two processes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Protocol

import msgspec

from hiddencost import store
from hiddencost.errors import UserError
from hiddencost.grid import Job, bench_folder
from hiddencost.records import OVER_BUDGET, Case, Ending, Environment, Measurement

METRIC_OF_SUITE = {
    "forward": "seconds",
    "dataset": "seconds",
    "lookup": "lookup_seconds",
    "growth": "growth_seconds",
    "memory": "peak_heap_bytes",
    "resident": "peak_rss_bytes",
}
"""The metric whose record says that a task is done, one way or another."""
MEMORY_WORKERS = 2
LEAST_SCALE, MOST_SCALE = 0.1, 10.0
"""How far a budget may shorten or lengthen the rotations that the grid plans."""
PYTEST_USAGE_ERROR = 4


class Progress(Protocol):
    """What is told while a run goes on: `total` tasks, each one told when it is done."""

    def done(self, label: str, count: int) -> None: ...


@dataclass
class Supervisor:
    """One run: the writer of its folder, what is told of it, and the workers that are alive."""

    writer: store.Writer
    progress: Progress
    pytest_arguments: Sequence[str] = ()
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _rotated: dict[int, float] = field(default_factory=dict)  # seconds of all timed calls, by block
    _left_out: set[Case] = field(default_factory=set)
    _alive: set[subprocess.Popen[bytes]] = field(default_factory=set)
    _stopped: bool = False

    def run(self, timed: Sequence[Job], memory: Sequence[Job]) -> str:
        """Runs all jobs. Returns `complete` or `interrupted`; what was measured is stored either way, and no
        process is left behind."""
        began = time.perf_counter()
        how = "complete"
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            self._work_in_turn(timed)
            self._work_side_by_side(memory)
        except KeyboardInterrupt:
            how = "interrupted"
        finally:
            self._stop()
            signal.signal(signal.SIGTERM, before)
        self.writer.write(
            Ending(
                finished=datetime.now(UTC).isoformat(timespec="seconds"),
                how=how,
                seconds=round(time.perf_counter() - began, 1),
            )
        )
        return how

    def _work_in_turn(self, jobs: Sequence[Job]) -> None:
        """Timing blocks. Where the grid has a budget, the first shows how long a block takes besides its
        rotations (starting, tracing, compiling), and the rotations of the others get what is left."""
        began, scale = time.perf_counter(), 1.0
        for number, job in enumerate(jobs, start=1):
            block_began = time.perf_counter()
            kept = paced(job, scale, self._left_out)
            if len(kept.tasks) < len(job.tasks):
                self.progress.done("left out", len(job.tasks) - len(kept.tasks))
            self._work([kept])
            now, budget, left = time.perf_counter(), job.time.budget, len(jobs) - number
            rotated = self._rotated.get(job.block, 0.0)
            if budget is not None and left and rotated:
                besides = now - block_began - rotated
                wanted = (budget - (now - began)) / left - besides
                scale = min(max(scale * wanted / rotated, LEAST_SCALE), MOST_SCALE)

    def _work_side_by_side(self, jobs: Sequence[Job]) -> None:
        hands = [hand for i in range(MEMORY_WORKERS) if (hand := jobs[i::MEMORY_WORKERS])]
        with ThreadPoolExecutor(MEMORY_WORKERS) as pool:
            try:
                list(pool.map(self._work, hands))
            except KeyboardInterrupt:
                self._stop()  # or leaving the pool would wait for the workers
                raise

    def _stop(self) -> None:
        with self._lock:
            self._stopped = True
            for worker in self._alive:
                _kill(worker)

    def _work(self, jobs: Sequence[Job]) -> None:
        """One process: starts it, stores its records as they come, and notes the tasks it left undone."""
        left = {
            (task.case, METRIC_OF_SUITE[task.suite], job.block): None for job in jobs for task in job.tasks
        }
        log = self.writer.folder / "logs" / f"block-{jobs[0].block}.log"
        log.parent.mkdir(exist_ok=True)
        read_end, write_end = os.pipe()
        with open(log, "wb") as log_file, os.fdopen(read_end, "rb") as records:
            with self._lock:
                if self._stopped:
                    os.close(write_end)
                    return
                worker = self._start(jobs, write_end, log_file)
                self._alive.add(worker)
            os.close(write_end)
            for line in records:
                self._store(line, left)
            worker.wait()
            with self._lock:
                self._alive.discard(worker)
                _kill(worker)  # a process that it started may have outlived it
        if worker.returncode == PYTEST_USAGE_ERROR:
            raise UserError(f"pytest refused its arguments {list(self.pytest_arguments)}: see {log}")
        if not self._stopped and not self.pytest_arguments:
            self._note_undone(left, worker.returncode, log)

    def _start(self, jobs: Sequence[Job], write_end: int, log_file: IO[bytes]) -> subprocess.Popen[bytes]:
        folder = self.writer.folder
        name = f"block-{jobs[0].block}"
        jobs_file = folder / "logs" / f"{name}.jobs.json"
        jobs_file.write_bytes(msgspec.json.encode(jobs))
        (folder / "pytest-benchmark").mkdir(exist_ok=True)
        bench = bench_folder()
        suites = sorted({str(bench / f"test_{task.suite}.py") for job in jobs for task in job.tasks})
        command = [sys.executable, "-m", "pytest", "-q", f"--rootdir={bench}", f"-c={bench / 'pytest.ini'}"]
        command += suites
        command += [f"--jobs={jobs_file.resolve()}", f"--report-fd={write_end}"]
        command += [f"--benchmark-json={(folder / 'pytest-benchmark').resolve()}/{name}.json"]
        return subprocess.Popen(
            [*command, *self.pytest_arguments],
            stdin=subprocess.DEVNULL,
            stdout=log_file,
            stderr=subprocess.STDOUT,
            pass_fds=[write_end],
            start_new_session=True,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )

    def _store(self, line: bytes, left: dict[tuple[Case, str, int], None]) -> None:
        if not line.endswith(b"\n"):
            return  # the worker was killed while it wrote
        record = msgspec.json.decode(line, type=Measurement | Environment)
        with self._lock:
            self.writer.write(record)
            if isinstance(record, Environment):
                return
            if OVER_BUDGET in record.notes:
                self._left_out.add(record.case)
            if record.metric == "seconds":
                self._rotated[record.block] = self._rotated.get(record.block, 0.0) + sum(record.values)
            key = (record.case, record.metric, record.block)
            if key in left:
                del left[key]
                self.progress.done(str(record.case), 1)

    def _note_undone(self, left: dict[tuple[Case, str, int], None], code: int, log: Path) -> None:
        """A record for each task that its process left without one, with how the process ended."""
        ended = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        with self._lock:
            for case, metric, block in left:
                reason = f"block {block}: its process {ended} (see logs/{log.name})"
                self.writer.write(
                    Measurement(case=case, metric=metric, state="crashed", reason=reason, block=block)
                )
                self.progress.done(str(case), 1)


def paced(job: Job, scale: float, left_out: Collection[Case]) -> Job:
    """The job with the seconds of each rotation multiplied, without the cases that are left out."""
    tasks = (
        msgspec.structs.replace(task, seconds=task.seconds * scale)
        for task in job.tasks
        if task.case not in left_out
    )
    return msgspec.structs.replace(job, tasks=tuple(tasks))


def _kill(worker: subprocess.Popen[bytes]) -> None:
    """Ends a worker's whole process group, if any of it is left."""
    with suppress(ProcessLookupError):
        os.killpg(worker.pid, signal.SIGKILL)
