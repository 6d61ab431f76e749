"""Peak heap and peak resident set of one call, in processes that do nothing else.

A resident-set reading alone lies: after a warm call the allocator keeps its pages. So the headline is
memray's high-water mark over one call (exact, whatever the allocator keeps), in a process that has
been warmed up and in which nothing is timed. The resident set (what the
machine must have) is read by the kernel (VmHWM, reset before the call) and beside it by
memory-profiler's sampler from outside. The functions whose names start with `child_` run in the
measured process, which `Child` starts.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from hiddencost import backends, environment, measure, peers
from hiddencost.chain import start, steps_to
from hiddencost.grid.planning import Job
from hiddencost.models import find
from hiddencost.records import REFERENCE, SINGLE_BLOCK, Case, Environment, Measurement, State

NO_ONEDNN = {"TF_ENABLE_ONEDNN_OPTS": "0"}
"""oneDNN's growing arena would hide the live data."""
HEAP_SETTINGS = {**NO_ONEDNN, "PYTHONMALLOC": "malloc"}
"""Python's own arenas come in steps of 1 MiB, and a call that happens to need one more would read so."""
RESIDENT_SETTINGS = {**NO_ONEDNN, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
"""The allocator is told to return memory, or a warm call's peak would read 0. It makes calls twice as
slow, and memray counts what is asked for whatever the allocator keeps, so the heap does without."""
SAMPLE_SECONDS = 0.005
WARM_CALLS = 2
"""What Keras and Python cache, they cache in the first two calls of a process; for the second one
torch.compile may compile once more."""
KILLED_FOR_MEMORY = "the measuring process was killed by the kernel for want of memory"
LEAST_OF = 5
"""Calls of which the lowest peak is told, eager ones where Python runs ahead of the work. How far is a matter
of chance: on JAX five of 35 calls held 1 to 2 MiB more than the others, which held the same (minilm 4x128),
and more of them do beside other work. JAX_CPU_ENABLE_ASYNC_DISPATCH=false makes them fewer, not none."""
_T = TypeVar("_T")


class Child:
    """A process that keeps its state between calls; use as a context manager. settings: what its environment
    holds, the backend's settings among them.

    It is a fresh interpreter, or (`forked`) a fork of one that has imported the packages and done nothing
    else, which saves their import for each child after the first. All forked children of a process have
    the settings of the first.
    """

    def __init__(self, settings: dict[str, str], forked: bool = False) -> None:
        self._settings = settings
        self._context: Any = multiprocessing.get_context("forkserver" if forked else "spawn")
        if forked:
            self._context.set_forkserver_preload(["hiddencost.backends.preload"])

    def __enter__(self) -> Child:
        before = {name: os.environ.get(name) for name in self._settings}
        os.environ.update(self._settings)  # glibc reads its settings when the process starts
        try:
            self._pool = ProcessPoolExecutor(1, mp_context=self._context)
            self.pid = self._pool.submit(os.getpid).result()
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})
        return self

    def call(self, function: Callable[..., _T], *arguments: object) -> _T:
        """The function's result in the child. Raises BrokenProcessPool when the child dies."""
        return self._pool.submit(function, *arguments).result()

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(cancel_futures=True)


Tell = Callable[[Case], None]


def heap(
    job: Job, tell: Tell = lambda case: None, forked: bool = True
) -> Iterator[Measurement | Environment]:
    """Peak heap of the job's cases, shapes ascending, in a process of its own."""

    def read(child: Child, case: Case) -> list[Measurement]:
        return child.call(child_peak_heap, case)

    settings = {**_backend_settings(job), **HEAP_SETTINGS}
    yield from _guarded(lambda: Child(settings, forked), job, "peak_heap_bytes", read, tell)


def resident(job: Job, tell: Tell = lambda case: None) -> Iterator[Measurement | Environment]:
    """Peak resident set of the job's one case, in a fresh process."""

    def read(child: Child, case: Case) -> list[Measurement]:
        child.call(child_ready, case)
        kernel, sampled = peak_resident(child.pid, lambda: child.call(child_call))
        return [
            Measurement(case=case, metric="peak_rss_bytes", values=(kernel,), block=job.block),
            Measurement(case=case, metric="peak_rss_sampled_bytes", values=(sampled,), block=job.block),
        ]

    settings = {**_backend_settings(job), **RESIDENT_SETTINGS}
    yield from _guarded(lambda: Child(settings), job, "peak_rss_bytes", read, tell)


def device(job: Job, tell: Tell = lambda case: None) -> Iterator[Measurement | Environment]:
    """Peak memory of the device over a call of each of the job's cases, shapes ascending, in a process of
    their own, as its backend counts it, or the compiler plans it (see `Backend.reset_peak`)."""

    def read(child: Child, case: Case) -> list[Measurement]:
        return child.call(child_peak_device, case)

    yield from _guarded(lambda: Child(_backend_settings(job)), job, "peak_device_bytes", read, tell)


def _backend_settings(job: Job) -> dict[str, str]:
    return backends.find(job.backend).settings(job.time.threads, job.device)


def _guarded(
    child_of: Callable[[], Child],
    job: Job,
    metric: str,
    read: Callable[[Child, Case], Sequence[Measurement]],
    tell: Tell,
) -> Iterator[Measurement | Environment]:
    """Readings of each case. A case that fails is a record with the reason; where its process died, or ran
    out of memory, a new one goes on with the next."""
    cases = [task.case for task in job.tasks]
    while cases:
        kills_before = environment.out_of_memory_kills()
        with child_of() as child:
            started = False
            while cases:
                case = cases.pop(0)
                tell(case)
                try:
                    if not started:
                        yield child.call(child_start, job)
                        started = True
                    yield from read(child, case)
                except BrokenProcessPool:
                    if environment.out_of_memory_kills() > kills_before:
                        yield _failure(job, case, metric, "out_of_memory", KILLED_FOR_MEMORY)
                    else:
                        yield _failure(job, case, metric, "crashed", "the measuring process died")
                    break
                except SkippedError as error:
                    yield _failure(job, case, metric, "skipped", str(error))
                except Exception as error:
                    state = measure.state_of(error)
                    yield _failure(job, case, metric, state, measure.told(error))
                    if state == "out_of_memory":
                        break


def _failure(job: Job, case: Case, metric: str, state: State, reason: str) -> Measurement:
    return Measurement(case=case, metric=metric, state=state, reason=reason, block=job.block)


class SkippedError(Exception):
    """The case makes no sense for its strategy; the message says why."""


# -- in the measured process --


class _State:
    process: measure.Process
    call: Callable[[], Any]
    told: set[str]


_state = _State()


def child_start(job: Job) -> Environment:
    """Imports the packages in this process."""
    _, threads = backends.start(job.backend, job.time.threads, job.device)
    _state.process = measure.Process(job.block, job.seed, job.time, fault=job.fault)
    _state.told = set()
    return environment.capture(job.block, threads, environment.cores(), *job.ground)


def _warm(case: Case) -> Case:
    """The case at the shape that it is warmed up with. Eager calls take a small one, so that the measured
    call is the first that needs its memory; what traces and compiles at the first call of each shape takes
    its own, as that is not what is measured."""
    small = case.mode in ("eager", "eager_grad") and not backends.current().compiles_operations
    if not small:
        return case
    return case.with_(batch=1, length=8 if find(case.model).reads_text else case.length)


def _prepared(case: Case, warm: Case) -> tuple[Callable[[], Any], backends.Compiled, tuple[Any, ...]]:
    """The call to measure, warmed up at the shape of `warm`; what it calls, and its inputs on the device."""
    process = _state.process
    if case.strategy == SINGLE_BLOCK:
        return _single_block(case, warm)
    skipped = peers.strategy(case).skipped(case)
    if skipped:
        raise SkippedError(skipped)
    run = backends.compile_(process.built(case), case.mode, process.of(case)[0].model)
    for _ in range(WARM_CALLS if case.mode in ("eager", "compile") else 1):
        run(backends.place(process.inputs(warm), case.mode, warm.batch))
    placed = backends.place(process.inputs(case), case.mode, case.batch)
    fault = process.fault(case)
    extra = fault.states if fault else 0
    if not extra:
        return lambda: run(placed), run, (placed,)
    state = process.of(case)[1][0]

    def keeps() -> Any:
        kept = np.ones((extra, case.batch, case.length, state.width), "float32")
        return run(placed), kept[:0]

    return keeps, run, (placed,)


def _single_block(case: Case, warm: Case) -> tuple[Callable[[], Any], backends.Compiled, tuple[Any, ...]]:
    """The largest working set that no way of running the model can avoid: one block called by itself on
    its input, in this mode (blocks are alike, so the first stands for all)."""
    process = _state.process
    loaded, every = process.of(case)
    if not every.blocks:
        raise SkippedError("the model has no blocks")
    if every.blocks[0].inside:
        raise SkippedError("the model's blocks lie inside a nested model or a layer")
    step = steps_to(loaded.model, [every.blocks[0].tensor])[-1]
    taken_by_it = [tensor for _, tensor in step.call.arguments]

    def values_at(shape: Case) -> list[Any]:
        placed = backends.place(process.inputs(shape), "eager", shape.batch)
        values = start(loaded.model, placed)
        for before in steps_to(loaded.model, taken_by_it):
            before.run(before.call.operation, values)
        return [values[id(tensor)] for tensor in taken_by_it]

    run = backends.Compiled(lambda *given: step.alone(given), case.mode, loaded.model)
    run(*values_at(warm))
    given = tuple(values_at(case))
    backends.synchronize(given)  # what makes them is not to be counted
    return lambda: run(*given), run, given


def child_peak_heap(case: Case) -> list[Measurement]:
    """Peak heap over one call at the real shape, and the bytes returned."""
    ahead = case.mode == "eager" and backends.current().runs_ahead
    return _peak(case, "peak_heap_bytes", least_peak_heap if ahead else peak_heap)


def least_peak_heap(call: Callable[[], Any]) -> tuple[int, Any]:
    """The lowest peak of several calls, and the result of one."""
    others = [peak_heap(call)[0] for _ in range(LEAST_OF - 1)]
    peak, result = peak_heap(call)
    return min(peak, *others), result


def child_peak_device(case: Case) -> list[Measurement]:
    """The same of the device's memory."""
    return _peak(case, "peak_device_bytes", peak_device)


def _peak(
    case: Case, metric: str, peak_of: Callable[[Callable[[], Any]], tuple[int | None, Any]]
) -> list[Measurement]:
    call, run, given = _prepared(case, _warm(case))
    told, result = peak_of(call)
    analysis = run.analysis(*given)
    peak = _planned_bytes(analysis) if told is None else told
    process = _state.process
    output = backends.returned_bytes(result)
    found = [
        process.measurement(case, metric, [peak]),
        process.measurement(case, "output_bytes", [output]),
        *(process.measurement(case, name, [value]) for name, value in analysis.items()),
    ]
    if case.strategy != SINGLE_BLOCK:
        payload = measure.payload_bytes(case, process.of(case)[1])
        found.append(process.measurement(case, "payload_bytes", [payload]))
    if case.strategy == REFERENCE and "weights" not in _state.told:
        _state.told.add("weights")
        weights = process.of(case)[0].weights_bytes
        found.append(process.measurement(case.model_alone, "weights_bytes", [weights]))
    return found


def _planned_bytes(analysis: dict[str, float]) -> float:
    """What a program takes on the device for a call, by the compiler's plan: its work and what it returns.
    Raises SkippedError where nothing was compiled."""
    if not analysis:
        raise SkippedError(f"{backends.current().name} cannot tell the peak of a call that is not compiled")
    return analysis["compiled_temp_bytes"] + analysis["compiled_output_bytes"]


def child_ready(case: Case) -> None:
    """Warms the case up and keeps its call for `child_call`."""
    _state.call = _prepared(case, _warm(case))[0]


def child_call() -> None:
    """The measured call; its result is dropped when it ends."""
    backends.synchronize(_state.call())


def peak_heap(call: Callable[[], Any]) -> tuple[int, Any]:
    """The most bytes of heap live at one time during the call, over what was live before, by memray; and
    the call's result."""
    import memray

    result = None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "memray.bin"
        gc.collect()
        gc.disable()  # or the peak would depend on when the collector last ran
        try:
            with memray.Tracker(path):
                result = call()
                backends.synchronize(result)
        finally:
            gc.enable()
        with memray.FileReader(path) as reader:
            records = reader.get_high_watermark_allocation_records(merge_threads=True)
            peak = sum(record.size for record in records)
    return peak, result


def peak_device(call: Callable[[], Any]) -> tuple[int | None, Any]:
    """The most bytes of device memory in use at one time during the call, over what was before (None where
    the backend cannot tell); and the call's result."""
    gc.collect()
    before = backends.current().reset_peak()
    result = call()
    backends.synchronize(result)
    return None if before is None else backends.current().peak_bytes() - before, result


# -- outside the measured process --


def peak_resident(pid: int, call: Callable[[], Any]) -> tuple[int, int]:
    """(kernel, sampled): by how many bytes the resident set of process `pid` rose above where it stood,
    at most, while `call` ran. Kernel: VmHWM, reset through /proc/PID/clear_refs. Sampled: by
    memory-profiler from this process, every 5 ms."""
    before = _status_bytes(pid, "VmRSS")
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    with _sampler(pid) as peaks:
        call()
    sampled = int(max(peaks) * 2**20)
    return max(0, _status_bytes(pid, "VmHWM") - before), max(0, sampled - before)


@contextmanager
def _sampler(pid: int) -> Iterator[list[float]]:
    """Samples the resident set until the block ends; yields the list that then holds the peaks, in MiB."""
    from memory_profiler import memory_usage

    done = threading.Event()
    peaks: list[float] = []

    def sample() -> None:
        while not done.is_set():
            peaks.append(
                memory_usage(pid, interval=SAMPLE_SECONDS, timeout=4 * SAMPLE_SECONDS, max_usage=True)
            )

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield peaks
    finally:
        done.set()
        thread.join()


def _status_bytes(pid: int, field: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/{pid}/status has no {field}: the resident set can be read on Linux only")
