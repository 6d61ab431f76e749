"""One process's work: cases -> measurements. Values first, then times.

Nothing is timed before its values agree with the points computed layer by layer. The cases of a group
(one model, mode and shape) are then called in turn, round by round, so that entry i of each case's
times is from the same moment as entry i of the reference.
"""

from __future__ import annotations

import gc
import random
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from hiddencost import backends, points, stats, strategies
from hiddencost.chain import layer_by_layer
from hiddencost.errors import UserError
from hiddencost.grid import Fault, Task, Time
from hiddencost.models import LoadedModel
from hiddencost.records import OUTPUT, REFERENCE, ROUNDS_WANTED, Case, Measurement, State
from hiddencost.turns import Turns

TOLERANCE = 1e-5
"""Largest difference to the layer-by-layer values, in units of max(1, largest reference value), float32."""
BETWEEN_MODES = 1e-4
"""The same between a compiled mode and eager: other kernels, other rounding."""
PILOT = 0.25
"""Share of the time after which the number of rounds is chosen from the spread seen so far."""
LOOKUP_ROUNDS = 25
LOOKUP_SECONDS = 0.001
VISIT_SECONDS = 0.03
"""How long a side calls before the other one has its turn: long enough that the hand-over costs little,
short enough that the machine is the same (the speed of a shared host wanders by 6 % in 10 ms, by 10 % in
100 ms)."""
FULL_COLLECTIONS = 25
"""Rounds between two full garbage collections; between the others only the youngest generation is."""


class WrongValuesError(Exception):
    """A strategy's values differ from the reference points."""


@dataclass
class Ready:
    """A case that is built, compiled, called once and found right."""

    case: Case
    run: backends.Compiled
    slower: float = 0.0
    seconds: list[float] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    failed: str = ""


class Process:
    """What this process has loaded: models by name, each with its points and its inputs. tell: is told
    each case that the next seconds go to. turns: taken with another worker. fault: what one strategy is
    made worse by."""

    def __init__(
        self,
        block: int,
        seed: int,
        settings: Time,
        tell: Callable[[Case], None] = lambda case: None,
        turns: Turns | None = None,
        fault: Fault | None = None,
    ) -> None:
        self.block = block
        self.seed = seed
        self.settings = settings
        self.tell = tell
        self.turns = turns
        self._fault = fault
        self.load_seconds: dict[str, float] = {}
        self._models: dict[str, tuple[LoadedModel, tuple[points.Point, ...]]] = {}
        self._replays: dict[tuple[str, str], backends.Compiled] = {}
        self._predicting: dict[Case, tuple[strategies.Extraction, backends.Compiled]] = {}

    def model(self, name: str) -> tuple[LoadedModel, tuple[points.Point, ...]]:
        """The model and its points, loaded at the first request."""
        if name not in self._models:
            began = time.perf_counter()
            loaded = LoadedModel(name)
            self.load_seconds[name] = time.perf_counter() - began
            self._models[name] = (loaded, points.hidden_states(loaded.model))
        return self._models[name]

    def measurement(self, case: Case, metric: str, values: Sequence[float], **notes: str) -> Measurement:
        rounded = tuple(float(f"{value:.6g}") if value % 1 else float(value) for value in values)
        return Measurement(case=case, metric=metric, values=rounded, block=self.block, notes=notes)

    def failure(self, case: Case, metric: str, state: State, reason: str) -> Measurement:
        return Measurement(case=case, metric=metric, state=state, reason=reason, block=self.block)

    def fault(self, case: Case) -> Fault:
        """What the case is made worse by: nothing, but where the gate itself is measured."""
        found = self._fault
        return found if found and found.strategy == case.strategy else Fault(strategy=case.strategy)

    def generator(self, what: str) -> random.Random:
        """This block's source of order, the same whenever the run's seed is."""
        return random.Random(zlib.crc32(f"{self.seed}/{self.block}/{what}".encode()))

    def shuffled(self, cases: Sequence[Case], what: str) -> list[Case]:
        """The cases in this block's order."""
        return self.generator(what).sample(list(cases), len(cases))

    def built(self, case: Case) -> strategies.Extraction:
        """The case's strategy on its model. Raises UserError when the model lacks the points."""
        loaded, every = self.model(case.model)
        wanted = () if case.points == OUTPUT else points.select(every, case.points)
        extraction = strategies.find(case.strategy).build(loaded.model, every, wanted)
        return strategies.with_mean(loaded.model, extraction) if case.reduction == "mean" else extraction

    def compiled(self, case: Case) -> tuple[strategies.Extraction, backends.Compiled, float | None]:
        """The case's strategy, compiled, and the seconds that building it took. `predict` over another
        number of examples is the same function: it is kept, and then took no time (None)."""
        key = case.with_(examples=None)
        if key in self._predicting:
            return *self._predicting[key], None
        began = time.perf_counter()
        extraction = self.built(case)
        run = backends.compile_(extraction, case.mode)
        seconds = time.perf_counter() - began
        if case.mode == "predict":
            self._predicting[key] = extraction, run
        return extraction, run, seconds

    def layer_by_layer(self, case: Case, placed: Any) -> list[Any]:
        """The values of all points and then of the model's own outputs, in the case's mode (`predict` runs
        a graph). All layers are one function, traced once for each shape."""
        loaded, every = self.model(case.model)
        targets = [point.tensor for point in every] + list(loaded.model.outputs)
        mode = "graph" if case.mode == "predict" else case.mode
        key = case.model, mode
        if key not in self._replays:
            self._replays[key] = backends.Compiled(
                lambda inputs: layer_by_layer(loaded.model, inputs, targets), mode
            )
        return [backends.to_numpy(value) for value in self._replays[key](placed)]

    def inputs(self, case: Case) -> dict[str, Any]:
        """The NumPy inputs of the case's shape; for `predict` those of the whole data set."""
        rows = case.batch if case.examples is None else case.examples
        return self.model(case.model)[0].inputs(rows, case.length)


def state_of(error: Exception) -> State:
    """`out_of_memory` where a backend or Python says so, else `crashed`."""
    short = isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError"
    return "out_of_memory" if short else "crashed"


def told(error: Exception) -> str:
    """An exception as the reason of a record."""
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"[:500]


def payload_bytes(case: Case, every: Sequence[points.Point]) -> int:
    """Bytes of the hidden states asked for: rows x length x width x 4 for each point (without the length
    where they are reduced to a mean)."""
    if case.points == OUTPUT:
        return 0
    rows = case.batch if case.examples is None else case.examples
    tokens = 1 if case.reduction == "mean" else case.length
    return sum(rows * tokens * point.width * 4 for point in points.select(every, case.points))


def expected_values(process: Process, case: Case, inputs: dict[str, Any]) -> dict[str, Any]:
    """Each point's values by name, computed layer by layer, batch by batch; `output` for the model's own.

    They are computed in the case's mode, as its kernels round differently (graph and eager differ by up
    to 1.3e-5 of the largest value at 1 x 512). Raises WrongValuesError where a compiled mode differs from
    eager by more than BETWEEN_MODES.
    """
    _, every = process.model(case.model)
    batches: list[list[Any]] = []
    rows = len(next(iter(inputs.values())))
    for first in range(0, rows, case.batch):
        part = {name: array[first : first + case.batch] for name, array in inputs.items()}
        placed = backends.place(part, "eager", case.batch)
        found = process.layer_by_layer(case, placed)
        if case.mode != "eager" and not batches:
            eager = process.layer_by_layer(case.with_(mode="eager"), placed)
            for mine, theirs in zip(found, eager, strict=True):
                _same_values(mine, theirs, BETWEEN_MODES)
        batches.append(found)
    whole = [np.concatenate(parts) for parts in zip(*batches, strict=True)]
    values = {point.name: value for point, value in zip(every, whole, strict=False)}
    return {**values, OUTPUT: whole[len(every) :]}


def _same_values(mine: Any, theirs: Any, tolerance: float) -> float:
    """The largest difference, in units of max(1, the largest of `theirs`). Raises WrongValuesError for
    another shape or dtype, or more than `tolerance`."""
    if mine.shape != theirs.shape or mine.dtype != theirs.dtype:
        raise WrongValuesError(f"{mine.dtype}{mine.shape} where {theirs.dtype}{theirs.shape} was expected")
    found = float(np.abs(mine - theirs).max()) / max(1.0, float(np.abs(theirs).max()))
    if not found <= tolerance:  # nor is nan
        raise WrongValuesError(f"values differ by {found:.1e} of the largest, more than {tolerance:.0e}")
    return found


def difference(
    case: Case, result: Any, extraction: strategies.Extraction, process: Process, expected: Any
) -> float:
    """The largest difference to the expected values, in units of the tolerance's scale. Raises
    WrongValuesError for another number, shape or dtype of states."""
    _, every = process.model(case.model)
    if case.points == OUTPUT:
        found, right = backends.tensors(result), expected[OUTPUT]
    else:
        found = extraction.states(result)
        right = [expected[point.name] for point in points.select(every, case.points)]
    if case.reduction == "mean":
        mask = process.inputs(case)["padding_mask"][..., None].astype("float32")
        right = [(value * mask).sum(1) / mask.sum(1) for value in right]
    if len(found) != len(right):
        raise WrongValuesError(f"{len(found)} states where {len(right)} were asked for")
    pairs = zip(map(backends.to_numpy, found), right, strict=True)
    return max((_same_values(mine, theirs, TOLERANCE) for mine, theirs in pairs), default=0.0)


def rotation(process: Process, tasks: Sequence[Task]) -> Iterator[Measurement]:
    """Measures the cases of one group: one-off costs and values of each, then times in rotation.

    Every case yields a measurement of `seconds`: values, or a state with its reason.
    """
    seconds = max(task.seconds for task in tasks)
    cases = process.shuffled([task.case for task in tasks], str(tasks[0].case.group))
    process.tell(cases[0].group)
    try:
        inputs = process.inputs(cases[0])
        placed = backends.place(inputs, cases[0].mode, cases[0].batch)
        expected = expected_values(process, cases[0], inputs)
    except Exception as error:
        for case in cases:
            yield process.failure(case, "seconds", state_of(error), told(error))
        if process.turns:
            process.turns.agree({})
        return
    ready: list[Ready] = []
    for case in cases:
        yield from _prepare(process, case, placed, expected, ready)
    del expected
    if not any(r.case.strategy == REFERENCE for r in ready):
        for r in ready:
            yield process.failure(r.case, "seconds", "crashed", "the group's reference did not run")
        if process.turns:
            process.turns.agree({})
        return
    capped = _rounds(process, ready, placed, seconds)
    reference = next(r for r in ready if r.case.strategy == REFERENCE)
    for r in ready:
        if r.failed or reference.failed:
            reason = r.failed or f"the group's reference failed: {reference.failed}"
            yield process.failure(r.case, "seconds", "crashed", reason)
            continue
        times = process.measurement(r.case, "seconds", r.seconds, **capped)
        yield msgspec.structs.replace(times, places=tuple(r.places))
        if r.case.mode in ("graph", "xla"):
            yield process.measurement(r.case, "traces", [r.run.traces])


def _prepare(
    process: Process, case: Case, placed: Any, expected: Any, ready: list[Ready]
) -> Iterator[Measurement]:
    """Builds, compiles and calls a case once, checks its values, and adds it to `ready` when right."""
    skipped = strategies.find(case.strategy).skipped(case)
    if skipped:
        yield process.failure(case, "seconds", "skipped", skipped)
        return
    process.tell(case)
    try:
        process.model(case.model)
        extraction, run, built = process.compiled(case)
        began = time.perf_counter()
        result = run(placed)
        backends.synchronize(result)
        called = time.perf_counter() - began
        worst = difference(case, result, extraction, process, expected)
    except WrongValuesError as error:
        yield process.failure(case, "seconds", "wrong", str(error))
        return
    except Exception as error:
        yield process.failure(case, "seconds", state_of(error), told(error))
        return
    output = sum(backends.size_bytes(tensor) for tensor in backends.tensors(result))
    notes = {"xla": str(backends.compiled_with_xla(extraction))} if case.mode == "predict" else {}
    if built is not None:
        yield process.measurement(case, "build_seconds", [built])
        yield process.measurement(case, "first_call_seconds", [called], **notes)
    yield process.measurement(case, "max_abs_difference", [worst])
    yield process.measurement(case, "output_bytes", [output])
    yield process.measurement(case, "payload_bytes", [payload_bytes(case, process.model(case.model)[1])])
    ready.append(Ready(case, run, process.fault(case).slower))


def _rounds(process: Process, ready: list[Ready], placed: Any, seconds: float) -> dict[str, str]:
    """Calls every ready case once a round, until the pilot's spread says that the interval is narrow
    enough, or the time is used up. Each round has a new order: going back and forth, whoever stood at an
    end was called twice in a row, and ratios spread twice as wide (reports/experiments/pairing.md).

    Returns the notes for the records: how many rounds the precision wants, where time ended them.
    """
    settings = process.settings
    gc.collect()
    gc.freeze()
    _round(ready, placed, [None] * len(ready), process.tell)  # a warm call of each
    generator = process.generator(str(ready[0].case.group))
    ready = list(ready)
    try:
        if process.turns:
            with process.turns.on_one_core():
                _rounds_in_turn(process.turns, process, ready, placed, seconds)
            return {}
        began, done = time.perf_counter(), 0
        while True:
            generator.shuffle(ready)
            _round(ready, placed, range(done * len(ready), (done + 1) * len(ready)), process.tell)
            done += 1
            gc.collect(2 if done % FULL_COLLECTIONS == 0 else 0)
            spent = time.perf_counter() - began
            if done < settings.min_rounds or spent < PILOT * seconds:
                continue
            wanted = _wanted_rounds([r for r in ready if not r.failed], settings)
            if done >= wanted:
                return {}
            if spent * (done + 1) / done > seconds:
                return {ROUNDS_WANTED: str(wanted)}
    finally:
        gc.unfreeze()


def _rounds_in_turn(
    turns: Turns, process: Process, ready: Sequence[Ready], placed: Any, seconds: float
) -> None:
    """The same against another worker, each case in the order before, after, after, before. Places count
    the calls of both. A turn is as many calls as take VISIT_SECONDS, after one that is not timed: when the
    other side has called, nothing of this one is in the caches. What only one side can run is not called."""
    wanted: dict[str, int] = {}
    for r in ready:
        began = time.perf_counter()
        _round([r, r], placed, [None, None], process.tell)
        wanted[str(r.case)] = max(1, round(2 * VISIT_SECONDS / (time.perf_counter() - began)))
    calls = turns.agree(wanted)
    for r in ready:
        if str(r.case) not in calls:
            r.failed = "the other side could not run it"
    order = sorted((r for r in ready if not r.failed), key=lambda r: str(r.case))
    generator = process.generator(str(ready[0].case.group))
    began, done, place = time.perf_counter(), 0, 0

    def visit(r: Ready, places: Sequence[int]) -> None:
        _round([r] * (len(places) + 1), placed, [None, *places], process.tell)

    while order and turns.go_on(done < process.settings.min_rounds or time.perf_counter() - began < seconds):
        generator.shuffle(order)
        for r in order:
            n = calls[str(r.case)]
            if turns.leads:
                visit(r, range(place, place + n))
                turns.pass_turn()
                turns.await_turn()
                visit(r, range(place + 3 * n, place + 4 * n))
            else:
                turns.await_turn()
                visit(r, range(place + n, place + 3 * n))
                turns.pass_turn()
            place += 4 * n
        done += 1
        gc.collect(2 if done % FULL_COLLECTIONS == 0 else 0)


def _round(
    ready: Sequence[Ready], placed: Any, places: Sequence[int | None], tell: Callable[[Case], None]
) -> None:
    """Calls each once and notes its seconds with its place, or nothing where that is None; one that raises
    is called no more."""
    gc.disable()
    try:
        for place, r in zip(places, ready, strict=True):
            if r.failed:
                continue
            tell(r.case)
            try:
                began = time.perf_counter_ns()
                result = r.run(placed)
                backends.synchronize(result)
                taken = waited(began, r.slower)
                if place is not None:
                    r.seconds.append(taken)
                    r.places.append(place)
            except Exception as error:
                r.failed = told(error)
            result = None
    finally:
        gc.enable()


def waited(began_ns: int, slower: float) -> float:
    """Seconds since `began_ns`, after waiting busily for `slower` times as long on top."""
    wanted = (time.perf_counter_ns() - began_ns) * (1 + slower)
    while slower and time.perf_counter_ns() - began_ns < wanted:
        pass
    return (time.perf_counter_ns() - began_ns) / 1e9


def _wanted_rounds(ready: Sequence[Ready], settings: Time) -> int:
    """The rounds that the wanted precision needs. One where the reference has failed."""
    if not any(r.case.strategy == REFERENCE for r in ready):
        return 1
    calls = sorted(
        (place, taken, r.case) for r in ready for place, taken in zip(r.places, r.seconds, strict=True)
    )
    _, residuals = stats.effects([case for _, _, case in calls], np.log([taken for _, taken, _ in calls]))
    return stats.rounds_needed(residuals, settings.precision, settings.blocks)


def growth_call(process: Process, case: Case) -> tuple[Callable[[], Any], Callable[[], int]]:
    """One call of a way whose cost may grow, and how often it has been traced since.

    `functional_submodel_per_call` in a compiled mode builds and compiles at each call; `on_request`
    calls one compiled function with the argument off and on in turn.
    """
    gc.collect()  # what earlier groups left behind would be freed in the middle of the calls
    placed = backends.place(process.inputs(case), case.mode, case.batch)
    if case.strategy == "on_request":
        return _on_request_alternating(process, case, placed)
    if case.strategy == "functional_submodel_per_call" and case.mode != "eager":
        traces = 0

        def rebuilt() -> Any:
            nonlocal traces
            run = backends.compile_(process.built(case.with_(strategy="functional_submodel")), case.mode)
            result = run(placed)
            backends.synchronize(result)
            traces += run.traces
            return result

        return rebuilt, lambda: traces
    run = backends.compile_(process.built(case), case.mode)

    def call() -> Any:
        result = run(placed)
        backends.synchronize(result)
        return result

    return call, lambda: run.traces


def growth_difference(process: Process, case: Case, result: Any) -> float:
    """The largest difference of a growth case's last result to the layer-by-layer values. Raises
    WrongValuesError (see `difference`)."""
    like = case if case.strategy == "on_request" else case.with_(strategy="functional_submodel")
    expected = expected_values(process, case, process.inputs(case))
    return difference(case, result, process.built(like), process, expected)


def _on_request_alternating(
    process: Process, case: Case, placed: Any
) -> tuple[Callable[[], Any], Callable[[], int]]:
    model = process.built(case).model
    run = backends.Compiled(
        lambda inputs, on: model(inputs, output_hidden_states=on, training=False), case.mode
    )
    on = True

    def call() -> Any:
        nonlocal on
        on = not on
        result = run(placed, on)
        backends.synchronize(result)
        return result

    return call, lambda: run.traces


def lookups(process: Process, cases: Sequence[Case]) -> Iterator[Measurement]:
    """Seconds of one look-up, of every case in rotation: entry i of all cases is from round i, so that a
    slope over the number of layers is one of a single moment. An entry is the mean of as many look-ups as
    take LOOKUP_SECONDS."""
    calls: dict[Case, tuple[Callable[[], Any], int]] = {}
    for case in cases:
        process.tell(case)
        try:
            call = lookup_call(case)
            calls[case] = call, max(1, int(LOOKUP_SECONDS / (_looped(call, 10) / 10)))
        except Exception as error:
            yield process.failure(case, "lookup_seconds", state_of(error), told(error))
    seconds: dict[Case, list[float]] = {case: [] for case in calls}
    for number in range(LOOKUP_ROUNDS):
        for case in process.shuffled(list(calls), f"lookups/{number}"):
            process.tell(case)
            call, times = calls[case]
            seconds[case].append(_looped(call, times) / times)
    for case in calls:
        yield process.measurement(case, "lookup_seconds", seconds[case])


def _looped(call: Callable[[], Any], times: int) -> float:
    began = time.perf_counter_ns()
    for _ in range(times):
        call()
    return (time.perf_counter_ns() - began) / 1e9


def lookup_call(case: Case) -> Callable[[], Any]:
    """One look-up of a layer at `case.position` in a functional chain of `case.layers` layers."""
    model = _lookup_model(case.layers or 1)
    position = case.position or 0
    name = model.layers[position].name
    if case.strategy == "get_layer_name":
        return lambda: model.get_layer(name)
    if case.strategy == "get_layer_index":
        return lambda: model.get_layer(index=position)
    if case.strategy == "layers_property":
        return lambda: model.layers
    listed = {layer.name: layer for layer in model.layers}
    return lambda: listed[name]


_lookup_models: dict[int, Any] = {}


def _lookup_model(layers: int) -> Any:
    """A functional model of that many layers, its input layer counted."""
    import keras

    if layers not in _lookup_models:
        sys.setrecursionlimit(max(sys.getrecursionlimit(), 10_000))  # Keras walks the graph recursively
        tensor = first = keras.Input((1,))
        for _ in range(layers - 1):
            tensor = keras.layers.Identity()(tensor)
        _lookup_models[layers] = keras.Model(first, tensor)
    return _lookup_models[layers]
