"""A full run made up of plausible figures, for tests of the reading half: no Keras, nothing measured.

The figures follow METHOD.md: a 6-block, 384-wide model takes 8 ms at 1 x 16 in graph mode and about
70 ms eagerly, a sub-model that ends at the middle takes 0.52 of that, all points cost nothing beyond
the noise, eager Keras keeps every intermediate, compiled modes do not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from hiddencost.records import (
    SCHEMA_VERSION,
    Case,
    Ending,
    Environment,
    Header,
    Measurement,
    Run,
)

ROUNDS = 12
MEMORY_BLOCK = 100
NOISE_OF_A_SAMPLE = 0.02
NOISE_OF_A_BLOCK = 0.003
MIDDLE = 0.52
CALLS = 50
SWEEP_LENGTHS = (16, 64, 128, 256, 512)
SWEEP_BATCHES = (1, 4, 16)
FULL_SHAPES = ((1, 16), (1, 128), (16, 128))
EXAMPLES = (64, 128, 256, 512)
LAYERS = (12, 22, 50, 100, 300, 1000)

FEW = (
    ("final_only", "output"),
    ("reference_again", "output"),
    ("functional_submodel", "middle"),
    ("functional_submodel", "all"),
    ("functional_submodel_per_call", "middle"),
    ("always_return_all", "all"),
)
FULL = (
    *FEW,
    ("functional_submodel", "last"),
    ("functional_submodel", "last_four"),
    ("get_layer_name", "middle"),
    ("get_layer_index", "middle"),
    ("indexed_in_advance", "middle"),
    ("indexed_in_advance", "all"),
    ("always_return_stacked", "all"),
    ("on_request", "output"),
    ("on_request", "all"),
)

ONE_CALL_OVERHEAD = {"eager": 0.066, "graph": 0.0064, "xla": 0.0058, "predict": 0.009}
FIRST_CALL = {"eager": 0.11, "graph": 0.92, "xla": 2.7, "predict": 1.15}


@dataclass(frozen=True)
class Size:
    """What a model's figures follow from: blocks, width, bytes of weights."""

    blocks: int
    width: int
    weights: int

    def state(self, batch: int, length: int) -> int:
        """Bytes of one hidden state in float32."""
        return batch * length * self.width * 4


SIZES = {
    "minilm": Size(blocks=6, width=384, weights=90_261_504),
    "bert_24x256": Size(blocks=24, width=256, weights=107_372_544),
}
STATES = {"output": 1, "last": 1, "middle": 1, "last_four": 4}


@dataclass
class Recorder:
    """Collects measurements and gives each its noise, from one generator."""

    rng: np.random.Generator
    blocks: int
    lines: list[Measurement] = field(default_factory=list)

    def noisy(self, case: Case, metric: str, value: float, count: int = 1) -> None:
        """`count` values a block around `value`, with the noise of samples and of blocks."""
        for block in range(self.blocks):
            shift = self.rng.normal(0, NOISE_OF_A_BLOCK)
            draws = np.exp(self.rng.normal(shift, NOISE_OF_A_SAMPLE, count)) * value
            self.add(case, metric, draws, block)

    def exact(self, case: Case, metric: str, value: float) -> None:
        """The same value in each block: counts and bytes."""
        for block in range(self.blocks):
            self.add(case, metric, [value], block)

    def add(self, case: Case, metric: str, values: Iterable[float], block: int) -> None:
        """One measurement."""
        taken = tuple(float(value) for value in values)
        self.lines.append(Measurement(case=case, metric=metric, values=taken, block=block))

    def failed(self, case: Case, metric: str, state: str, reason: str) -> None:
        """A measurement without values in each block."""
        for block in range(self.blocks):
            self.lines.append(
                Measurement(case=case, metric=metric, state=state, reason=reason, block=block)  # type: ignore[arg-type]
            )


def synthetic_run(seed: int = 0, blocks: int = 5) -> Run:
    """A full run with `blocks` timing blocks, the same for the same arguments."""
    recorder = Recorder(np.random.default_rng(seed), blocks)
    forward_suite(recorder)
    memory_suite(recorder)
    data_set_suite(recorder)
    lookup_suite(recorder)
    growth_suite(recorder)
    one_off_suite(recorder)
    probing_suite(recorder)
    return Run(
        header=header(recorder.lines, seed),
        environments=tuple(environments(recorder.lines)),
        measurements=tuple(recorder.lines),
        ending=Ending(finished="2025-01-01T01:00:00+00:00", how="complete", seconds=3600.0),
    )


def header(lines: Sequence[Measurement], seed: int) -> Header:
    """The header of a run that planned what it measured."""
    return Header(
        schema_version=SCHEMA_VERSION,
        hiddencost_version="0.0.0",
        started="2025-01-01T00:00:00+00:00",
        command="hiddencost run synthetic",
        grid_name="synthetic",
        grid="",
        seed=seed,
        git_commit="0" * 40,
        planned=tuple(dict.fromkeys(line.case for line in lines)),
    )


def environments(lines: Sequence[Measurement]) -> Iterator[Environment]:
    """One environment for each block that has lines."""
    for block in sorted({line.block for line in lines}):
        yield Environment(
            block=block,
            versions={"keras": "3.15.1", "keras_hub": "0.32.0", "tensorflow": "2.21.0", "numpy": "2.4.6"},
            python="3.11.9",
            system="Linux",
            processor="a synthetic processor",
            cores=2,
            memory_bytes=8 * 2**30,
            threads={"intra_op": 2, "inter_op": 1},
            load=(0.1, 0.1, 0.1),
            settings={"TF_ENABLE_ONEDNN_OPTS": "0"} if block >= MEMORY_BLOCK else {},
        )


def plain_seconds(mode: str, batch: int, length: int) -> float:
    """Seconds of one plain forward pass of the 6-block model."""
    return ONE_CALL_OVERHEAD[mode] + 1e-4 * batch * length * (1 + length / 800)


def payload_bytes(model: str, points: str, batch: int, length: int) -> int:
    """Bytes of the hidden states asked for."""
    size = SIZES[model]
    return STATES.get(points, size.blocks) * size.state(batch, length)


def ratio(strategy: str, points: str, mode: str) -> float:
    """Time of a way as a share of the plain pass."""
    if strategy == "reference_again":
        return 0.997
    share = MIDDLE if points == "middle" else 1.0
    extra = {
        "functional_submodel_per_call": 0.30,
        "always_return_stacked": 0.035,
        "get_layer_name": 0.004,
        "get_layer_index": 0.006,
    }.get(strategy, 0.0)
    return share + extra * (1.0 if mode == "eager" or strategy.startswith("always") else 0.1)


def shapes(mode: str) -> Iterator[tuple[int, int, tuple[tuple[str, str], ...]]]:
    """(batch, length, ways) of the forward suite; `predict` runs the shapes that have every way."""
    wanted = {(1, length) for length in SWEEP_LENGTHS} | {(batch, 128) for batch in SWEEP_BATCHES}
    for batch, length in sorted(wanted):
        full = (batch, length) in FULL_SHAPES
        if full or mode != "predict":
            yield batch, length, FULL if full else FEW


def forward_suite(recorder: Recorder) -> None:
    """Times of the forward suite, with the metrics that go with each case."""
    for mode in ONE_CALL_OVERHEAD:
        for batch, length, ways in shapes(mode):
            for strategy, points in ways:
                case = Case(
                    model="minilm",
                    strategy=strategy,
                    points=points,
                    mode=mode,
                    batch=batch,
                    length=length,
                    examples=4 * batch if mode == "predict" else None,
                )
                forward_case(recorder, case)


def forward_case(recorder: Recorder, case: Case) -> None:
    """The measurements of one case of the forward suite, or why there are none."""
    if case.strategy == "functional_submodel_per_call" and case.mode != "eager":
        recorder.failed(case, "seconds", "skipped", "would trace at every call: see growth")
        return
    if case.strategy == "on_request" and case.mode == "predict" and case.points != "output":
        recorder.failed(case, "seconds", "skipped", "predict cannot pass an argument to call")
        return
    if case.strategy == "always_return_stacked" and case.mode == "xla" and case.length == 16:
        recorder.failed(case, "seconds", "crashed", "the process ended with signal 11")
        return
    batches = 4 if case.mode == "predict" else 1
    share = ratio(case.strategy, case.points, case.mode)
    seconds = share * plain_seconds(case.mode, case.batch, case.length) * batches
    states = payload_bytes(case.model, case.points, case.batch, case.length) * batches
    recorder.noisy(case, "seconds", seconds, ROUNDS)
    recorder.noisy(
        case, "build_seconds", 2e-5 if case.strategy in ("final_only", "reference_again") else 0.012
    )
    recorder.noisy(case, "first_call_seconds", FIRST_CALL[case.mode] * (0.3 + 0.7 * share) + seconds)
    if case.mode in ("graph", "xla"):
        recorder.exact(case, "traces", 1)
    recorder.exact(case, "output_bytes", states)
    recorder.exact(case, "payload_bytes", 0 if case.points == "output" else states)
    recorder.exact(case, "max_abs_difference", 0.0)


def working_set(model: str, mode: str, batch: int, length: int) -> float:
    """Bytes of the largest working set of one block: activations, and attention scores."""
    per_state = 12.0 if mode == "eager" else 8.0
    return SIZES[model].state(batch, length) * (per_state + length / 32)


def peak_heap(case: Case) -> float:
    """Peak heap in bytes: eager Keras holds every intermediate, compiled modes the live set only."""
    size = SIZES[case.model]
    state = size.state(case.batch, case.length)
    block = working_set(case.model, case.mode, case.batch, case.length)
    if case.strategy == "single_block":
        return block
    if case.mode == "eager":
        run = size.blocks // 2 if case.points == "middle" else size.blocks
        return 1.01 * (block + (1 + 1.05 * run) * state) + 3e4
    payload = payload_bytes(case.model, case.points, case.batch, case.length)
    twice = 1.5 if case.strategy == "always_return_stacked" else 1.0
    return 1.02 * (block + payload * twice * (1.15 if case.mode == "graph" else 1.0)) + 3e4


def memory_suite(recorder: Recorder) -> None:
    """Peaks of two models in three modes, each in processes of their own."""
    ways = [
        *(way for way in FULL if way[0] not in ("reference_again", "functional_submodel_per_call")),
        ("single_block", "output"),
    ]
    for model, swept in (("minilm", FULL_SHAPES), ("bert_24x256", memory_shapes())):
        for mode in ("eager", "graph", "xla"):
            for batch, length in swept:
                for strategy, points in ways:
                    memory_case(recorder, model, mode, batch, length, strategy, points)


def memory_shapes() -> tuple[tuple[int, int], ...]:
    """The shapes of the memory sweep: lengths at batch 16, batches at length 128."""
    return (1, 128), (4, 128), (16, 32), (16, 64), (16, 128), (16, 256)


def memory_case(
    recorder: Recorder, model: str, mode: str, batch: int, length: int, strategy: str, points: str
) -> None:
    """The peaks of one case, in one block."""
    case = Case(model=model, strategy=strategy, points=points, mode=mode, batch=batch, length=length)
    peak = peak_heap(case) * float(np.exp(recorder.rng.normal(0, 0.004)))
    recorder.add(case, "peak_heap_bytes", [peak], MEMORY_BLOCK)
    if strategy == "single_block":
        return
    recorder.add(case, "peak_rss_bytes", [peak * 1.05], MEMORY_BLOCK)
    recorder.add(case, "peak_rss_sampled_bytes", [peak * 0.98], MEMORY_BLOCK)
    states = payload_bytes(model, points, batch, length)
    recorder.add(case, "output_bytes", [states], MEMORY_BLOCK)
    recorder.add(case, "payload_bytes", [0 if points == "output" else states], MEMORY_BLOCK)


def data_set_suite(recorder: Recorder) -> None:
    """`predict` over more and more examples: the final output, all hidden states, all of them pooled."""
    ways = (
        ("final_only", "output", "none"),
        ("reference_again", "output", "none"),
        ("always_return_all", "all", "none"),
        ("functional_submodel", "all", "mean"),
    )
    for examples in EXAMPLES:
        for strategy, points, reduction in ways:
            case = Case(
                model="minilm",
                strategy=strategy,
                points=points,
                mode="predict",
                batch=32,
                length=128,
                reduction=reduction,
                examples=examples,
            )
            everything = points == "all" and reduction == "none"
            seconds = plain_seconds("predict", 32, 128) * examples / 32 * (1.09 if everything else 1.0)
            recorder.noisy(case, "seconds", seconds, 4)
            if strategy == "reference_again":
                continue
            returned = SIZES["minilm"].state(examples, 128) * (6 if points == "all" else 1)
            returned //= 128 if reduction == "mean" else 1
            recorder.exact(case, "output_bytes", returned)
            recorder.exact(case, "payload_bytes", 0 if points == "output" else returned)
            kept = 6 if everything else (1 if points == "output" else 6 / 128)
            state = SIZES["minilm"].state(examples, 128)
            recorder.add(case, "peak_heap_bytes", [6e7 + 2.02 * kept * state], MEMORY_BLOCK + 1)


def lookup_suite(recorder: Recorder) -> None:
    """Look-ups of a layer: the last at each layer count, several positions at one count."""
    for layers in LAYERS:
        positions = (0, 25, 50, 75, 99) if layers == 100 else (layers - 1,)
        for position in positions:
            by_way = {
                "get_layer_name": 1.0e-6 + 1.3e-7 * layers + 2.5e-8 * position,
                "get_layer_index": 1.1e-6 + 2.6e-7 * layers,
                "layers_property": 0.5e-6 + 1.3e-7 * layers,
                "dict_in_advance": 4.0e-8,
            }
            for way, seconds in by_way.items():
                case = Case(model="lookup", strategy=way, layers=layers, position=position)
                recorder.noisy(case, "lookup_seconds", seconds, 5)


def growth_suite(recorder: Recorder) -> None:
    """Fifty calls in turn: the sub-model built at each call against the one built once."""
    for mode, cost in (("eager", 0.006), ("graph", 0.24)):
        for strategy, built, grown in (
            ("functional_submodel_per_call", cost, {"eager": 30e3, "graph": 1.4e6}[mode]),
            ("functional_submodel", 0.0, 0.0),
        ):
            case = Case(model="bert_tiny", strategy=strategy, points="middle", mode=mode, batch=1, length=16)
            steady = {"eager": 0.012, "graph": 0.0015}[mode]
            traced = 0.2 if mode == "graph" and not built else 0.0
            grow_case(recorder, case, steady + built, first=traced, grown=grown)
            if mode == "graph":
                recorder.exact(case, "growth_traces", CALLS if built else 1)
    switched = Case(model="bert_tiny", strategy="on_request", points="all", mode="graph", batch=1, length=16)
    recorder.exact(switched, "growth_traces", 2)


def grow_case(recorder: Recorder, case: Case, steady: float, first: float, grown: float) -> None:
    """Seconds and resident bytes of each of `CALLS` calls."""
    for block in range(recorder.blocks):
        draws = np.exp(recorder.rng.normal(0, 3 * NOISE_OF_A_SAMPLE, CALLS)) * steady
        draws[0] += first
        recorder.add(case, "growth_seconds", draws, block)
        pages = np.cumsum(recorder.rng.poisson(grown / 4096, CALLS)) * 4096.0
        recorder.add(case, "growth_bytes", 6.5e8 + pages, block)


def one_off_suite(recorder: Recorder) -> None:
    """Loading, weights and imports."""
    for model, size in SIZES.items():
        case = Case(model=model, strategy="final_only")
        recorder.noisy(case, "load_seconds", 2.1)
        recorder.exact(case, "weights_bytes", size.weights)
    for package, seconds in (("numpy", 0.09), ("tensorflow", 3.9), ("keras", 4.6), ("keras_hub", 6.2)):
        recorder.noisy(Case(model="import", strategy=package), "import_seconds", seconds)


def probing_suite(recorder: Recorder) -> None:
    """What linear probes find: word order falls from block to block, the class rises up to block_3."""
    curves = {
        "word_order": (0.97, 0.97, 0.9, 0.75, 0.6, 0.4, 0.3),
        "semantic_class": (0.5, 0.5, 0.55, 0.62, 0.75, 0.7, 0.65),
    }
    names = ["embeddings", *(f"block_{number}" for number in range(SIZES["minilm"].blocks))]
    for task, curve in curves.items():
        for name, value in zip(names, curve, strict=True):
            case = Case(model="minilm", strategy="linear_probe", points=name, task=task)
            recorder.noisy(case, "held_out_accuracy", value)
            recorder.noisy(case.with_(strategy="random_labels"), "held_out_accuracy", 0.45)
        mixed = Case(model="minilm", strategy="linear_probe", points="all", task=task, reduction="scalar_mix")
        recorder.noisy(mixed, "held_out_accuracy", 0.72)
        recorder.noisy(mixed.with_(reduction="selected"), "held_out_accuracy", 0.73)
