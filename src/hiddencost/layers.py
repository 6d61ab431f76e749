"""Keras models that run a functional model's graph in a leaner way. Imported at first use, with Keras."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras

from hiddencost.errors import UserError, nearest
from hiddencost.graph import ancestors, flat_inputs, graph_of, mask_of, packed
from hiddencost.plan import Plan, Wanted
from hiddencost.points import Point, all_stacks, found_again, kept, refuse_another_models, tensors_of


class _Running(keras.Model):  # type: ignore[misc,unused-ignore]
    """A model that runs the graph of another."""

    def __init__(self, model: Any, name: str, **kwargs: Any) -> None:
        super().__init__(**{"name": name, "dtype": model.dtype_policy, **kwargs}, autocast=False)
        self.model = model
        self.built = True

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "model": keras.saving.serialize_keras_object(self.model)}


@keras.saving.register_keras_serializable("hiddencost")
class Freed(_Running):
    """A model that runs a functional one, with its inputs, weights and values, and drops each intermediate
    tensor after its last use. Eagerly that is the memory of what is alive at once, and not of everything;
    where the call is compiled, the compiler does so anyway. What needs a graph (`get_layer`, hidden states)
    is asked of the one that it runs, its `model`.

    model: functional, or a built Sequential; it is left as it is. Raises UserError for any other.
    """

    def __init__(self, model: Any, name: str | None = None, **kwargs: Any) -> None:
        outputs = [Wanted(tensor) for tensor in graph_of(model).outputs]
        super().__init__(model, name or f"{model.name}_freed", **kwargs)
        self._plan = Plan(model, outputs)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        found = self._plan.values(flat_inputs(self.model, inputs), {"training": training})
        return packed(self.model, found)

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Freed:
        model = keras.saving.deserialize_keras_object(config.pop("model"), custom_objects=custom_objects)
        return cls(model, **config)


@keras.saving.register_keras_serializable("hiddencost")
class Reader(_Running):
    """A functional model's graph, run as in `Freed` but only as far as some points need it; returns their
    hidden states as a list. Points inside nested models and layers are read without a change to these.

    strategy: `functional_freed`, or `functional_submodel`: Keras's own run of a sub-model that ends at the
    points, which none inside a nested model or layer can be; where a reduction needs the masks that Keras
    carries, the graph is run as in `Freed` all the same.

    model: functional, or a built Sequential; it is left as it is. points: of this model. reduce: a name of
    REDUCTIONS, `scalar_mix`, or a function (state, mask) -> tensor, applied to each state before it is
    returned; mask is (batch, sequence), 1 at real tokens, or None. dtype_out: what results are cast to.
    """

    def __init__(
        self,
        model: Any,
        points: Sequence[Point],
        reduce: str | Callable[[Any, Any], Any] | None = None,
        dtype_out: str | None = None,
        strategy: str = "functional_freed",
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        refuse_another_models(model, points)
        super().__init__(model, name or f"{model.name}_reader", **kwargs)
        self.points = tuple(points)
        self.strategy = strategy
        self._submodel: Any = None
        self._plan: Plan | None = None
        self._masks = [_mask_input(model, point) for point in self.points] if reduce else []
        # Keras's own run loses the masks that it carries to states in the middle (see `graph.carry`).
        if strategy == "functional_submodel" and None not in self._masks:
            self._submodel = keras.Model(graph_of(model).inputs, tensors_of(points))
        else:
            self._plan = Plan(model, points)
        self.reduce = reduce
        self.dtype_out = dtype_out
        try:
            keras.backend.standardize_dtype(dtype_out)
        except ValueError:
            raise UserError(f"dtype '{dtype_out}' is none of Keras's, such as float32 or bfloat16") from None
        if isinstance(reduce, str) and reduce not in (*REDUCTIONS, MIX):
            raise UserError(f"unknown reduction '{reduce}'{nearest(reduce, [*REDUCTIONS, MIX])}")
        if reduce == MIX:
            shape = (len(self.points),)
            self.mix = self.add_weight(shape=shape, initializer="zeros", name="mix", dtype="float32")
            self.scale = self.add_weight(shape=(), initializer="ones", name="scale", dtype="float32")

    def call(self, inputs: Any, training: bool | None = None) -> list[Any]:
        flat = flat_inputs(self.model, inputs)
        if self._plan is not None:
            states = self._plan.values(flat, {"training": training})
        else:
            states = keras.tree.flatten(self._submodel(flat, training=training))
        if self.reduce == MIX:
            shares = keras.ops.softmax(self.mix)
            mixed = sum(shares[i] * keras.ops.cast(state, "float32") for i, state in enumerate(states))
            states = [keras.ops.cast(self.scale * mixed, states[0].dtype)]
        elif self.reduce is not None:
            how = REDUCTIONS[self.reduce] if isinstance(self.reduce, str) else self.reduce
            masks = [None if place is None else flat[place] for place in self._masks]
            for state, mask, point in zip(states, masks, self.points, strict=True):
                if isinstance(self.reduce, str):
                    _refuse_other_length(state, mask, point)
            states = [
                how(state, mask_of(state) if mask is None else mask)
                for state, mask in zip(states, masks, strict=True)
            ]
        return [keras.ops.cast(state, self.dtype_out) for state in states] if self.dtype_out else states

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "points": [kept(self.model, point) for point in self.points],
            "reduce": self.reduce
            if self.reduce is None or isinstance(self.reduce, str)
            else keras.saving.serialize_keras_object(self.reduce),
            "dtype_out": self.dtype_out,
            "strategy": self.strategy,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Reader:
        model = keras.saving.deserialize_keras_object(config.pop("model"), custom_objects=custom_objects)
        points = found_again(model, config.pop("points"))
        reduce = config.pop("reduce")
        if isinstance(reduce, dict):
            reduce = keras.saving.deserialize_keras_object(reduce, custom_objects=custom_objects)
        return cls(model, points, reduce, **config)


MIX = "scalar_mix"
"""One learned sum of all points: softmax weights and a scale (Peters et al. 2018, ELMo, equation 1)."""


def _weights(state: Any, mask: Any) -> Any:
    """(batch, sequence, 1): 1 at real tokens, in the state's dtype."""
    found = keras.ops.ones(keras.ops.shape(state)[:2]) if mask is None else mask
    return keras.ops.expand_dims(keras.ops.cast(found, state.dtype), -1)


def _mean(state: Any, mask: Any) -> Any:
    weights = _weights(state, mask)
    return keras.ops.sum(state * weights, axis=1) / keras.ops.maximum(keras.ops.sum(weights, axis=1), 1)


def _max(state: Any, mask: Any) -> Any:
    least = -3e4 if keras.backend.standardize_dtype(state.dtype) == "float16" else -1e30
    return keras.ops.max(
        keras.ops.where(_weights(state, mask) > 0, state, keras.ops.cast(least, state.dtype)), axis=1
    )


def _cls(state: Any, mask: Any) -> Any:
    return state[:, 0]


def _last_token(state: Any, mask: Any) -> Any:
    if mask is None:
        return state[:, -1]
    places = keras.ops.arange(keras.ops.shape(state)[1])
    last = keras.ops.max(keras.ops.where(keras.ops.cast(mask, "bool"), places, 0), axis=1)
    picked = keras.ops.take_along_axis(state, keras.ops.reshape(last, (-1, 1, 1)), axis=1)
    return keras.ops.squeeze(picked, axis=1)


REDUCTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "mean": _mean,
    "max": _max,
    "cls": _cls,
    "last_token": _last_token,
}
"""(batch, sequence, width) -> (batch, width), over real tokens alone."""


def _mask_input(model: Any, point: Point) -> int | None:
    """Which of the model's inputs tells real tokens from padding, for a point; None where none does. Where
    none has the name of the point's stack, it is one that this stack is given: the text's mask says nothing
    of an image's patches."""
    inputs = graph_of(model).inputs
    found = [
        place
        for place, tensor in enumerate(inputs)
        if tensor.name.endswith(("padding_mask", "attention_mask")) and len(tensor.shape) == 2
    ]
    named = [place for place in found if point.stack in inputs[place].name]
    stack = all_stacks(model).get(point.stack) if found and not named else None
    if stack:
        given = ancestors(model, stack.last.outer[0] if stack.last.outer else stack.last.tensor)
        found = [place for place in found if id(inputs[place]) in given]
    return next(iter(named or found), None)


def _refuse_other_length(state: Any, mask: Any, point: Point) -> None:
    tokens, told = state.shape[1], None if mask is None else mask.shape[1]
    if isinstance(tokens, int) and isinstance(told, int) and tokens != told:
        raise UserError(
            f"point '{point.name}' has {tokens} tokens, and the mask of padding {told}: reduce it by a "
            "function of your own"
        )


def freed(model: Any) -> Freed:
    """A model with the inputs, weights and values of the functional one, which it runs so that each
    intermediate tensor is dropped after its last use. Keras's own eager call keeps all of them until it
    returns (keras issue #19500). Raises UserError for a model without a graph."""
    return Freed(model)
