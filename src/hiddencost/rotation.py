"""Times of a group: the cases of one model, mode and shape, called in turn, round by round; each time is kept
with its place in the order of all calls. Values first, then times.
"""

from __future__ import annotations

import gc
import itertools
import os
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from hiddencost import backends, peers, stats
from hiddencost.grid import COMPILED_MODES, Time
from hiddencost.grid.planning import SAME_WEIGHTS, Fault, Task
from hiddencost.measure import (
    Process,
    WrongValuesError,
    difference,
    expected_values,
    payload_bytes,
    same_elsewhere,
    state_of,
    told,
)
from hiddencost.records import OTHER_SIDE, REFERENCE, ROUNDS_WANTED, TOGETHER, TWIN, Case, Measurement
from hiddencost.room import with_room
from hiddencost.turns import Offer, Turns

PILOT = 0.25
"""Share of the time after which the number of rounds is chosen from the spread seen so far."""
VISIT_SECONDS = 0.03
"""How long a side calls before the other one has its turn: long enough that the hand-over costs little,
short enough that the machine is the same (the speed of a shared host wanders by 6 % in 10 ms, by 10 % in
100 ms)."""
CONTROLS, CONTROL_CALLS = (REFERENCE, TWIN), 3
"""What is called several times in each round: the reference, since every comparison is with it, and its twin,
since every verdict is held against its band. For ten ways and the same time, ratios of ways spread 0.94 times
as wide as with one call (the square root of 21.3 / 24), and the twin's 0.67 times."""
FULL_COLLECTIONS = 25
"""Rounds (or turns, among other workers) between two full garbage collections; after each call the youngest
generation is collected."""


@dataclass
class Ready:
    """A case that is built, compiled, called once on `placed` and found right."""

    case: Case
    run: backends.Compiled
    placed: Any = None
    seconds: list[float] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    failed: str = ""
    fault: Fault | None = None


def rotation(process: Process, tasks: Sequence[Task]) -> Iterator[Measurement]:
    """Measures the cases of one group, or of several that are called together: one-off costs and values of
    each, then times in rotation.

    Every case yields a measurement of `seconds`: values, or a state with its reason.
    """
    ready: list[Ready] = []
    for group in dict.fromkeys(task.case.group for task in tasks):
        cases = [task.case for task in tasks if task.case.group == group]
        ready += yield from _prepared(process, group, cases)
    if not ready and not process.turns:
        return
    notes = _rounds(process, ready, max(task.seconds for task in tasks))
    if process.meeting:
        case = tasks[0].case
        notes[TOGETHER] = f"all {SAME_WEIGHTS.get(case.model, case.model)} {case.batch}x{case.length}"
    failed = {r.case.group: r.failed for r in ready if r.case.strategy == REFERENCE}
    times: list[Measurement] = []
    for r in ready:
        cause = failed[r.case.group]
        reason = r.failed or (cause and f"the group's reference failed: {cause}")
        if reason:
            yield process.failure(r.case, "seconds", "crashed", reason)
            continue
        taken = process.measurement(r.case, "seconds", r.seconds, **notes)
        times.append(msgspec.structs.replace(taken, places=tuple(r.places)))
        if r.case.mode in COMPILED_MODES:
            yield process.measurement(r.case, "traces", [r.run.traces])
    yield from times if process.turns else with_effects(times)


def with_effects(times: Sequence[Measurement]) -> Iterator[Measurement]:
    """The times of a whole rotation with the effect of each case, fitted once for all who read them."""
    found = stats.rotation_effects(times) if times else {}
    for one in times:
        yield msgspec.structs.replace(one, effect=found[one.case])


def _prepared(
    process: Process, group: Case, cases: Sequence[Case]
) -> Generator[Measurement, None, list[Ready]]:
    """The cases of one group that are built, called once and right; a record for each other one. None of them
    where the reference is not."""
    cases = process.shuffled(cases, str(group))
    process.tell(group)
    try:
        inputs = process.inputs(group)
        placed = backends.place(inputs, group.mode, group.batch)
        expected = expected_values(process, group, inputs)
        same_elsewhere(process, group, inputs, expected)
    except Exception as error:
        state = "wrong" if isinstance(error, WrongValuesError) else state_of(error)
        for case in cases:
            yield process.failure(case, "seconds", state, told(error))
        return []
    ready: list[Ready] = []
    for case in cases:
        yield from _prepare(process, case, placed, expected, ready)
    if any(r.case.strategy == REFERENCE for r in ready):
        return ready
    for r in ready:
        yield process.failure(r.case, "seconds", "crashed", "the group's reference did not run")
    return []


def _prepare(
    process: Process, case: Case, placed: Any, expected: Any, ready: list[Ready]
) -> Iterator[Measurement]:
    """Builds, compiles and calls a case once, checks its values, and adds it to `ready` when right."""
    process.tell(case)
    try:
        if skipped := peers.strategy(case).skipped(case):
            yield process.failure(case, "seconds", "skipped", skipped)
            return
        process.of(case)
        extraction, run, built = process.compiled(case)
        began = time.perf_counter()
        result = run(placed)
        backends.synchronize(result)
        called = time.perf_counter() - began
        copies = _host_copies(case, result)
        worst = difference(case, result, extraction, process, expected)
    except WrongValuesError as error:
        yield process.failure(case, "seconds", "wrong", str(error))
        return
    except Exception as error:
        yield process.failure(case, "seconds", state_of(error), told(error))
        return
    output = backends.returned_bytes(result)
    notes = {"xla": str(backends.compiled_with_xla(extraction))} if case.mode == "predict" else {}
    if built is not None:
        yield process.measurement(case, "build_seconds", [built])
        if not (process.settings.keep_programs and backends.current().keeping("")):
            yield process.measurement(case, "first_call_seconds", [called], **notes)
    for metric, taken in copies.items():
        yield process.measurement(case, metric, [taken])
    yield process.measurement(case, "max_abs_difference", [worst])
    yield process.measurement(case, "output_bytes", [output])
    yield process.measurement(case, "payload_bytes", [payload_bytes(case, process.of(case)[1])])
    ready.append(Ready(case, run, placed, fault=process.fault(case)))


def _host_copies(case: Case, result: Any) -> dict[str, float]:
    """Seconds of bringing what a call returned to the host, by metric. Nothing for `predict`, which has done
    it, and for `train`, which returns gradients."""
    if case.mode in ("predict", "train"):
        return {}
    began = time.perf_counter()
    for tensor in backends.tensors(result):
        backends.to_numpy(tensor)
    found = {"host_copy_seconds": time.perf_counter() - began}
    pinned = backends.pinned_seconds(result)
    return found if pinned is None else {**found, "host_copy_pinned_seconds": pinned}


def _rounds(process: Process, ready: list[Ready], seconds: float) -> dict[str, str]:
    """Calls every ready case round by round, alone or by turns with other workers, after a warm call of each.

    Returns the notes for the records: how many rounds the precision wants, where time ended them.
    """
    compiled = all(r.case.mode in COMPILED_MODES for r in ready)
    gc.collect()
    gc.freeze()
    _round(ready, [None] * len(ready), process.tell)
    try:
        alone = process.settings.threads == 1 and backends.current().device == "cpu"
        pinned = alone and (process.turns or compiled)
        with on_one_core() if pinned else nullcontext():
            if process.turns:
                _rounds_in_turn(process.turns, process, ready, seconds)
                return {}
            return _rounds_alone(process, ready, seconds)
    finally:
        gc.unfreeze()


def _rounds_alone(process: Process, ready: Sequence[Ready], seconds: float) -> dict[str, str]:
    """Until the pilot's spread says that the interval is narrow enough, or the time is used up. Each round
    has a new order: going back and forth, whoever stood at an end was called twice in a row, and ratios
    spread twice as wide (reports/experiments/pairing.md)."""
    settings = process.settings
    generator = process.generator(str(ready[0].case.group))
    order = [r for r in ready for _ in range(CONTROL_CALLS if r.case.strategy in CONTROLS else 1)]
    began, done = time.perf_counter(), 0
    while True:
        generator.shuffle(order)
        _round(order, range(done * len(order), (done + 1) * len(order)), process.tell)
        done += 1
        if done % FULL_COLLECTIONS == 0:
            gc.collect()
        spent = time.perf_counter() - began
        if done < settings.min_rounds or spent < PILOT * seconds:
            continue
        wanted = _wanted_rounds([r for r in ready if not r.failed], settings)
        if done >= wanted:
            return {}
        if spent * (done + 1) / done > seconds:
            return {ROUNDS_WANTED: str(wanted)}


def _rounds_in_turn(turns: Turns, process: Process, ready: Sequence[Ready], seconds: float) -> None:
    """The same by turns with other workers; places count the calls of all. A turn is as many calls as take
    VISIT_SECONDS, after one that is not timed: others have called, and this one has left the caches."""
    by_name = {str(r.case): r for r in ready}
    calls = {}
    for name, r in by_name.items():
        began = time.perf_counter()
        _round([r, r], [None, None], process.tell)
        taken = time.perf_counter() - began
        if not r.failed:  # of which no number of calls would be a turn: the others would make it
            calls[name] = max(1, round(2 * VISIT_SECONDS / taken))
    visits = itertools.count(1)

    def visit(name: str, places: range) -> None:
        r = by_name[name]
        _round([r] * (len(places) + 1), [None, *places], process.tell)
        if next(visits) % FULL_COLLECTIONS == 0:
            gc.collect()

    turns.play(Offer(calls, seconds), visit)
    for r in ready:
        if not r.seconds and not r.failed:
            r.failed = OTHER_SIDE


@contextmanager
def on_one_core() -> Iterator[None]:
    """All threads of this process run on the last of its cores. The cores of a shared host differ in speed
    for seconds, and a hand-over between threads is steadier within one: successive calls in graph mode
    differ by a standard deviation of 4 to 5 % there, of 6 to 7 % on two cores, and take 1 to 5 % less."""
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_setaffinity") else set()
    _run_on(cores and {max(cores)})
    try:
        yield
    finally:
        _run_on(cores)


def _run_on(cores: set[int]) -> None:
    for thread in os.listdir("/proc/self/task") if cores else ():
        with suppress(ProcessLookupError):  # it has ended since
            os.sched_setaffinity(int(thread), cores)


@with_room
def _round(ready: Sequence[Ready], places: Sequence[int | None], tell: Callable[[Case], None]) -> None:
    """Calls each once and notes its seconds with its place, or nothing where that is None; one that raises
    is called no more. What a call leaves to the collector is collected after it: the next call may be one
    that collects for itself (`freed` on torch), which would pay for what all others have left."""
    gc.disable()
    try:
        for place, r in zip(places, ready, strict=True):
            if r.failed:
                continue
            tell(r.case)
            try:
                began = time.perf_counter_ns()
                result = r.run(r.placed)
                backends.synchronize(result)
                taken = seconds_since(began, r.fault)
                if place is not None:
                    r.seconds.append(taken)
                    r.places.append(place)
            except Exception as error:
                r.failed = told(error)
            result = None
            gc.collect(0)
    finally:
        gc.enable()


def seconds_since(began_ns: int, fault: Fault | None = None) -> float:
    """Seconds since `began_ns`; with a fault, after waiting busily for its share of them on top."""
    taken = time.perf_counter_ns() - began_ns
    if fault and fault.slower:
        end = began_ns + taken * (1 + fault.slower)
        while (now := time.perf_counter_ns()) < end:
            pass
        taken = taken if fault.untimed else now - began_ns
    return taken / 1e9


def _wanted_rounds(ready: Sequence[Ready], settings: Time) -> int:
    """The rounds that the wanted precision needs. One where the reference has failed."""
    if not any(r.case.strategy == REFERENCE for r in ready):
        return 1
    calls = sorted(
        (place, taken, r.case) for r in ready for place, taken in zip(r.places, r.seconds, strict=True)
    )
    _, residuals = stats.effects([case for _, _, case in calls], np.log([taken for _, taken, _ in calls]))
    return stats.rounds_needed(residuals, settings.precision, settings.blocks)
