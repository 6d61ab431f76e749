"""A functional model's layers in call order, for strategies that call each layer themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hiddencost.graph import Call, flat_inputs, graph_of
from hiddencost.plan import Plan, Wanted

Values = dict[int, Any]
"""id of a symbolic tensor -> its value."""


@dataclass(frozen=True)
class Step:
    """One call of one layer. index: its place in `model.layers`, None for an operation that is no layer.
    frees: the tensors that nothing after this step reads."""

    name: str
    index: int | None
    call: Call
    frees: tuple[int, ...]

    def alone(self, given: Sequence[Any]) -> Any:
        """What its layer returns for values of the tensors that it takes, in order."""
        taken = zip(self.call.arguments, given, strict=True)
        args, kwargs = self.call.filled({id(tensor): value for (_, tensor), value in taken})
        return self.call.operation(*args, **kwargs)

    def run(self, layer: Callable[..., Any], values: Values) -> None:
        """Calls the layer on what this step takes, keeps what it returns, drops what is used up."""
        args, kwargs = self.call.filled(values)
        self.call.keep(layer(*args, **kwargs), values)
        for used in self.frees:
            values.pop(used, None)


def steps_to(model: Any, targets: Sequence[Any]) -> tuple[Step, ...]:
    """The calls that `targets` (symbolic tensors of the model's graph) need, in order, and no others."""
    index = {id(layer): i for i, layer in enumerate(model.layers)}
    return tuple(
        Step(step.call.operation.name, index.get(id(step.call.operation)), step.call, step.frees)
        for step in Plan(model, [Wanted(tensor) for tensor in targets]).steps
    )


def start(model: Any, inputs: Any) -> Values:
    """The model's inputs as values, cast and ordered as Keras does it."""
    return dict(zip(map(id, graph_of(model).inputs), flat_inputs(model, inputs), strict=True))
