"""A functional model's graph, run so that nothing is kept longer than it is needed.

Keras keeps what every node of the graph returned until the call is over (Function._run_through_graph), so
an eager call holds all of it at its end. Here each tensor is dropped after its last use, nodes that nothing
asks for are not run, and what lies inside nested models and layers can be asked for too.
"""

from __future__ import annotations

import gc
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hiddencost.graph import (
    Call,
    calls,
    carry,
    flat_inputs,
    graph_of,
    is_graph,
    mask_of,
    masked,
    passed_on,
    read_inside,
    runs_its_graph,
)


@dataclass(frozen=True, eq=False)
class Wanted:
    """A tensor to read. outer: the calls to enter, outermost first; none for one of the model's own graph.
    tensor: of the graph, or inside the layer, that is entered last."""

    tensor: Any
    outer: tuple[Call, ...] = ()


@dataclass(frozen=True, eq=False)
class _Step:
    """One call of the graph. inside: what is wanted from within, each with its place among all that is.
    outputs: whether what it returns is used. reads: what is wanted of that. frees: the tensors that nothing
    after this call reads."""

    call: Call
    inside: tuple[tuple[int, Wanted], ...]
    outputs: bool
    reads: tuple[int, ...]
    frees: tuple[int, ...]

    @cached_property
    def nested(self) -> bool:
        """Whether it is given tensors in a list or a dict, or returns several."""
        return len(self.call.outputs) > 1 or any(len(path) > 2 for path, _ in self.call.arguments)

    @cached_property
    def plan(self) -> Plan:
        """How a nested model is run here."""
        graph = graph_of(self.call.operation)
        own = [Wanted(tensor) for tensor in graph.outputs] if self.outputs else []
        return Plan(graph, [*(wanted for _, wanted in self.inside), *own])

    def run(self, args: Any, kwargs: dict[str, Any], context: Mapping[str, Any]) -> tuple[list[Any], Any]:
        """What is wanted from within, and what the call returns."""
        operation = self.call.operation
        kwargs = {**kwargs, **passed_on(operation, context)}
        plain = runs_its_graph(operation) and len(args) == 1 and not set(kwargs) - {"training", "mask"}
        if plain or (self.inside and is_graph(operation)):
            given = flat_inputs(operation, args[0])
            masked(given, kwargs.get("mask"))
            found = self.plan.values(given, {"training": kwargs.get("training")})
            return found[: len(self.inside)], found[len(self.inside) :]
        if not self.inside:
            return [], operation(*args, **kwargs)
        return read_inside(operation, args, kwargs, [one.tensor for _, one in self.inside], self.outputs)


class Plan:
    """How the graph of a model is run to read some tensors: which calls, and what is dropped after each.

    model: functional, or a built Sequential. wanted: what `values` returns, in order: points, or anything
    with their `tensor` and `outer`. Raises UserError for a model without a graph.
    """

    def __init__(self, model: Any, wanted: Sequence[Any]) -> None:
        import keras

        self.model = graph_of(model)
        self._own = {place: id(one.tensor) for place, one in enumerate(wanted) if not one.outer}
        self._count = len(wanted)
        entered: dict[int, list[tuple[int, Wanted]]] = defaultdict(list)
        for place, one in enumerate(wanted):
            if one.outer:
                entered[one.outer[0].number].append((place, Wanted(one.tensor, one.outer[1:])))
        own = set(self._own.values())
        seen = set(own)
        steps = []
        for call in reversed(calls(self.model)):
            used = any(id(tensor) in seen for tensor in call.outputs)
            if used or call.number in entered:
                touched = {id(tensor) for _, tensor in call.arguments} | {
                    id(tensor) for tensor in call.outputs
                }
                reads = tuple(id(tensor) for tensor in call.outputs if id(tensor) in own)
                inside = tuple(entered.get(call.number, ()))
                steps.append(_Step(call, inside, used, reads, tuple(touched - seen)))
                seen |= touched
        self.steps = tuple(reversed(steps))
        self._leaves_cycles = keras.backend.backend() == "torch"
        self._inputs = [id(tensor) if id(tensor) in seen else None for tensor in self.model.inputs]

    def values(self, inputs: Sequence[Any], context: Mapping[str, Any]) -> list[Any]:
        """The tensors that are wanted.

        inputs: the model's, flat, as `graph.flat_inputs` gives them. context: `training` and the like.
        """
        values = {key: value for key, value in zip(self._inputs, inputs, strict=True) if key is not None}
        found: list[Any] = [None] * self._count
        masks = {key: mask_of(value) for key, value in values.items()}
        for step in self.steps:
            args, kwargs = step.call.filled(values)
            inside, outputs = step.run(args, kwargs, context)
            del args, kwargs
            for (place, _), value in zip(step.inside, inside, strict=True):
                found[place] = value
            if step.outputs:
                step.call.keep(outputs, values)
                masks.update({key: mask_of(values[key]) for key in step.reads})
            del inside, outputs
            for used in step.frees:
                values.pop(used, None)
            if self._leaves_cycles and step.nested:
                _drop_cycles()
        for place, key in self._own.items():
            found[place] = values[key]
            carry(values[key], masks[key])
        return found


def _drop_cycles() -> None:
    """Frees what a call that takes or returns several tensors at once leaves behind on torch: Keras's walk
    through them (torchtree_impl._dict_to_ordered_dict, 3.15) makes closures that refer to themselves and to
    the tensors, which live until Python next collects. The youngest generation is enough, and quick."""
    import torch

    if not torch.compiler.is_compiling():
        gc.collect(0)
