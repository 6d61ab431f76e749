"""A functional model's layers in call order, for strategies that call each layer themselves.

Private attributes of Keras that are read here: `Function._nodes_by_depth` (the graph's nodes in the
order Keras runs them), `Function._standardize_inputs` (inputs to a flat list, as Keras does it) and
`Node.arguments` (how a layer was called, to be filled with values).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Values = dict[int, Any]
"""id of a symbolic tensor -> its value."""


@dataclass(frozen=True)
class Step:
    """One call of one layer. index: its place in `model.layers`, None for an operation that is no layer.
    frees: the tensors that nothing after this step reads."""

    name: str
    index: int | None
    node: Any
    frees: tuple[int, ...]

    def run(self, layer: Callable[..., Any], values: Values) -> None:
        """Calls the layer on what this step takes, keeps what it returns, drops what is used up."""
        import keras

        args, kwargs = self.node.arguments.fill_in(values)
        returned = keras.tree.flatten(layer(*args, **kwargs))
        for tensor, value in zip(self.node.outputs, returned, strict=True):
            values[id(tensor)] = value
        for used in self.frees:
            values.pop(used, None)


def steps_to(model: Any, targets: Sequence[Any]) -> tuple[Step, ...]:
    """The calls that `targets` (symbolic tensors of the model's graph) need, in order, and no others."""
    nodes = [
        node
        for depth in sorted(model._nodes_by_depth, reverse=True)
        for node in model._nodes_by_depth[depth]
        if not node.is_input
    ]
    needed = {id(tensor) for tensor in targets}
    kept = []
    for node in reversed(nodes):
        if any(id(tensor) in needed for tensor in node.outputs):
            kept.append(node)
            needed.update(id(tensor) for tensor in node.input_tensors)
    kept.reverse()
    index = {id(layer): i for i, layer in enumerate(model.layers)}
    frees = _last_uses(kept, {id(tensor) for tensor in targets})
    return tuple(
        Step(node.operation.name, index.get(id(node.operation)), node, frees[i])
        for i, node in enumerate(kept)
    )


def _last_uses(nodes: Sequence[Any], kept: set[int]) -> list[tuple[int, ...]]:
    """For each node, the tensors whose last use it is, but for those that are kept."""
    seen = set(kept)
    frees: list[tuple[int, ...]] = []
    for node in reversed(nodes):
        ids = {id(tensor) for tensor in [*node.input_tensors, *node.outputs]} - seen
        seen |= ids
        frees.append(tuple(ids))
    return frees[::-1]


def start(model: Any, inputs: Any) -> Values:
    """The model's inputs as values, cast and ordered as Keras does it."""
    flat = model._standardize_inputs(inputs)
    return {id(tensor): value for tensor, value in zip(model.inputs, flat, strict=True)}


def layer_by_layer(model: Any, inputs: Any, targets: Sequence[Any]) -> list[Any]:
    """The values of symbolic tensors, each layer called in turn: the reference that every strategy's
    values are checked against."""
    values = start(model, inputs)
    for step in steps_to(model, targets):
        step.run(step.node.operation, values)
    return [values[id(tensor)] for tensor in targets]
