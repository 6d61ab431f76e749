"""STRATEGIES: the ways to read hidden states, each a few plain lines that can be used on their own.

    extraction = functional_submodel(model, hidden_states(model), select(hidden_states(model), "middle"))
    states = extraction.states(extraction(inputs))

A strategy is a function `(model, points, wanted) -> Extraction`: `points` are all hidden states of the
model, `wanted` those asked for. Add one: write the function, add a line to STRATEGIES at the end. One that
lies elsewhere runs as `package.module:function`; it may as well return a Keras model, or a plain function of
inputs, that gives the hidden states alone.
Keras is imported when a strategy is built, not when this file is.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

from hiddencost import own
from hiddencost.chain import Step, start, steps_to
from hiddencost.errors import UserError
from hiddencost.grid import COMPILED_MODES
from hiddencost.points import Point, tensors_of
from hiddencost.records import OUTPUT, REFERENCE, TWIN, Case


def _as_list(result: Any) -> list[Any]:
    return list(result) if isinstance(result, (list, tuple)) else [result]


@dataclass(frozen=True)
class Extraction:
    """A built strategy. run: inputs -> whatever this way returns. states: that result -> the hidden
    states asked for, each (batch, sequence, width), in order. model: the Keras model behind `run`, for
    `predict`, None where there is none. over: how it goes over a data set where it is not by `predict`: `run`
    as the backend compiles it, and the batches -> a result."""

    run: Callable[[Any], Any]
    states: Callable[[Any], list[Any]] = field(default=_as_list)
    model: Any = None
    over: Callable[[Callable[[Any], Any], Iterable[Any]], Any] | None = None

    def __call__(self, inputs: Any) -> Any:
        return self.run(inputs)


def _of_model(model: Any, states: Callable[[Any], list[Any]] = _as_list) -> Extraction:
    return Extraction(lambda inputs: model(inputs, training=False), states, model)


def final_only(model: Any, points: Sequence[Point], wanted: Sequence[Point]) -> Extraction:
    """The plain forward pass: the model's own outputs, no hidden state. `predict` gets a model object of
    its own over the same layers, so that the twin does not find it traced."""
    import keras

    own = keras.Model(model.inputs, model.output)
    return Extraction(lambda inputs: model(inputs, training=False), lambda result: [], own)


def functional_submodel(model: Any, points: Sequence[Point], wanted: Sequence[Point]) -> Extraction:
    """A sub-model of the same graph, built once, that ends at the points asked for."""
    import keras

    return _of_model(keras.Model(model.inputs, tensors_of(wanted)))


def functional_freed(model: Any, points: Sequence[Point], wanted: Sequence[Point]) -> Extraction:
    """The nodes of the same graph run one by one, each tensor dropped after its last use."""
    from hiddencost.layers import Freed, Reader

    return _of_model(Reader(model, wanted)) if wanted else _of_model(Freed(model), lambda result: [])


def functional_submodel_per_call(model: Any, points: Sequence[Point], wanted: Sequence[Point]) -> Extraction:
    """The same sub-model, made anew at each call from the layers' names."""
    import keras

    names = [point.layer.name for point in wanted]

    def run(inputs: Any) -> Any:
        outputs = [model.get_layer(name).output for name in names]
        return keras.Model(model.inputs, outputs)(inputs, training=False)

    return Extraction(run)


def _subclassed(
    model: Any, wanted: Sequence[Point], find: Callable[[Any, Step], Any], in_advance: bool = False
) -> Extraction:
    """A subclassed model whose `call` finds and calls every layer of the chain up to the wanted points."""
    import keras

    steps = steps_to(model, tensors_of(wanted))
    ids = [id(point.tensor) for point in wanted]

    class Chain(keras.Model):  # type: ignore[misc,unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            self.backbone = model
            self.listed = tuple(find(model, step) for step in steps) if in_advance else ()

        def call(self, inputs: Any) -> list[Any]:
            values = start(self.backbone, inputs)
            for i, step in enumerate(steps):
                layer = self.listed[i] if in_advance else find(self.backbone, step)
                step.run(layer, values)
            return [values[i] for i in ids]

    return _of_model(Chain())


def get_layer_name(model: Any, points: Sequence[Point], wanted: Sequence[Point]) -> Extraction:
    """A subclassed model that looks each layer up by name at call time."""
    return _subclassed(
        model, wanted, lambda m, step: step.call.operation if step.index is None else m.get_layer(step.name)
    )


def get_layer_index(model: Any, points: Sequence[Point], wanted: Sequence[Point]) -> Extraction:
    """A subclassed model that looks each layer up by index at call time."""
    return _subclassed(
        model,
        wanted,
        lambda m, step: step.call.operation if step.index is None else m.get_layer(index=step.index),
    )


def indexed_in_advance(model: Any, points: Sequence[Point], wanted: Sequence[Point]) -> Extraction:
    """The same subclassed model with its layers listed at construction, as TF Model Garden does."""
    return _subclassed(model, wanted, lambda m, step: step.call.operation, in_advance=True)


def always_return_all(model: Any, points: Sequence[Point], wanted: Sequence[Point]) -> Extraction:
    """A model whose output is every hidden state; the caller keeps those it wants."""
    import keras

    counted = [point for point in points if point.name != "final_norm"]
    places = [_place(counted, point) for point in wanted]
    every = keras.Model(model.inputs, tensors_of(counted))
    return _of_model(every, lambda result: [result[place] for place in places])


def always_return_stacked(model: Any, points: Sequence[Point], wanted: Sequence[Point]) -> Extraction:
    """A model whose output is one (batch, points, sequence, width) tensor of every hidden state."""
    import keras

    counted = [point for point in points if point.name != "final_norm"]
    places = [_place(counted, point) for point in wanted]
    stacked = keras.ops.stack(tensors_of(counted), axis=1)
    every = keras.Model(model.inputs, stacked)
    return _of_model(every, lambda result: [result[:, place] for place in places])


def _place(points: Sequence[Point], point: Point) -> int:
    return next(i for i, other in enumerate(points) if other.name == point.name)


def on_request(model: Any, points: Sequence[Point], wanted: Sequence[Point]) -> Extraction:
    """An argument `output_hidden_states=` of `call`: the model's own outputs, and with it the hidden
    states too. With nothing wanted the argument is off."""
    import keras

    off = steps_to(model, model.outputs)
    on = steps_to(model, [*model.outputs, *tensors_of(wanted)])
    own, asked = [id(tensor) for tensor in model.outputs], [id(point.tensor) for point in wanted]

    class OnRequest(keras.Model):  # type: ignore[misc,unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            self.backbone = model

        def call(self, inputs: Any, output_hidden_states: bool = False) -> Any:
            values = start(self.backbone, inputs)
            for step in on if output_hidden_states else off:
                step.run(step.call.operation, values)
            outputs = [values[i] for i in own]
            return (outputs, [values[i] for i in asked]) if output_hidden_states else outputs

    whole = OnRequest()
    if not wanted:
        return _of_model(whole, lambda result: [])
    return Extraction(
        lambda inputs: whole(inputs, output_hidden_states=True, training=False),
        lambda result: list(result[1]),
        whole,
    )


def streamed(model: Any, points: Sequence[Point], wanted: Sequence[Point]) -> Extraction:
    """A sub-model called batch by batch over a data set, each batch's states written to a file before the
    next is read, as `hiddencost extract` does; `predict` keeps them all, and joins them in the end. The
    result is the files."""
    import keras

    names = [point.name for point in wanted]
    room = Path(mkdtemp(prefix="hiddencost-"))

    def over(run: Callable[[Any], Any], batches: Iterable[Any]) -> list[Path]:
        from safetensors.numpy import save_file

        files = []
        for number, batch in enumerate(batches):
            states = map(keras.ops.convert_to_numpy, _as_list(run(batch)))
            files.append(room / f"{number}.safetensors")
            save_file(dict(zip(names, states, strict=True)), files[-1])
        return files

    def states(files: list[Path]) -> list[Any]:
        import numpy as np
        from safetensors.numpy import load_file

        parts = [load_file(file) for file in files]
        return [np.concatenate([part[name] for part in parts]) for name in names]

    weakref.finalize(over, rmtree, room, ignore_errors=True)
    return replace(functional_submodel(model, points, wanted), states=states, over=over)


def with_mean(model: Any, extraction: Extraction) -> Extraction:
    """The same functional model with each output reduced to its mean over the tokens that are not
    padding, inside the model: (batch, sequence, width) -> (batch, width)."""
    import keras

    def mean(state: Any) -> Any:
        weights = keras.ops.expand_dims(keras.ops.cast(mask, state.dtype), -1)
        return keras.ops.sum(state * weights, axis=1) / keras.ops.sum(weights, axis=1)

    inner = extraction.model
    mask = next(tensor for tensor in model.inputs if tensor.name == "padding_mask")
    return _of_model(keras.Model(inner.inputs, [mean(tensor) for tensor in inner.outputs]))


@dataclass(frozen=True)
class Strategy:
    """A way that can be named. skipped: a case of it -> why it makes no sense there, or ''."""

    name: str
    summary: str
    build: Callable[[Any, Sequence[Point], Sequence[Point]], Extraction]
    skipped: Callable[[Case], str] = lambda case: ""


def _per_call_skipped(case: Case) -> str:
    if case.mode in (*COMPILED_MODES, "train"):
        return (
            "a compiled function builds the sub-model once, while it is traced; "
            "building and compiling at each call is measured by the growth suite"
        )
    return (
        "predict needs a model to call it on; building one at each call is measured by the growth suite"
        * (case.mode == "predict")
    )


def _own(name: str) -> Callable[[Any, Sequence[Point], Sequence[Point]], Extraction]:
    """The function of that name, whatever it returns made into an Extraction. Raises UserError."""

    def build(model: Any, points: Sequence[Point], wanted: Sequence[Point]) -> Extraction:
        import keras

        found = own.load(name)(model, points, wanted)
        if isinstance(found, Extraction):
            return found
        if isinstance(found, keras.Model):
            return _of_model(found)
        if callable(found):
            return Extraction(found)
        kind = type(found).__name__
        raise UserError(
            f"'{name}' returned {kind}: a strategy returns a keras.Model, or a function of inputs"
        )

    return build


def _on_request_skipped(case: Case) -> str:
    return "predict passes no arguments to call" if case.mode == "predict" and case.points != OUTPUT else ""


def _streamed_skipped(case: Case) -> str:
    if case.mode != "predict":
        return "writes the states of a data set to files: a way beside predict"
    return "is measured with whole states: reduced ones hardly take memory" * (case.reduction != "none")


STRATEGIES = (
    Strategy(REFERENCE, "the plain forward pass, final output only: the reference", final_only),
    Strategy(TWIN, "the reference once more: the A/A twin, whose spread is the noise band", final_only),
    Strategy("functional_submodel", "a functional sub-model, built once", functional_submodel),
    Strategy("functional_freed", "the same graph, each tensor dropped after its last use", functional_freed),
    Strategy(
        "functional_submodel_per_call",
        "keras.Model(model.inputs, model.get_layer(name).output) at each call",
        functional_submodel_per_call,
        _per_call_skipped,
    ),
    Strategy(
        "get_layer_name", "a subclassed model that calls get_layer(name) for each layer", get_layer_name
    ),
    Strategy(
        "get_layer_index", "a subclassed model that calls get_layer(index=) for each layer", get_layer_index
    ),
    Strategy("indexed_in_advance", "the same, its layers listed at construction", indexed_in_advance),
    Strategy("always_return_all", "a model that always returns every hidden state", always_return_all),
    Strategy("always_return_stacked", "the same as one stacked tensor", always_return_stacked),
    Strategy(
        "on_request", "an argument output_hidden_states= of call, off and on", on_request, _on_request_skipped
    ),
    Strategy(
        "streamed",
        "a data set's states written to files batch by batch, none kept",
        streamed,
        _streamed_skipped,
    ),
)


def find(name: str, known: Sequence[Strategy] = ()) -> Strategy:
    """The strategy of a name: of those known, by default Keras's. Raises UserError for a name that another
    version of hiddencost has planned: a grid is checked."""
    if own.is_own(name):
        return Strategy(name, "of one's own", _own(name))
    for strategy in known or STRATEGIES:
        if strategy.name == name:
            return strategy
    raise UserError(f"no strategy is named '{name}' here")
