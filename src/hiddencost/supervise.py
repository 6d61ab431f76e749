"""Starts the processes that measure, stores what they report, and shows how far they are.

Each job is one `pytest bench/test_SUITE.py ...` process that writes its records, a line each, to a
pipe; this process is the only writer of the run folder. Timing blocks run one at a time; memory
processes, whose readings do not depend on what else runs, two at a time.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
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
from hiddencost.records import Case, Ending, Environment, Measurement

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
    _alive: set[subprocess.Popen[bytes]] = field(default_factory=set)
    _stopped: bool = False

    def run(self, timed: Sequence[Job], memory: Sequence[Job]) -> str:
        """Runs all jobs. Returns `complete` or `interrupted`; what was measured is stored either way, and no
        process is left behind."""
        began = time.perf_counter()
        how = "complete"
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            for job in timed:
                self._work(job)
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

    def _work_side_by_side(self, jobs: Sequence[Job]) -> None:
        with ThreadPoolExecutor(MEMORY_WORKERS) as pool:
            try:
                list(pool.map(self._work, jobs))
            except KeyboardInterrupt:
                self._stop()  # or leaving the pool would wait for the workers
                raise

    def _stop(self) -> None:
        with self._lock:
            self._stopped = True
            for worker in self._alive:
                _kill(worker)

    def _work(self, job: Job) -> None:
        """One process: starts it, stores its records as they come, and notes the tasks it left undone."""
        left = {(task.case, METRIC_OF_SUITE[task.suite]) for task in job.tasks}
        log = self.writer.folder / "logs" / f"block-{job.block}.log"
        log.parent.mkdir(exist_ok=True)
        read_end, write_end = os.pipe()
        with open(log, "wb") as log_file, os.fdopen(read_end, "rb") as records:
            with self._lock:
                if self._stopped:
                    os.close(write_end)
                    return
                worker = self._start(job, write_end, log_file)
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
            self._note_undone(job, left, worker.returncode, log)

    def _start(self, job: Job, write_end: int, log_file: IO[bytes]) -> subprocess.Popen[bytes]:
        folder = self.writer.folder
        job_file = folder / "logs" / f"block-{job.block}.job.json"
        job_file.write_bytes(msgspec.json.encode(job))
        (folder / "pytest-benchmark").mkdir(exist_ok=True)
        bench = bench_folder()
        suites = sorted({str(bench / f"test_{task.suite}.py") for task in job.tasks})
        command = [sys.executable, "-m", "pytest", "-q", f"--rootdir={bench}", f"-c={bench / 'pytest.ini'}"]
        command += suites
        command += [f"--job={job_file.resolve()}", f"--report-fd={write_end}"]
        command += [f"--benchmark-json={(folder / 'pytest-benchmark').resolve()}/block-{job.block}.json"]
        return subprocess.Popen(
            [*command, *self.pytest_arguments],
            stdin=subprocess.DEVNULL,
            stdout=log_file,
            stderr=subprocess.STDOUT,
            pass_fds=[write_end],
            start_new_session=True,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )

    def _store(self, line: bytes, left: set[tuple[Case, str]]) -> None:
        if not line.endswith(b"\n"):
            return  # the worker was killed while it wrote
        record = msgspec.json.decode(line, type=Measurement | Environment)
        with self._lock:
            self.writer.write(record)
            if isinstance(record, Measurement) and (record.case, record.metric) in left:
                left.discard((record.case, record.metric))
                self.progress.done(str(record.case), 1)

    def _note_undone(self, job: Job, left: set[tuple[Case, str]], code: int, log: Path) -> None:
        """A record for each task that its process left without one, with how the process ended."""
        ended = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        with self._lock:
            for case, metric in sorted(left, key=str):
                reason = f"block {job.block}: its process {ended} (see logs/{log.name})"
                self.writer.write(
                    Measurement(case=case, metric=metric, state="crashed", reason=reason, block=job.block)
                )
                self.progress.done(str(case), 1)


def _kill(worker: subprocess.Popen[bytes]) -> None:
    """Ends a worker's whole process group, if any of it is left."""
    with suppress(ProcessLookupError):
        os.killpg(worker.pid, signal.SIGKILL)
