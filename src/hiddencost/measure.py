"""What one process has loaded, and whether a case's values are right.

Nothing is timed before its values agree with the points computed layer by layer.
"""

from __future__ import annotations

import os
import random
import re
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hiddencost import backends, own, peers, strategies
from hiddencost.errors import UserError
from hiddencost.graph import flat_inputs
from hiddencost.grid import PEERS, Time
from hiddencost.grid.planning import SAME_WEIGHTS, Fault, Meeting
from hiddencost.models import LoadedModel, stack_of
from hiddencost.plan import Plan, Wanted
from hiddencost.points import HiddenStates, Point, hidden_states
from hiddencost.records import OUTPUT, Case, Measurement, State
from hiddencost.turns import Turns

TOLERANCE = {"float32": 1e-5, "bfloat16": 4e-2, "mixed_bfloat16": 4e-2}
"""Largest difference to the layer-by-layer values, in units of max(1, largest reference value), by dtype. One
bfloat16 has 8 bits, and compilers keep some of what they fuse in float32, which depends on what is asked for:
right programs were up to 2.5e-2 away from float32 with the same weights, and 3.2e-2 from each other
(bert_base and bert_large, 1 x 128, two backends; 2.8e-2 on an H200). Neighbouring blocks differ by 4.7e-2 in
bert_tiny, and by 9e-2 or more in minilm, bert_24x256, bert_base, bert_large, gpt2_small and a small Llama."""
GRADIENT_TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2, "mixed_bfloat16": 5e-2}
"""Largest difference of gradients to those of the layer-by-layer values, in units of the largest. In
bfloat16, whose last bit is 4e-3, sums in another order differ by up to 1.3e-2 (minilm, 2 x 32)."""
BETWEEN_MODES = {"float32": 1e-4, "bfloat16": 5e-2, "mixed_bfloat16": 5e-2}
"""The same between a compiled mode and eager: other kernels, other rounding."""

BETWEEN_BACKENDS = {"float32": 5e-3, "bfloat16": 5e-2, "mixed_bfloat16": 5e-2}
"""The same between backends, and between Keras and a peer: KerasHub's BERT has the approximate gelu, others
the exact one. (Keras's own backends agree to 2e-4: tests/test_backends.py.)"""

AWAIT_SECONDS = 120
"""How long the first backend's hidden states are waited for."""


class WrongValuesError(Exception):
    """A strategy's values differ from the reference points."""


Loaded = LoadedModel | peers.LoadedPeer


def _of_keras(case: Case) -> tuple[LoadedModel, HiddenStates]:
    loaded = LoadedModel(case.model, case.dtype)
    if loaded.spec.blocks == 0:
        return loaded, HiddenStates([])
    return loaded, hidden_states(loaded.model, stack_of(case.model))


class Process:
    """What this process has loaded: models by name and dtype, each with its points and its inputs. loads: the
    times that this took, until someone takes them out. tell: is told each case that the next seconds go to.
    turns: taken with other workers. fault: what one strategy is made worse by. meeting: where
    they compare hidden states."""

    def __init__(
        self,
        block: int,
        seed: int,
        settings: Time,
        tell: Callable[[Case], None] = lambda case: None,
        turns: Turns | None = None,
        fault: Fault | None = None,
        meeting: Meeting | None = None,
    ) -> None:
        self.block = block
        self.seed = seed
        self.settings = settings
        self.tell = tell
        self.turns = turns
        self.meeting = meeting
        self._fault = fault
        self.loads: list[Measurement] = []
        self._models: dict[Case, tuple[Loaded, HiddenStates]] = {}
        self._replays: dict[tuple[Case, str], backends.Compiled] = {}
        self._predicting: dict[Case, tuple[strategies.Extraction, backends.Compiled]] = {}

    def of(self, case: Case) -> tuple[Loaded, HiddenStates]:
        """The model of a case and its points, loaded at the first request, which `loads` then tells."""
        key = case.model_alone
        if key not in self._models:
            began = time.perf_counter()
            loaded, every = peers.load(case) if case.backend in peers.PEERS else _of_keras(case)
            self.loads.append(self.measurement(key, "load_seconds", [time.perf_counter() - began]))
            self._models[key] = (loaded, every)
        return self._models[key]

    def measurement(self, case: Case, metric: str, values: Sequence[float], **notes: str) -> Measurement:
        rounded = tuple(float(f"{value:.6g}") if value % 1 else float(value) for value in values)
        return Measurement(case=case, metric=metric, values=rounded, block=self.block, notes=notes)

    def failure(self, case: Case, metric: str, state: State, reason: str) -> Measurement:
        return Measurement(case=case, metric=metric, state=state, reason=reason, block=self.block)

    def fault(self, case: Case) -> Fault | None:
        """What the case is made worse by: nothing, but where the gate itself is measured."""
        found = self._fault
        return found if found and found.strategy == case.strategy else None

    def generator(self, what: str) -> random.Random:
        """This block's source of order, the same whenever the run's seed is."""
        return random.Random(zlib.crc32(f"{self.seed}/{self.block}/{what}".encode()))

    def shuffled(self, cases: Sequence[Case], what: str) -> list[Case]:
        """The cases in this block's order."""
        return self.generator(what).sample(list(cases), len(cases))

    def wanted(self, case: Case) -> Sequence[Point]:
        """The points that a case asks for, none where it is the model's own outputs. Raises UserError."""
        return () if case.points == OUTPUT else self.of(case)[1].select(case.points)

    def built(self, case: Case) -> strategies.Extraction:
        """The case's strategy on its model. Raises UserError when the model lacks the points."""
        loaded, every = self.of(case)
        extraction = peers.strategy(case).build(loaded.model, every, self.wanted(case))
        return strategies.with_mean(loaded.model, extraction) if case.reduction == "mean" else extraction

    def compiled(self, case: Case) -> tuple[strategies.Extraction, backends.Compiled, float | None]:
        """The case's strategy, compiled, and the seconds that building it took. `predict` over another
        number of examples is the same function: it is kept, and then took no time (None)."""
        key = case.with_(examples=None)
        if key in self._predicting:
            return *self._predicting[key], None
        began = time.perf_counter()
        extraction = self.built(case)
        run = backends.compile_(extraction, case.mode, self.of(case)[0].model)
        seconds = time.perf_counter() - began
        if case.mode == "predict":
            self._predicting[key] = extraction, run
        return extraction, run, seconds

    def layer_by_layer(self, case: Case, placed: Any) -> list[Any]:
        """The values of all points and then of the model's own outputs, in the case's mode (for `predict`
        the one that it runs in). All layers are one function, traced once for each shape."""
        mode = backends.current().predicts_in if case.mode == "predict" else case.mode
        key = case.model_alone, mode
        if key not in self._replays:
            self._replays[key] = backends.Compiled(self._values(case), mode, self.of(case)[0].model)
        return [backends.to_numpy(value) for value in self._replays[key](placed)]

    def _values(self, case: Case) -> Callable[[Any], list[Any]]:
        loaded, every = self.of(case)
        if isinstance(loaded, peers.LoadedPeer):
            return loaded.values
        plan = Plan(loaded.model, [*every.named, *map(Wanted, loaded.model.outputs)])
        return lambda inputs: plan.values(flat_inputs(loaded.model, inputs), {})

    def gradients(self, case: Case) -> list[Any]:
        """Those of a case in mode `train`, its loss taken of the values computed layer by layer."""
        model = self.of(case)[0].model
        plan = Plan(model, self.wanted(case) or [*map(Wanted, model.outputs)])
        run = backends.gradients(lambda inputs: plan.values(flat_inputs(model, inputs), {}), model)
        found = run(backends.place(self.inputs(case), case.mode, case.batch))
        return [backends.to_numpy(gradient) for gradient in found]

    def inputs(self, case: Case) -> dict[str, Any]:
        """The NumPy inputs of the case's shape; for `predict` those of the whole data set."""
        rows = case.batch if case.examples is None else case.examples
        return self.of(case)[0].inputs(rows, case.length)


def state_of(error: Exception) -> State:
    """`out_of_memory` where a backend or Python says so, else `crashed`."""
    named = type(error).__name__ in ("ResourceExhaustedError", "OutOfMemoryError")  # TensorFlow's, torch's
    short = isinstance(error, MemoryError) or named or str(error).startswith("RESOURCE_EXHAUSTED")  # JAX's
    return "out_of_memory" if short else "crashed"


def told(error: Exception) -> str:
    """An exception as the reason of a record; where it was raised, if in code of one's own."""
    where = own.frames(error)
    longest = None if isinstance(error, UserError) else 500
    text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    text = re.sub(r"\S*/site-packages/", "", text)[:longest]  # the machine's own folders tell nobody anything
    return f"in your code, {where}: {text}" if where else text


def payload_bytes(case: Case, every: HiddenStates) -> int:
    """Bytes of the hidden states asked for: rows x length x width x the bytes of a number for each point
    (without the length where they are reduced to a mean)."""
    if case.points == OUTPUT:
        return 0
    rows = case.batch if case.examples is None else case.examples
    tokens = 1 if case.reduction == "mean" else case.length
    return sum(rows * tokens * point.token_bytes for point in every.select(case.points))


def expected_values(process: Process, case: Case, inputs: dict[str, Any]) -> dict[str, Any]:
    """Each point's values by name, computed layer by layer, batch by batch; `output` for the model's own.

    They are computed in the case's mode, as its kernels round differently (graph and eager differ by up
    to 1.3e-5 of the largest value at 1 x 512). Raises WrongValuesError where a compiled mode differs from
    eager by more than BETWEEN_MODES. Nothing for `train`, whose gradients are compared.
    """
    if case.mode == "train":
        return {}
    _, every = process.of(case)
    batches: list[list[Any]] = []
    rows = len(next(iter(inputs.values())))
    for first in range(0, rows, case.batch):
        part = {name: array[first : first + case.batch] for name, array in inputs.items()}
        placed = backends.place(part, "eager", case.batch)
        found = process.layer_by_layer(case, placed)
        if case.mode != "eager" and not batches:
            eager = process.layer_by_layer(case.with_(mode="eager"), placed)
            for mine, theirs in zip(found, eager, strict=True):
                _same_values(mine, theirs, BETWEEN_MODES[case.dtype])
        batches.append(found)
    whole = [np.concatenate(parts) for parts in zip(*batches, strict=True)]
    values = {point.name: value for point, value in zip(every.named, whole, strict=False)}
    return {**values, OUTPUT: whole[len(every.named) :]}


def _real(inputs: Mapping[str, Any]) -> Any:
    """(batch, length): where a token is real, and not padding; all of it where nothing tells."""
    masks = [inputs[name] for name in ("padding_mask", "attention_mask") if name in inputs]
    return masks[0] == 1 if masks else ...


def same_elsewhere(process: Process, case: Case, inputs: dict[str, Any], expected: dict[str, Any]) -> None:
    """Where jobs of several backends take turns, all have to read the same hidden states: the first backend
    leaves its own in a folder, and the others wait for them. Padding is left out: what stands there means
    nothing, and at 4 x 512 differs four times as much as the rest. Raises WrongValuesError where they differ,
    and UserError where there are none."""
    if not process.meeting or case.mode in ("train", "predict"):
        return
    folder, first = Path(process.meeting.values), process.meeting.backend
    model = SAME_WEIGHTS.get(case.model, case.model)
    path = folder / f"{model.replace('/', '_')}-{case.dtype}-{case.batch}x{case.length}.npz"
    real = _real(inputs)
    states = {name: np.asarray(value, "float32")[real] for name, value in expected.items() if name != OUTPUT}
    if case.backend == first:
        unfinished = folder / f"{os.getpid()}.npz"
        np.savez(unfinished, allow_pickle=False, **states)
        unfinished.rename(path)
        return
    end = time.monotonic() + AWAIT_SECONDS
    while not path.exists():
        if time.monotonic() > end:
            raise UserError(f"{first} has left no hidden states to compare with")
        time.sleep(0.05)
    with np.load(path) as theirs:
        for name in states:
            _same_values(states[name], theirs[name], BETWEEN_BACKENDS[case.dtype])


def _same_values(mine: Any, theirs: Any, tolerance: float, at: Any = ...) -> float:
    """The largest difference `at` some places, in units of max(1, the largest of `theirs` there). Raises
    WrongValuesError for another shape or dtype, or more than `tolerance`."""
    if mine.shape != theirs.shape or mine.dtype != theirs.dtype:
        raise WrongValuesError(f"{mine.dtype}{mine.shape} where {theirs.dtype}{theirs.shape} was expected")
    mine, theirs = np.asarray(mine, dtype="float32")[at], np.asarray(theirs, dtype="float32")[at]
    found = float(np.abs(mine - theirs).max()) / max(1.0, float(np.abs(theirs).max()))
    if not found <= tolerance:  # nor is nan
        raise WrongValuesError(f"values differ by {found:.1e} of the largest, more than {tolerance:.0e}")
    return found


def difference(
    case: Case, result: Any, extraction: strategies.Extraction, process: Process, expected: Any
) -> float:
    """The largest difference to the expected values, in units of the tolerance's scale; of another library,
    which may compute attention in a way of its own, at real tokens alone (at 4 x 512 TransformerLens differs
    by 1e-6 there, and by 1.3e-5 at padding). Raises WrongValuesError for another number, shape or dtype of
    states."""
    _, every = process.of(case)
    if case.mode == "train":
        return _same_gradients(
            list(map(backends.to_numpy, result)), process.gradients(case), GRADIENT_TOLERANCE[case.dtype]
        )
    if case.points == OUTPUT:
        found, right = backends.tensors(result), expected[OUTPUT]
    else:
        found = extraction.states(result)
        right = [expected[point.name] for point in every.select(case.points)]
    if case.reduction == "mean":
        mask = process.inputs(case)["padding_mask"][..., None].astype("float32")
        right = [(value * mask).sum(1) / mask.sum(1) for value in right]
    if len(found) != len(right):
        raise WrongValuesError(f"{len(found)} states where {len(right)} were asked for")
    pairs = zip(map(backends.to_numpy, found), right, strict=True)
    tolerance = TOLERANCE[case.dtype]
    at = _real(process.inputs(case)) if case.backend in PEERS and case.points != OUTPUT else ...
    return max((_same_values(mine, theirs, tolerance, at) for mine, theirs in pairs), default=0.0)


def _same_gradients(mine: Sequence[Any], theirs: Sequence[Any], tolerance: float) -> float:
    """The largest difference, in units of the largest gradient. Raises WrongValuesError."""
    if [gradient.shape for gradient in mine] != [gradient.shape for gradient in theirs]:
        raise WrongValuesError(f"{len(mine)} gradients, not those of the {len(theirs)} variables")
    largest = max(float(np.abs(gradient).max()) for gradient in theirs)
    found = max(float(np.abs(a - b).max()) for a, b in zip(mine, theirs, strict=True)) / largest
    if not found <= tolerance:  # nor is nan
        raise WrongValuesError(f"gradients differ by {found:.1e} of the largest")
    return found
