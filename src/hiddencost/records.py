"""The frozen records that join the measuring half and the reading half.

A run is a list of lines in a file: one `Header`, an `Environment` for each process that measured,
and a `Measurement` for each case and metric. Everything else (`Comparison`, `Verdict`, `Answer`) is
computed from those and is never stored. Nothing here imports Keras.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec

SCHEMA_VERSION = 1

State = Literal["ok", "wrong", "crashed", "timeout", "out_of_memory", "skipped"]
Word = Literal["same", "faster", "slower", "smaller", "larger", "unclear", "missing"]
AnswerWord = Literal["holds", "does not hold", "depends", "not measured"]

REFERENCE = "final_only"
TWIN = "reference_again"
SINGLE_BLOCK = "single_block"
OUTPUT = "output"
"""The value of `Case.points` when a way returns the model's own outputs and no hidden state."""
STACK = "#"
"""Stands in `Case.model` between the model's name and that of one of its stacks of blocks."""

OVER_BUDGET = "over_budget"
"""A note that marks a case as left out of all blocks for want of time."""
KIND = "kind"
"""A note of what kind a model is that was looked into: of `survey.KINDS`."""
ROUNDS_WANTED = "rounds_wanted"
"""A note on `seconds` that time ended before the wanted precision: the rounds which that would take."""

OTHER_SIDE = "the other side could not run it"
"""The reason of a case that was right and has no times, since the worker that it takes turns with failed."""

TOGETHER = "together"
"""A note on `seconds` of calls that took turns with those of other processes: with which ones. Their places
count the calls of all."""


class Case(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What is measured: identity and nothing else. Hashable; `str(case)` is the label and pytest id.

    points: `last`, `middle`, `last_four`, `all`, a comma-joined list of names, or `output` (see OUTPUT).
    reduction: `none`, or `mean` (over tokens, inside the model).
    layers, position: only for lookups: the model's number of layers and the position looked up. Where hidden
    states are looked for, layers is the number of blocks in each stack, and strategy how they are found.
    examples: only for `predict`: the number of examples in the data set.
    task: only where hidden states are judged by what can be learnt from them: what is learnt.
    """

    model: str
    strategy: str
    points: str = OUTPUT
    mode: str = "eager"
    batch: int = 0
    length: int = 0
    backend: str = "tensorflow"
    device: str = "cpu"
    dtype: str = "float32"
    reduction: str = "none"
    layers: int | None = None
    position: int | None = None
    examples: int | None = None
    task: str = ""

    def __str__(self) -> str:
        parts = [self.model, self.mode]
        if self.length:
            parts.append(f"{self.batch}x{self.length}")
        if self.examples is not None:
            parts.append(f"{self.examples}examples")
        if self.layers is not None:
            parts.append(f"{self.layers}layers")
        if self.position is not None:
            parts.append(f"at{self.position}")
        if self.task:
            parts.append(self.task)
        parts.append(self.strategy)
        if self.points != OUTPUT:
            parts.append(self.points)
        if self.reduction != "none":
            parts.append(self.reduction)
        for value, default in (
            (self.backend, "tensorflow"),
            (self.device, "cpu"),
            (self.dtype, "float32"),
        ):
            if value != default:
                parts.append(value)
        return "-".join(parts)

    def with_(self, **changes: object) -> Case:
        """The same case with some fields changed."""
        return msgspec.structs.replace(self, **changes)

    @property
    def slim(self) -> Case:
        """The same case, whose names are shared with all others that have them: of cases that were read, each
        has texts of its own."""
        shared = {name: sys.intern(getattr(self, name)) for name in _NAMES}
        return self.with_(**shared)

    @property
    def group(self) -> Case:
        """The reference case of the same model, mode and shape: cases of one group are timed in one
        rotation, on the same inputs, and are paired with this case."""
        return self.with_(strategy=REFERENCE, points=OUTPUT, reduction="none")

    @property
    def model_alone(self) -> Case:
        """The case of what is told of a model however it is called: loading it, its weights."""
        return Case(
            model=self.model,
            strategy=REFERENCE,
            backend=self.backend,
            device=self.device,
            dtype=self.dtype,
        )


_NAMES = ("model", "strategy", "points", "mode", "backend", "device", "dtype", "reduction", "task")

Origin = tuple[int, str, str]
"""A block, with its backend and device: what one process measured, or several one after the other, on one
machine."""


class Measurement(msgspec.Struct, frozen=True, kw_only=True, tag="measurement", omit_defaults=True, gc=False):
    """The raw values of one metric of one case in one process. Raises ValueError for what cannot have been
    measured: a number that is not finite, a negative one, a call without duration, places that do not match.

    metric: a name of METRICS, which carries the unit.
    values: in the order taken.
    places: for `seconds`, where each value stands in the sequence of all calls of its group.
    effect: of a rotation that one process called alone, what the case adds to the log time of a call there,
    up to a constant that its cases share (`stats.effects`): fitted once, when the rotation ends.
    state, reason: `ok`, or what happened instead of values, in a sentence.
    block: the process it came from; timings of one block share that process.
    notes: facts that qualify the values, such as those named above.
    """

    case: Case
    metric: str
    values: tuple[float, ...] = ()
    places: tuple[int, ...] = ()
    effect: float | None = None
    state: State = "ok"
    reason: str = ""
    block: int = 0
    notes: dict[str, str] = {}

    def __post_init__(self) -> None:
        # At once for what most are; a run has millions of them.
        if self.values and not (min(self.values) > 0 and sum(self.values) < math.inf):
            timed = self.metric in ("seconds", "lookup_seconds")
            if not all(
                math.isfinite(value) and (value > 0 if timed else value >= 0) for value in self.values
            ):
                raise ValueError(f"{self.metric} of {self.case} cannot be {list(self.values)}")
        if self.effect is not None and not (self.values and math.isfinite(self.effect)):
            raise ValueError(f"the effect of {self.case} cannot be {self.effect}")
        if self.places and (len(self.places) != len(self.values) or min(self.places) < 0):
            raise ValueError(f"{len(self.places)} places for {len(self.values)} values of {self.case}")

    @property
    def origin(self) -> Origin:
        return self.block, self.case.backend, self.case.device


class Environment(msgspec.Struct, frozen=True, kw_only=True, tag="environment", omit_defaults=True):
    """Where one process measured, with which backend and on which device; `gpu` is that one's name, memory
    and driver. `node` is the name of the machine, where a run has several. `settings` are the variables and
    thread counts that it ran under; `warnings` say what makes its timings unreliable."""

    block: int
    backend: str = "tensorflow"
    device: str = "cpu"
    gpu: str = ""
    node: str = ""
    versions: dict[str, str]
    python: str
    system: str
    processor: str
    cores: int
    memory_bytes: int
    threads: dict[str, int]
    load: tuple[float, float, float]
    settings: dict[str, str] = {}
    warnings: tuple[str, ...] = ()

    @property
    def origin(self) -> Origin:
        return self.block, self.backend, self.device

    def versions_beside(self, other: Environment) -> Iterator[tuple[str, str | None, str | None]]:
        """What differs, with this one's version and the other's, None where it is not installed: packages by
        name, then `python`."""
        for name in sorted(self.versions.keys() | other.versions.keys()):
            if self.versions.get(name) != other.versions.get(name):
                yield name, self.versions.get(name), other.versions.get(name)
        if self.python != other.python:
            yield "python", self.python, other.python


class Lost(msgspec.Struct, frozen=True, kw_only=True, tag="lost", omit_defaults=True):
    """What a block has reported so far, on a backend and device, does not count: it is measured anew."""

    block: int
    backend: str
    device: str
    reason: str

    @property
    def origin(self) -> Origin:
        return self.block, self.backend, self.device


class Header(msgspec.Struct, frozen=True, kw_only=True, tag="header", omit_defaults=True):
    """The first line of a results file: what was planned, by which command, from which source.

    grid: the grid file's text. plan: the grid with the command line's changes, as JSON, to resume from.
    warnings: what made timings unreliable on this machine just before the run began.
    """

    schema_version: int
    hiddencost_version: str
    started: str
    command: str
    grid_name: str
    grid: str
    seed: int
    git_commit: str
    plan: str = ""
    planned: tuple[Case, ...] = ()
    warnings: tuple[str, ...] = ()


class Ending(msgspec.Struct, frozen=True, kw_only=True, tag="ending", omit_defaults=True):
    """The last line of a run that was not killed: when and why it ended (`complete`, `interrupted`)."""

    finished: str
    how: str
    seconds: float


Line = Header | Environment | Measurement | Lost | Ending


class Run(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """A results file, read back. What is computed of all of it may be kept with it (`dict=True`)."""

    header: Header
    environments: tuple[Environment, ...]
    measurements: Sequence[Measurement]
    ending: Ending | None = None

    @property
    def gpus(self) -> tuple[str, ...]:
        """The names of the GPUs that processes ran on, each once, without their memory and driver."""
        return tuple(dict.fromkeys(one.gpu.partition(",")[0] for one in self.environments if one.gpu))


class Metric(msgspec.Struct, frozen=True):
    """A metric: its name ends with its unit, `what` says how it is taken."""

    name: str
    unit: str
    what: str


METRICS = (
    Metric("seconds", "s", "one steady call, in rotation with the reference of its group"),
    Metric("build_seconds", "s", "making the callable from the loaded model, once"),
    Metric("first_call_seconds", "s", "the first call: trace and compile where the mode does, and run"),
    Metric(
        "host_copy_seconds", "s", "bringing all that the first call returned to NumPy, when it is computed"
    ),
    Metric(
        "host_copy_pinned_seconds",
        "s",
        "the same into page-locked memory that was taken before, without NumPy",
    ),
    Metric("import_seconds", "s", "importing the package in a fresh process, on top of those before it"),
    Metric("load_seconds", "s", "loading the model with its weights"),
    Metric("growth_seconds", "s", "each of many calls in turn, the same callable"),
    Metric("growth_bytes", "B", "resident set after each of many calls in turn"),
    Metric("growth_traces", "", "how often the backend has traced during the many calls"),
    Metric("traces", "", "how often the backend traced the callable"),
    Metric("lookup_seconds", "s", "one look-up of a layer"),
    Metric("peak_heap_bytes", "B", "most heap live at one time during one warm call (memray)"),
    Metric("peak_rss_bytes", "B", "growth of the resident set's high-water mark during one call (kernel)"),
    Metric("peak_rss_sampled_bytes", "B", "the same, by memory-profiler's sampler"),
    Metric(
        "peak_device_bytes",
        "B",
        "most device memory in use at one time during one warm call, as its backend counts it; on JAX as the "
        "compiled program plans it",
    ),
    Metric("compiled_temp_bytes", "B", "memory that the compiled program plans beside inputs and outputs"),
    Metric("compiled_output_bytes", "B", "memory that the compiled program plans for its outputs"),
    Metric("compiled_flops", "", "floating-point operations of the compiled program, as XLA counts them"),
    Metric("compiled_operations", "", "operations of the traced graph, before it is optimized"),
    Metric("output_bytes", "B", "bytes of everything that the call returned"),
    Metric("payload_bytes", "B", "bytes of the hidden states asked for, from their shapes"),
    Metric("weights_bytes", "B", "bytes of the model's own weights"),
    Metric("stacks", "", "stacks of blocks that the model has, as written down by hand"),
    Metric("stacks_right", "", "those of them that are found whole, in order and with bit-equal values"),
    Metric("stacks_wrong", "", "what else is taken for a stack"),
    Metric("resolve_seconds", "s", "finding the hidden states, once"),
    Metric("states_difference", "", "largest difference to what the blocks returned in an untouched pass"),
    Metric("control_difference", "", "smallest one of the hidden states that are one block off"),
    Metric("outputs_difference", "", "largest one of the model's own outputs, by a freed run of its graph"),
    Metric("held_out_accuracy", "%", "share of examples that what was learnt from others labels rightly"),
    Metric("max_abs_difference", "", "difference to the layer-by-layer values, of max(1, the largest)"),
)

UNIT_OF = {**{metric.name: metric.unit for metric in METRICS}, "lookup_seconds_per_layer": "s"}


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """A case against another, paired: the ratio of one metric with its 95 % interval.

    ratio, low, high: case / against. With fewer than five blocks low and high are None.
    smallest_detectable: the smallest relative effect that these pairs would have shown with 80 % power.
    """

    case: Case
    against: Case
    metric: str
    ratio: float
    low: float | None
    high: float | None
    pairs: int
    blocks: int
    smallest_detectable: float | None


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """A comparison and one word. `band` is the interval of the group's A/A twin, hull with 1."""

    comparison: Comparison | None
    word: Word
    band: tuple[float, float] | None = None
    reason: str = ""


class Change(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the gate says of one metric of one case, before and after.

    metric: a name of METRICS, a ratio within a run (`overhead_ratio`, `lookup_slope_ratio`), or a slope
    (`lookup_seconds_per_layer`).
    ratio, low, high: after / before with its 95 % interval; exact metrics have none.
    smallest_detectable: the smallest relative slowdown that would have been told with 80 % power.
    It is beyond the threshold: one that just meets it seems smaller every other time.
    threshold: the relative change up to which it counts as the same.
    timed: taken from times, and so advisory where timings are.
    """

    case: Case
    metric: str
    word: Word
    before: float | None = None
    after: float | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    smallest_detectable: float | None = None
    threshold: float = 0.0
    timed: bool = False
    reason: str = ""


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """A number that carries an answer, with its interval and the scope it was measured in.

    name: what it is of, in plain words; figures of one name are the same thing in several scopes.
    unit: `s`, `B`, `%` (the value is a share of 1), `points` (a difference of two such), `count`, or nothing
    for a ratio.
    where: the part of the scope that an answer may depend on, such as `in graph`; scope: all of it.
    word: the verdict on a ratio of times against the A/A twin's band.
    """

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    unit: str = ""
    where: str = ""
    scope: Case | None = None
    word: Word | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A question of the issue, with the verdict computed from a run, and the evidence for it.

    facts: what the answer rests on besides the figures, by name: how it was judged, what is missing.
    conditions: where it holds, where it does not, where the measurements do not tell.
    """

    id: str
    word: AnswerWord
    facts: dict[str, str] = {}
    figures: tuple[Figure, ...] = ()
    conditions: str = ""
