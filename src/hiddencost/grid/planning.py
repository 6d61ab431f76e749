"""Grid -> the planned cases, in a stable order, and the jobs that processes are given."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import product
from typing import Literal

import msgspec

from hiddencost.grid import (
    COMPILED_MODES,
    MODES,
    PEERS,
    SELECTIONS,
    WITH_OUTPUT,
    Dataset,
    Forward,
    Grid,
    Growth,
    Lookup,
    Memory,
    Time,
    has,
    has_dtype,
    points_label,
)
from hiddencost.records import OUTPUT, REFERENCE, SINGLE_BLOCK, TWIN, Case, Origin

LOOKUPS = ("get_layer_name", "get_layer_index", "layers_property", "dict_in_advance")
PREDICT_BATCHES = 4
"""Batches in the data set of a forward case in mode `predict`."""
Suite = Literal["forward", "growth", "lookup", "memory", "resident", "device", "dataset", "points"]
ROTATED: tuple[Suite, ...] = ("forward", "dataset")
"""The suites whose cases are timed in rotation, together where they share a group."""
METRIC_OF_SUITE: dict[Suite, str] = {
    "forward": "seconds",
    "dataset": "seconds",
    "lookup": "lookup_seconds",
    "growth": "growth_seconds",
    "memory": "peak_heap_bytes",
    "resident": "peak_rss_bytes",
    "device": "peak_device_bytes",
    "points": "stacks_right",
}
"""The metric whose record says that a task is done, one way or another."""


class Task(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A planned case and the suite that measures it. seconds: the cap of its group's rotation. optional:
    may be left out for want of time."""

    suite: Suite
    case: Case
    seconds: float = 0.0
    calls: int = 0
    optional: bool = False


class Fault(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What makes a strategy worse on purpose, to measure the gate itself. No grid and no option of a run
    can name one.

    slower: the share of its own time that each call waits on top, busily. untimed: the wait is made and not
    counted, as the other side does: waiting slows the next call too (an injected 3 % was measured as
    4.2 %), and so both sides wait, and what differs is the share alone. states: how many hidden states more
    than it needs it keeps alive during the call.
    """

    strategy: str
    slower: float = 0.0
    untimed: bool = False
    states: int = 0


SAME_WEIGHTS = {"minilm_fused": "minilm"}
"""Models that compute the same hidden states as another one, another way: they take turns with it."""


class Meeting(msgspec.Struct, frozen=True, kw_only=True):
    """Of jobs that take turns: where the first backend leaves its hidden states for the others."""

    backend: str
    values: str


class Job(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one process is told to measure. together: by turns with the other jobs of the block.
    meeting: where they compare hidden states."""

    block: int
    seed: int
    time: Time
    tasks: tuple[Task, ...]
    backend: str = "tensorflow"
    device: str = "cpu"
    fault: Fault | None = None
    together: bool = False
    meeting: Meeting | None = None

    @property
    def ground(self) -> tuple[str, str]:
        """What it runs on: its backend and device, which a process has one of."""
        return self.backend, self.device

    @property
    def origin(self) -> Origin:
        """What its records have in common."""
        return self.block, self.backend, self.device

    def rotates(self, case: Case) -> Case:
        """What a case is called together with: its group, or all of one shape that take turns."""
        if not self.together:
            return case.group
        model = SAME_WEIGHTS.get(case.model, case.model)
        return Case(model=model, strategy=REFERENCE, mode="any", batch=case.batch, length=case.length)

    @property
    def name(self) -> str:
        """What its process is called."""
        unusual = [part for part in self.ground if part not in ("tensorflow", "cpu")]
        return "-".join(["block", str(self.block), *unusual])


def _forward_cases(section: Forward | Memory, backend: str) -> Iterator[Case]:
    """The section's product, each group led by its reference (and, for times, its twin)."""
    timed = isinstance(section, Forward)
    modes = [mode for mode in section.mode if mode in MODES[backend]]
    strategies = [name for name in section.strategy if name in (REFERENCE, TWIN) or has(backend, name)]
    dtypes = [dtype for dtype in section.dtype if has_dtype(backend, dtype)]
    if not strategies or backend not in (section.backend or [backend]):
        return
    for model, dtype, mode, length, batch in product(
        section.model, dtypes, modes, section.length, section.batch
    ):
        reference = Case(
            model=model,
            strategy=REFERENCE,
            backend=backend,
            dtype=dtype,
            mode=mode,
            batch=batch,
            length=length,
            examples=batch * PREDICT_BATCHES if mode == "predict" else None,
        )
        yield reference
        if timed:
            yield reference.with_(strategy=TWIN)
        for strategy in strategies:
            if strategy in (REFERENCE, TWIN):
                continue
            if strategy in WITH_OUTPUT:
                yield reference.with_(strategy=strategy, points=OUTPUT)
            for points in section.points:
                yield reference.with_(strategy=strategy, points=points_label(points))


def _unique(tasks: Iterable[Task]) -> list[Task]:
    """Tasks once each, in order; where two sections plan a case, the longer time counts, and it is
    optional where both say so."""
    kept: dict[tuple[Suite, Case], Task] = {}
    for task in tasks:
        other = kept.setdefault((task.suite, task.case), task)
        kept[task.suite, task.case] = msgspec.structs.replace(
            other, seconds=max(other.seconds, task.seconds), optional=other.optional and task.optional
        )
    return list(kept.values())


def _grounds(grid: Grid) -> list[tuple[str, str]]:
    """Each backend on each device."""
    return list(product(dict.fromkeys(grid.backend), dict.fromkeys(grid.device)))


def _on(device: str, tasks: Iterable[Task]) -> list[Task]:
    """The tasks with their cases on the device, each once."""
    placed = (msgspec.structs.replace(task, case=task.case.with_(device=device)) for task in tasks)
    return _unique(placed)


def _timed_tasks(grid: Grid, backend: str, device: str, first: bool) -> Iterator[Task]:
    for section in grid.forward:
        if device not in (section.device or [device]):
            continue
        for case in _forward_cases(section, backend):
            yield Task(
                suite="forward",
                case=case,
                seconds=section.seconds or grid.time.seconds,
                optional=section.optional,
            )
    if backend in PEERS:
        return
    if grid.dataset:
        for case in _dataset_cases(grid.dataset, backend, timed=True):
            yield Task(suite="dataset", case=case, seconds=grid.dataset.seconds or grid.time.seconds)
    if grid.lookup and first:  # no backend and no device has a part in a look-up
        for case in _lookup_cases(grid.lookup):
            yield Task(suite="lookup", case=case.with_(backend=backend))
    if grid.growth:
        for case in _growth_cases(grid.growth, backend):
            yield Task(suite="growth", case=case, calls=grid.growth.calls)


def _dataset_cases(section: Dataset, backend: str, timed: bool) -> Iterator[Case]:
    for model in section.model:
        for examples in section.examples:
            reference = Case(
                model=model,
                strategy=REFERENCE,
                backend=backend,
                mode="predict",
                batch=section.batch,
                length=section.length,
                examples=examples,
            )
            yield reference
            if timed:
                yield reference.with_(strategy=TWIN)
            yield reference.with_(strategy="always_return_all", points="all")
            yield reference.with_(strategy="functional_submodel", points="all", reduction="mean")
            yield reference.with_(strategy="streamed", points="all")


def _lookup_cases(section: Lookup) -> Iterator[Case]:
    largest = max(section.layers)
    for layers in section.layers:
        positions = {layers - 1}
        if layers == largest:
            positions |= {round(share * (layers - 1)) for share in section.positions}
        for position in sorted(positions):
            for way in LOOKUPS:
                yield Case(model="lookup", strategy=way, layers=layers, position=position)


def _growth_cases(section: Growth, backend: str) -> Iterator[Case]:
    for model in section.model:
        for mode in filter(MODES[backend].__contains__, section.mode):
            built_once = Case(
                model=model,
                strategy="functional_submodel",
                points="middle",
                backend=backend,
                mode=mode,
                batch=section.batch,
                length=section.length,
            )
            yield built_once
            yield built_once.with_(strategy="functional_submodel_per_call")
            if mode in COMPILED_MODES:
                yield built_once.with_(strategy="on_request", points="all")


SUITE_OF_READING: dict[str, Suite] = {"heap": "memory", "resident": "resident", "device": "device"}


def _memory_tasks(grid: Grid, backend: str, device: str) -> Iterator[Task]:
    for section in grid.memory:
        if (section.reading == "device") != (device == "gpu"):
            continue
        suite = SUITE_OF_READING[section.reading]
        for case in _forward_cases(section, backend):
            yield Task(suite=suite, case=case)
            if suite == "memory" and case.strategy == REFERENCE and backend not in PEERS:
                yield Task(suite=suite, case=case.with_(strategy=SINGLE_BLOCK))
    if grid.dataset and device == "cpu" and backend not in PEERS:
        for case in _dataset_cases(grid.dataset, backend, timed=False):
            yield Task(suite="memory", case=case)


def _points_tasks(grid: Grid, backend: str, device: str) -> Iterator[Task]:
    for section in grid.points:
        if backend in PEERS or device != "cpu" or backend not in (section.backend or [backend]):
            continue
        for way, model, depth in product(section.way, section.model, section.depth):
            case = Case(model=model, strategy=way, points="all", backend=backend, layers=depth)
            yield Task(suite="points", case=case)


def timed_jobs(grid: Grid) -> list[Job]:
    """One job for each block, backend and device; every block measures every timed case, in its own order.
    Each has its share of the budget."""
    grounds = _grounds(grid)
    first = next((ground for ground in grounds if ground[0] not in PEERS), None)
    tasks = {
        (backend, device): tuple(_on(device, _timed_tasks(grid, backend, device, (backend, device) == first)))
        for backend, device in grounds
    }
    measured = {ground: found for ground, found in tasks.items() if found}
    time = grid.time
    if time.budget is not None and measured:
        time = msgspec.structs.replace(time, budget=time.budget / len(measured))
    return [
        Job(
            block=block,
            seed=grid.seed,
            time=time,
            backend=backend,
            device=device,
            tasks=found,
            together=grid.together,
        )
        for block in range(time.blocks)
        for (backend, device), found in measured.items()
    ]


FIRST_MEMORY_BLOCK = 100


def only(jobs: Sequence[Job], cases: Collection[Case]) -> list[Job]:
    """The jobs with nothing but these cases and what they are compared with: their group's reference and
    twin. A case of `lookup` without layers stands for all look-ups (they share a slope)."""
    groups = {case.group for case in cases}
    lookups = any(case.model == "lookup" and case.layers is None for case in cases)

    def wanted(task: Task) -> bool:
        compared = task.case.strategy in (REFERENCE, TWIN) and task.suite in ROTATED
        return (
            task.case in cases
            or (compared and task.case.group in groups)
            or (lookups and task.suite == "lookup")
        )

    kept = (msgspec.structs.replace(job, tasks=tuple(filter(wanted, job.tasks))) for job in jobs)
    return [job for job in kept if job.tasks]


def memory_jobs(grid: Grid) -> list[Job]:
    """One job for each process that takes no times: all shapes of one model, strategy and mode for the heap,
    one case for the resident set, all models of one depth and way where hidden states are looked for."""
    groups: dict[tuple[object, ...], list[Task]] = {}
    found = (
        task
        for backend, device in _grounds(grid)
        for task in _on(
            device, [*_memory_tasks(grid, backend, device), *_points_tasks(grid, backend, device)]
        )
    )
    for task in found:
        case = task.case
        strategy = REFERENCE if case.strategy == SINGLE_BLOCK else case.strategy
        key: tuple[object, ...] = (
            task.suite,
            case.backend,
            case.device,
            case.dtype,
            case.model,
            strategy,
            case.mode,
        )
        if task.suite == "resident":
            key = (task.suite, case)
        if task.suite == "points":
            key = (task.suite, case.backend, case.strategy, case.layers)
        groups.setdefault(key, []).append(task)
    return [
        Job(
            block=FIRST_MEMORY_BLOCK + number,
            seed=grid.seed,
            time=grid.time,
            backend=tasks[0].case.backend,
            device=tasks[0].case.device,
            tasks=tuple(sorted(tasks, key=_size)),
        )
        for number, tasks in enumerate(groups.values())
    ]


def _size(task: Task) -> tuple[int, int]:
    """Shapes ascending: tokens, then how many points are kept."""
    case = task.case
    rows = case.batch if case.examples is None else case.examples
    return rows * case.length, ("last", "middle", "last_four", "all").index(case.points) if (
        case.points in SELECTIONS
    ) else 0


def planned(jobs: Iterable[Job]) -> tuple[Case, ...]:
    """Every planned case once, in the order of the jobs."""
    return tuple(dict.fromkeys(task.case for job in jobs for task in job.tasks))
