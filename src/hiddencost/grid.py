"""TOML -> the planned cases, in a stable order. Every error of a grid is found here, before anything runs.

A grid is one file: `[time]` says how precisely and how long, each `[[forward]]` and `[[memory]]` is a
product of axes, so is each `[[points]]`; `[lookup]`, `[growth]` and `[dataset]` are suites of one table
each. Nothing here imports Keras: the names that exist come in as a `Catalogue`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Literal

import msgspec

from hiddencost.errors import UserError, nearest
from hiddencost.records import OUTPUT, REFERENCE, SINGLE_BLOCK, TWIN, Case, Header, Origin

MODES = {
    "tensorflow": ("eager", "graph", "xla", "predict", "train"),
    "jax": ("eager", "jit", "predict", "train"),
    "torch": ("eager", "eager_grad", "compile", "export", "predict", "train"),
    "transformers": ("eager", "compile"),
    "nnsight": ("eager",),
    "transformer_lens": ("eager",),
}
"""How each backend can run a model. The last three are no backends of Keras but peers (see PEERS)."""
PEERS = {
    "transformers": (
        "output_hidden_states",
        "forward_hooks",
        "forward_hooks_stopping",
        "truncated_model",
        "fx_graph",
    ),
    "nnsight": ("trace", "trace_stopped"),
    "transformer_lens": ("run_with_cache", "stop_at_layer"),
}
"""The ways of each peer: another library that reads hidden states out of the same weights."""
COMPILED_MODES = ("graph", "xla", "jit", "compile", "export")
ALL_MODES = tuple(dict.fromkeys(mode for modes in MODES.values() for mode in modes))
MEMORY_MODES = tuple(mode for mode in ALL_MODES if mode != "predict")
GROWTH_MODES = ("eager", *COMPILED_MODES)
DEVICES = ("cpu", "gpu")
DTYPES = ("float32", "bfloat16", "mixed_bfloat16")
SELECTIONS = {"last": 1, "middle": 2, "last_four": 4, "all": 1}
"""Selections of hidden states by a word, and how many blocks each needs."""
LOOKUPS = ("get_layer_name", "get_layer_index", "layers_property", "dict_in_advance")
WITH_OUTPUT = ("on_request", "functional_freed")
"""Ways that are measured for the model's own output too: it is not the plain forward pass that gives it."""
PREDICT_BATCHES = 4
"""Batches in the data set of a forward case in mode `predict`."""

FINDING = ("hidden_states", "listed_attribute", "numbered_names")
"""Ways to find hidden states: by the graph, and by two rules that need none."""

Suite = Literal["forward", "growth", "lookup", "memory", "resident", "device", "dataset", "points"]
TIMED_SUITES: tuple[Suite, ...] = ("forward", "dataset", "lookup", "growth")
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
GATED = {
    "seconds": 0.01,
    "overhead_ratio": 0.01,
    "lookup_slope_ratio": 0.10,
    "peak_heap_bytes": 0.01,
    "payload_bytes": 0.0,
    "traces": 0.0,
    "compiled_temp_bytes": 0.01,
    "compiled_output_bytes": 0.0,
    "compiled_flops": 0.0,
    "compiled_operations": 0.0,
}
"""What the gate compares, with the relative change from which it counts unless `[gate]` says otherwise."""
_POINT = re.compile(r"embeddings|final_norm|block_\d+|-?\d+")


class _Table(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A table of a grid file; an unknown key is an error."""


class Time(_Table):
    """precision: the wanted half-width of an interval, as a ratio. seconds: the most that one group's
    rotation may take in one block. budget: the seconds that all timing blocks should take together; the
    rotations are shortened or lengthened to fit it, `seconds` then being their proportions. threads: for
    one operation. keep_programs: what one process has compiled is loaded by the next ones, where the backend
    can (JAX): for a GPU, where compiling takes many times as long as all calls. Its first calls are not told
    then, and an interval between blocks holds for those programs, chosen once."""

    blocks: int = 5
    precision: float = 0.01
    seconds: float = 8.0
    budget: float | None = None
    min_rounds: int = 6
    threads: int = 1
    keep_programs: bool = False


class _Axes(_Table):
    """The axes whose product a section plans."""

    model: list[str]
    strategy: list[str]
    points: list[str | list[str | int]]
    mode: list[str]
    batch: list[int]
    length: list[int]
    dtype: list[str] = msgspec.field(default_factory=lambda: ["float32"])


class Forward(_Axes):
    """Cases timed against the reference: the product of all axes.

    seconds: overrides `[time] seconds` for the groups of this section. A group that two sections name
    is measured once, with the larger of the two.
    optional: left out, in all blocks, where the first block has used up its share of `[time] budget`
    before it gets there (a slow machine).
    backend, device: those of the grid's backends and devices that measure it; all of them if not given.
    """

    seconds: float | None = None
    optional: bool = False
    backend: list[str] | None = None
    device: list[str] | None = None


class Memory(_Axes, kw_only=True):
    """Cases whose memory is read. reading: `heap` (memray, one process for each strategy and mode),
    `resident` (kernel and sampler, a fresh process for every case), both on a CPU alone, or `device` (the
    backend's own count, on a GPU alone). backend: as in [[forward]]."""

    reading: Literal["heap", "resident", "device"]
    backend: list[str] | None = None


class Lookup(_Table):
    """layers: model sizes; positions: which positions are looked up in the largest model, as shares."""

    layers: list[int]
    positions: list[float]


class Growth(_Table):
    """A way that builds at each call against one that is built once, over `calls` calls in turn."""

    model: list[str]
    mode: list[str]
    batch: int
    length: int
    calls: int


class Dataset(_Table):
    """`predict` over data sets of several sizes: final output, all hidden states, pooled in the graph; beside
    it all of them streamed to files."""

    model: list[str]
    batch: int
    length: int
    examples: list[int]
    seconds: float | None = None


class Points(_Table):
    """`[[points]]`: are the hidden states found where they are?

    model: those whose blocks are known by hand (`survey`). depth: how many blocks they are made with. way:
    names of FINDING. backend: as in [[forward]].
    """

    model: list[str]
    depth: list[int]
    way: list[str] = msgspec.field(default_factory=lambda: ["hidden_states"])
    backend: list[str] | None = None


class Grid(_Table):
    """A whole grid file. backend, device: every section is measured with each, in the modes that it has.
    together: all of them take turns, call by call, so that the times of one can be compared with another's.
    gate: the relative change from which a metric counts as moved, by its name."""

    name: str
    seed: int = 358
    backend: list[str] = msgspec.field(default_factory=lambda: ["tensorflow"])
    device: list[str] = msgspec.field(default_factory=lambda: ["cpu"])
    together: bool = False
    time: Time = msgspec.field(default_factory=Time)
    forward: list[Forward] = []
    memory: list[Memory] = []
    lookup: Lookup | None = None
    growth: Growth | None = None
    dataset: Dataset | None = None
    points: list[Points] = []
    gate: dict[str, float] = {}

    @property
    def thresholds(self) -> dict[str, float]:
        """The relative change from which each metric counts as moved: the grid's own, else the usual one."""
        return {**GATED, **self.gate}


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


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """A planned case and the suite that measures it. seconds: the cap of its group's rotation. optional:
    may be left out for want of time."""

    suite: Suite
    case: Case
    seconds: float = 0.0
    calls: int = 0
    optional: bool = False


class Fault(msgspec.Struct, frozen=True, kw_only=True):
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


class Job(msgspec.Struct, frozen=True, kw_only=True):
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


AXES = ("model", "strategy", "points", "mode", "batch", "length", "dtype")


def read(path: Path) -> tuple[Grid, str]:
    """A grid file and its text. Raises UserError naming the file and the key."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"grid {path}: cannot be read: {error}") from None
    return parse(text, str(path)), text


def parse(text: str, source: str) -> Grid:
    """A grid from TOML text; `source` names it in errors."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"grid {source}: not valid TOML: {error}") from None
    try:
        return msgspec.convert(raw, Grid)
    except msgspec.ValidationError as error:
        raise UserError(f"grid {source}: {_with_suggestion(str(error))}") from None


def planned_in(header: Header, source: str) -> Grid:
    """The grid that a run planned. Raises UserError where its header does not hold it."""
    try:
        return msgspec.json.decode(header.plan, type=Grid)
    except msgspec.DecodeError:
        raise UserError(f"{source}: cannot be resumed: its first line does not hold its plan") from None


def _with_suggestion(message: str) -> str:
    """msgspec's message, with the nearest right key where the key is unknown."""
    found = re.search(r"unknown field `([^`]*)`(?: - at `\$\.?([^`]*)`)?", message)
    if not found:
        return message.replace("`$.", "`")
    key, place = found[1], re.sub(r"\[.*", "", found[2] or "")
    tables: dict[str, type[_Table]] = {
        "": Grid,
        "time": Time,
        "forward": Forward,
        "memory": Memory,
        "lookup": Lookup,
        "growth": Growth,
        "dataset": Dataset,
        "points": Points,
    }
    fields = tables[place].__struct_fields__
    where = f" in [{place}]" if place else ""
    return f"unknown key '{key}'{where}{nearest(key, fields)}"


def override(grid: Grid, axes: dict[str, list[str]] | dict[str, list[int]], time: dict[str, float]) -> Grid:
    """The grid with some axes replaced in every [[forward]] and [[memory]] section, and the backends and
    devices and some `[time]` values everywhere. Of [growth], [dataset] and [[points]] only the model is."""
    raw = msgspec.to_builtins(grid)
    raw.update({name: axes[name] for name in ("backend", "device") if name in axes})
    for name, values in axes.items():
        if name in ("backend", "device"):
            continue
        for section in raw["forward"]:
            section[name] = list(values)
        for section in raw["memory"]:
            section[name] = [value for value in values if value != "predict"]
        for section in (raw["growth"], raw["dataset"]):
            if section and name == "model":
                section["model"] = list(values)
        for section in raw["points"]:
            if name == "model":
                section["model"] = list(values)
    for name in ("forward", "memory", "points"):
        for section in raw[name]:
            for ground in ("backend", "device"):
                if ground in axes and section.get(ground):
                    section[ground] = [one for one in section[ground] if one in axes[ground]]
        raw[name] = [
            section
            for section in raw[name]
            if section.get("mode", True) and section["backend"] != [] and section.get("device") != []
        ]
    if "backend" in axes and "mode" not in axes:  # what only others could run
        able = {mode for backend in axes["backend"] for mode in MODES.get(str(backend), ALL_MODES)}
        for name in ("forward", "memory"):
            kept = [section for section in raw[name] if able & set(section["mode"])]
            raw[name] = kept or raw[name]
    raw["time"].update(time)
    if "seconds" in time:
        for section in [*raw["forward"], *filter(None, [raw["dataset"]])]:
            section["seconds"] = None
    return msgspec.convert(raw, Grid)


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
    if time.budget is not None and grid.together:
        yield "[time] budget: not where all take turns (together = true): `seconds` says how long they do"
    if time.keep_programs and grid.growth:
        yield "[time] keep_programs: not with [growth], which times the first call of each process"
    if time.budget is not None and not time.budget > 0:
        yield f"[time] budget = {time.budget}: must be above 0 seconds"
    for name, threshold in grid.gate.items():
        if name not in GATED:
            yield f"unknown metric '{name}' in [gate]{nearest(name, GATED)}"
        if not 0 <= threshold < 10:
            yield f"[gate] {name} = {threshold}: must be at least 0 and below 10, such as 0.01 for 1 %"
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
    if not any(_known(backend, dtype) for backend in backends for dtype in section.dtype):
        yield f"[{place}] dtype {', '.join(section.dtype)}: a policy of Keras, which no peer has"
    for peer in filter(PEERS.__contains__, backends):
        if together and not all(_known(peer, dtype) for dtype in section.dtype):
            yield f"[{place}] dtype {', '.join(section.dtype)}: a policy of Keras, which {peer} has not"
        for model in section.model:
            if model != "minilm" and ":" not in model:
                yield f"[{place}] model '{model}': {peer} has pretrained weights alone: take minilm"


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


def points_label(points: str | list[str | int]) -> str:
    """A selection as it stands in `Case.points`: a list becomes comma-joined."""
    return points if isinstance(points, str) else ",".join(map(str, points))


def known_backend(name: str) -> str:
    """The name, where it is that of one of Keras's backends. Raises UserError."""
    known = [backend for backend in MODES if backend not in PEERS]
    if name not in known:
        raise UserError(f"unknown backend '{name}'{nearest(name, known)}")
    return name


def has(backend: str, strategy: str) -> bool:
    """Whether a way is one of the backend's: a peer has its own, and all others are Keras's."""
    owner = next((peer for peer, ways in PEERS.items() if strategy in ways), None)
    return owner == (backend if backend in PEERS else None)


def _known(backend: str, dtype: str) -> bool:
    """Whether a backend has the number format: mixed precision is a policy of Keras, which no peer has."""
    return backend not in PEERS or not dtype.startswith("mixed")


def _forward_cases(section: Forward | Memory, backend: str) -> Iterator[Case]:
    """The section's product, each group led by its reference (and, for times, its twin)."""
    timed = isinstance(section, Forward)
    modes = [mode for mode in section.mode if mode in MODES[backend]]
    strategies = [name for name in section.strategy if name in (REFERENCE, TWIN) or has(backend, name)]
    dtypes = [dtype for dtype in section.dtype if _known(backend, dtype)]
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
    tasks = {
        (backend, device): tuple(
            _on(device, _timed_tasks(grid, backend, device, (backend, device) == grounds[0]))
        )
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


def bench_folder() -> Path:
    """The folder with the suites and grids: inside the package when installed from a wheel, beside
    `src` in a checkout."""
    inside = Path(__file__).parent / "bench"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "bench"


def grid_path(name: str) -> Path:
    """A grid by the name of one that is shipped (`smoke`), or by its file. Raises UserError for neither."""
    folder = bench_folder() / "grids"
    shipped = {path.stem: path for path in sorted(folder.glob("*.toml"))}
    if name in shipped:
        return shipped[name]
    if Path(name).is_file():
        return Path(name)
    if name.endswith(".toml") or "/" in name:
        raise UserError(f"grid file {name} does not exist")
    raise UserError(f"unknown grid '{name}'{nearest(name, shipped)}, or a TOML file")
