"""Whether a grid can be measured: every error of one is found here, before anything runs.

What exists (strategies, models, backends) comes in as a `Catalogue`, told by the measuring half.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

import msgspec

from hiddencost.errors import UserError, nearest
from hiddencost.grid import (
    ALL_MODES,
    AXES,
    DEVICES,
    DTYPES,
    FINDING,
    GATED,
    GROWTH_MODES,
    MEMORY_MODES,
    MODES,
    PEERS,
    SELECTIONS,
    WITH_OUTPUT,
    Forward,
    Grid,
    Memory,
    Time,
    has,
    has_dtype,
    planning,
    points_label,
)
from hiddencost.records import REFERENCE, TWIN, Case

_POINT = re.compile(r"embeddings|final_norm|block_\d+|-?\d+")


class Catalogue(msgspec.Struct, frozen=True):
    """What exists, told by the measuring half without importing Keras.

    strategies: the names that a grid may list. check_strategy: raises UserError for one of one's own that is
    not there. check_backend, check_device: raise UserError for a backend that is not installed, a device that
    is not there. check_model: raises UserError for a model that is
    unknown or cannot be loaded. max_length, blocks: its longest sequence and number of blocks, None when
    only loading it tells. surveyed: the models whose blocks are known by hand.
    """

    strategies: tuple[str, ...]
    check_strategy: Callable[[str], None]
    check_backend: Callable[[str], None]
    check_device: Callable[[str], None]
    check_model: Callable[[str], None]
    max_length: Callable[[str], int | None]
    blocks: Callable[[str], int | None]
    surveyed: tuple[str, ...]


def any_device(catalogue: Catalogue) -> Catalogue:
    """The catalogue, to check a grid whose devices need not be here."""
    return msgspec.structs.replace(catalogue, check_device=lambda name: None)


def anywhere(catalogue: Catalogue) -> Catalogue:
    """The catalogue, to check a grid whose backends and devices are replaced: they need not be here."""
    return msgspec.structs.replace(any_device(catalogue), check_backend=lambda name: None)


def check(grid: Grid, catalogue: Catalogue, source: str) -> None:
    """Raises UserError for the first value that cannot be measured; `source` says where it stands."""
    problem = next(_problems(grid, catalogue), None)
    if problem:
        raise UserError(f"{source}: {problem}")


def _problems(grid: Grid, catalogue: Catalogue) -> Iterator[str]:
    time = grid.time
    for name, value, least in (
        ("blocks", time.blocks, 1),
        ("min_rounds", time.min_rounds, 2),
        ("threads", time.threads, 1),
    ):
        if value < least:
            yield f"[time] {name} = {value}: must be at least {least}"
    if time.blocks > planning.FIRST_MEMORY_BLOCK:
        yield f"[time] blocks = {time.blocks}: must be at most {planning.FIRST_MEMORY_BLOCK}"
    if time.budget is not None and grid.together:
        yield "[time] budget: not where all take turns (together = true): `seconds` says how long they do"
    if time.precision != Time().precision and grid.together:
        yield "[time] precision: not where all take turns (together = true): `seconds` says how long they do"
    if time.keep_programs and grid.growth:
        yield "[time] keep_programs: not with [growth], which times the first call of each process"
    if time.budget is not None and not time.budget > 0:
        yield f"[time] budget = {time.budget}: must be above 0 seconds"
    for name, threshold in grid.gate.items():
        if name not in GATED:
            yield f"unknown metric '{name}' in [gate]{nearest(name, GATED)}"
        if not 0 <= threshold < 1:
            yield f"[gate] {name} = {threshold}: must be at least 0 and below 1, such as 0.01 for 1 %"
    if not 0 < time.precision < 1:
        yield f"[time] precision = {time.precision}: must be between 0 and 1, such as 0.01 for 1 %"
    limits = [("time", time.seconds), *(("forward", section.seconds) for section in grid.forward)]
    for place, seconds in [*limits, ("dataset", grid.dataset.seconds if grid.dataset else None)]:
        if seconds is not None and not 0 < seconds < 3600:
            yield f"[{place}] seconds = {seconds}: must be above 0 and below 3600"
    for axis, names, known, here in (
        ("backend", grid.backend, MODES, catalogue.check_backend),
        ("device", grid.device, DEVICES, catalogue.check_device),
    ):
        if not names:
            yield f"{axis} is empty: nothing would be measured"
        for name in names:
            if name not in known:
                yield f"unknown {axis} '{name}'{nearest(name, known)}"
            here(name)
    sections: list[tuple[str, Forward | Memory, tuple[str, ...]]] = [
        ("forward", section, ALL_MODES) for section in grid.forward
    ]
    sections += [("memory", section, MEMORY_MODES) for section in grid.memory]
    for place, section, modes in sections:
        yield from _axis_problems(place, section, modes, catalogue)
        yield from _elsewhere(place, "backend", section.backend, grid.backend)
        if isinstance(section, Forward):
            yield from _elsewhere(place, "device", section.device, grid.device)
        backends = section.backend or grid.backend
        yield from _no_mode_problems(place, section.mode, backends)
        yield from _no_way_problems(place, section, backends, grid.together)
    yield from _suite_problems(grid, catalogue)
    if grid.together:
        yield from _apart_problems(grid)


def _elsewhere(place: str, what: str, named: list[str] | None, has: Sequence[str]) -> Iterator[str]:
    for name in named or []:
        if name not in has:
            yield f"[[{place}]] {what} '{name}': not one of the grid's{nearest(name, has)}"


def _axis_problems(
    place: str, section: Forward | Memory, modes: tuple[str, ...], catalogue: Catalogue
) -> Iterator[str]:
    for axis in AXES:
        needed = axis != "points" or not set(section.strategy) <= {*WITH_OUTPUT, REFERENCE, TWIN}
        if needed and not getattr(section, axis):
            yield f"[[{place}]] {axis} is empty: nothing would be measured"
    for name in section.strategy:
        if ":" in name:
            catalogue.check_strategy(name)
        elif name not in catalogue.strategies:
            yield f"unknown strategy '{name}' in [[{place}]]{nearest(name, catalogue.strategies)}"
    for name in section.mode:
        if name not in modes:
            yield f"unknown mode '{name}' in [[{place}]]{nearest(name, modes)}"
    for name in section.dtype:
        if name not in DTYPES:
            yield f"unknown dtype '{name}' in [[{place}]]{nearest(name, DTYPES)}"
    for points in section.points:
        yield from _points_problems(place, points)
    for model in section.model:
        yield from _model_problems(place, model, section.batch, section.length, catalogue)
        blocks = catalogue.blocks(model)
        if blocks is not None:
            for points in section.points:
                yield from _missing_points(place, points_label(points), model, blocks)


def _no_mode_problems(place: str, modes: Sequence[str], backends: Sequence[str]) -> Iterator[str]:
    """A section that no backend of the grid can run."""
    if not any(mode in MODES[backend] for backend in backends for mode in modes):
        known = "; ".join(f"{backend} has {', '.join(MODES[backend])}" for backend in backends)
        yield f"[{place}] mode {', '.join(modes)}: none that these backends have ({known})"


def _no_way_problems(
    place: str, section: Forward | Memory, backends: Sequence[str], together: bool
) -> Iterator[str]:
    """A section whose ways no backend of the grid has, and a model that a peer cannot load."""
    ways = [name for name in section.strategy if name not in (REFERENCE, TWIN)]
    if ways and not any(has(backend, way) for backend in backends for way in ways):
        owners = {peer for peer, names in PEERS.items() for way in ways if way in names}
        yield f"[{place}] strategy {', '.join(ways)}: a way of {' or '.join(sorted(owners or {'Keras'}))}"
    if not any(has_dtype(backend, dtype) for backend in backends for dtype in section.dtype):
        yield f"[{place}] dtype {', '.join(section.dtype)}: a policy of Keras, which no peer has"
    for peer in filter(PEERS.__contains__, backends):
        if together and not all(has_dtype(peer, dtype) for dtype in section.dtype):
            yield f"[{place}] dtype {', '.join(section.dtype)}: a policy of Keras, which {peer} has not"
        for model in section.model:
            if model != "minilm" and ":" not in model:
                yield f"[{place}] model '{model}': {peer} has pretrained weights alone: take minilm"


def _apart_problems(grid: Grid) -> Iterator[str]:
    """Backends that take turns read the same hidden states in one number format: those of the first one,
    with which the others compare their own."""
    jobs = [job for job in planning.timed_jobs(grid) if job.block == 0]

    def read(job: planning.Job) -> dict[tuple[Case, str], Case]:
        cases = (task.case for task in job.tasks if task.suite == "forward")
        compared = (case for case in cases if case.mode not in ("predict", "train"))
        return {(job.rotates(case), case.dtype): case for case in compared}

    for what, names in (
        ("dtype", {task.case.dtype for job in jobs for task in job.tasks if task.suite == "forward"}),
        ("device", {job.device for job in jobs}),
    ):
        if len(names) > 1:
            yield f"{what} {', '.join(sorted(names))}: one alone where all take turns (together = true)"
    known = read(jobs[0]) if jobs else {}
    for job in jobs:
        for key, case in read(job).items():
            if key not in known and job.backend != jobs[0].backend:
                yield (
                    f"{case.group}: all take turns (together = true), and the first backend, "
                    f"{jobs[0].backend}, has nothing to compare it with"
                )


def _missing_points(place: str, points: str, model: str, blocks: int) -> Iterator[str]:
    """Points that a model with so many blocks does not have."""
    least = SELECTIONS.get(points, 1)
    if blocks < least:
        yield f"[[{place}]] points '{points}' needs {least} block{'s' * (least > 1)}: {model} has {blocks}"
        return
    for name in [] if points in SELECTIONS else points.split(","):
        if name.startswith("block_") and int(name.removeprefix("block_")) >= blocks:
            yield f"[[{place}]] point '{name}': {model} has block_0 to block_{blocks - 1}"
        if name.lstrip("-").isdigit() and not -blocks - 1 <= int(name) <= blocks:
            yield f"[[{place}]] point {name}: {model} has points 0 (embeddings) to {blocks} (last block)"


def _points_problems(place: str, points: str | list[str | int]) -> Iterator[str]:
    known = (*SELECTIONS, "embeddings", "block_0", "final_norm")
    if isinstance(points, str) and points in SELECTIONS:
        return
    if points == []:
        yield f"[[{place}]] points has an empty list: name at least one point"
    for name in str(points).split(",") if isinstance(points, str) else map(str, points):
        if not _POINT.fullmatch(name):
            yield f"unknown point '{name}' in [[{place}]]{nearest(name, known)}"


def _model_problems(
    place: str, model: str, batches: Sequence[int], lengths: Sequence[int], catalogue: Catalogue
) -> Iterator[str]:
    catalogue.check_model(model)
    longest = catalogue.max_length(model)
    for batch in batches:
        if batch < 1:
            yield f"[{place}] batch {batch}: must be at least 1"
    for length in lengths:
        if length < 3:
            yield f"[{place}] length {length}: must be at least 3 (start, one token, end)"
        if longest is not None and length > longest:
            yield f"[{place}] length {length}: {model} takes at most {longest} tokens"


def _suite_problems(grid: Grid, catalogue: Catalogue) -> Iterator[str]:
    if grid.lookup:
        if not grid.lookup.layers or min(grid.lookup.layers) < 2:
            yield f"[lookup] layers = {grid.lookup.layers}: must list numbers of at least 2"
        if any(not 0 <= position <= 1 for position in grid.lookup.positions):
            yield f"[lookup] positions = {grid.lookup.positions}: shares between 0 and 1"
    if grid.growth:
        growth = grid.growth
        if growth.calls < 2:
            yield f"[growth] calls = {growth.calls}: must be at least 2"
        for mode in growth.mode:
            if mode not in GROWTH_MODES:
                yield f"unknown mode '{mode}' in [growth]{nearest(mode, GROWTH_MODES)}"
        yield from _no_mode_problems("growth", growth.mode, grid.backend)
        for model in growth.model:
            yield from _model_problems("growth", model, [growth.batch], [growth.length], catalogue)
    for section in grid.points:
        yield from _elsewhere("points", "backend", section.backend, grid.backend)
        for axis in ("model", "depth", "way"):
            if not getattr(section, axis):
                yield f"[[points]] {axis} is empty: nothing would be looked for"
        for model in section.model:
            if model not in catalogue.surveyed:
                yield f"unknown model '{model}' in [[points]]{nearest(model, catalogue.surveyed)}"
        for way in section.way:
            if way not in FINDING:
                yield f"unknown way '{way}' in [[points]]{nearest(way, FINDING)}"
        if min(section.depth, default=2) < 2:
            yield f"[[points]] depth = {section.depth}: at least 2 blocks, since nothing repeats in one"
    if grid.dataset:
        dataset = grid.dataset
        if not dataset.examples or min(dataset.examples) < 1:
            yield f"[dataset] examples = {dataset.examples}: must list numbers of at least 1"
        for model in dataset.model:
            yield from _model_problems("dataset", model, [dataset.batch], [dataset.length], catalogue)
