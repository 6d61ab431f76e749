"""A grid: one TOML file that says what is measured, and the names that may stand in it.

`[time]` says how precisely and how long, each `[[forward]]` and `[[memory]]` is a product of axes, so is each
`[[points]]`; `[lookup]`, `[growth]` and `[dataset]` are suites of one table each. Here a file becomes a
`Grid`; `checking` finds every error of one before anything runs, `planning` makes cases and jobs of it.
Nothing here imports Keras.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Literal

import msgspec

from hiddencost.errors import UserError, nearest
from hiddencost.records import Header

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
WITH_OUTPUT = ("on_request", "functional_freed")
"""Ways that are measured for the model's own output too: it is not the plain forward pass that gives it."""
FINDING = ("hidden_states", "listed_attribute", "numbered_names")
"""Ways to find hidden states: by the graph, and by two rules that need none."""
GATED = {
    "seconds": 0.01,
    "overhead_ratio": 0.01,
    "lookup_slope_ratio": 0.10,
    "lookup_seconds_per_layer": 0.10,
    "peak_heap_bytes": 0.01,
    "payload_bytes": 0.0,
    "traces": 0.0,
    "peak_device_bytes": 0.01,
    "compiled_temp_bytes": 0.01,
    "compiled_output_bytes": 0.0,
    "compiled_flops": 0.0,
    "compiled_operations": 0.0,
}
"""What the gate compares, with the relative change from which it counts unless `[gate]` says otherwise."""


class _Table(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A table of a grid file; an unknown key is an error."""


class Time(_Table, omit_defaults=True):
    """What has its default is not told to workers: those of the other side of a gate may be older than a key.

    precision: the wanted half-width of an interval, as a ratio. seconds: the most that one group's
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


AXES = _Axes.__struct_fields__


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


def has_dtype(backend: str, dtype: str) -> bool:
    """Whether a backend has the number format: mixed precision is a policy of Keras, which no peer has."""
    return backend not in PEERS or not dtype.startswith("mixed")


def bench_folder() -> Path:
    """The folder with the suites and grids: inside the package when installed from a wheel, beside
    `src` in a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "bench"
    return inside if inside.is_dir() else package.parents[1] / "bench"


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
