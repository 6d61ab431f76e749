"""Hidden states of any functional model: an ordered, labelled collection of points in its graph.

    points = hidden_states(model)
    points["block_3"], points[-1], points[-4:], points.select("block_*"), points.middle

A point is a tensor of the graph: `embeddings` (what the first block is given), `block_0` ... `block_{N-1}`
(what each block returns) and `final_norm` (where a normalization follows the last block). `stacks` finds
them; nothing here depends on what a model is called or how it lists its layers.
"""

from __future__ import annotations

import fnmatch
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np

from hiddencost import stacks
from hiddencost.errors import UserError, nearest
from hiddencost.graph import Call, Spec, calls, graph_of, maker, which_call
from hiddencost.grid import SELECTIONS

MAIN = "main"
NAMED = "at"
"""The stack of points that the caller names."""


@dataclass(frozen=True)
class Point:
    """A hidden state by name.

    stack: the stack it belongs to. index: the block's number, -1 for the embeddings. layer: the Keras layer
    that computes it. call: which of that layer's calls, 0 for the first (ALBERT calls one layer many
    times). tensor: symbolic, usually (batch, sequence, width). outer: the calls of nested models, or of a
    layer, inside which it lies; none where it is in the model's own graph.
    """

    name: str
    index: int
    layer: Any
    tensor: Any = field(compare=False)  # the other libraries' is an array, which has no hash
    stack: str = MAIN
    call: int = 0
    outer: tuple[Call, ...] = field(default=(), repr=False)

    @property
    def width(self) -> int:
        return int(self.tensor.shape[-1])

    @property
    def token_bytes(self) -> int:
        """Bytes of one token's state."""
        return int(self.width * np.dtype(self.tensor.dtype).itemsize)

    @property
    def inside(self) -> bool:
        """Whether it lies inside a nested model or a layer, so that no sub-model of the graph ends there."""
        return bool(self.outer)


class HiddenStates(Sequence[Point]):
    """The points of one stack, immutable: the embeddings and every block in order, N + 1 as transformers
    counts, 0 the embeddings and -1 the last block. The normed final state is found by its name alone."""

    def __init__(self, counted: Iterable[Point], final_norm: Point | None = None) -> None:
        self._counted = tuple(counted)
        self.final_norm = final_norm

    @property
    def named(self) -> tuple[Point, ...]:
        """All points that have a name, `final_norm` at the end."""
        return self._counted + ((self.final_norm,) if self.final_norm else ())

    @property
    def stack(self) -> str:
        """The name of the stack."""
        return self._counted[-1].stack

    @property
    def blocks(self) -> tuple[Point, ...]:
        """The points that blocks return."""
        return tuple(point for point in self._counted if point.index >= 0)

    @property
    def last(self) -> Point:
        """What the last block returns, before any normalization."""
        return self.select("last")[0]

    @property
    def middle(self) -> Point:
        """block_{N//2-1}: half of the blocks run."""
        return self.select("middle")[0]

    @property
    def last_four(self) -> HiddenStates:
        """What the last four blocks return."""
        return self.select("last_four")

    @property
    def all(self) -> HiddenStates:
        """The embeddings and every block."""
        return self.select("all")

    def __len__(self) -> int:
        return len(self._counted)

    def __iter__(self) -> Iterator[Point]:
        return iter(self._counted)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HiddenStates) and self.named == other.named

    def __hash__(self) -> int:
        return hash(tuple(point.name for point in self.named))

    def __repr__(self) -> str:
        return f"HiddenStates({', '.join(point.name for point in self.named)})"

    @overload
    def __getitem__(self, which: int | str) -> Point: ...
    @overload
    def __getitem__(self, which: slice | list[int | str]) -> HiddenStates: ...
    def __getitem__(self, which: int | str | slice | list[int | str]) -> Point | HiddenStates:
        """By index, name, slice, or a list of indices and names. Raises IndexError and KeyError as a
        sequence and a dict do, with the points there are."""
        if isinstance(which, slice):
            return HiddenStates(self._counted[which])
        if isinstance(which, list):
            return HiddenStates(self[one] for one in which)
        if isinstance(which, str):
            for point in self.named:
                if point.name == which:
                    return point
            raise KeyError(f"unknown point '{which}'{nearest(which, self._names())}")
        if not -len(self) <= which < len(self):
            raise IndexError(f"point {which}: the model has {len(self)} points, 0 to {len(self) - 1}")
        return self._counted[which]

    def _names(self) -> list[str]:
        return [point.name for point in self.named]

    def select(self, selection: str) -> HiddenStates:
        """The points of a selection: `last`, `middle`, `last_four`, `all`, or comma-joined names, globs
        (`block_*`), indices (0 is the embeddings, -1 the last block) and slices (`-4:`). Raises UserError
        when the model has no such point."""
        blocks = self.blocks
        if len(blocks) < SELECTIONS.get(selection, 0):
            raise UserError(
                f"points '{selection}' needs {SELECTIONS[selection]} blocks, the model has {len(blocks)}"
            )
        match selection:
            case "last":
                return HiddenStates(blocks[-1:])
            case "middle":
                return HiddenStates([blocks[len(blocks) // 2 - 1]])
            case "last_four":
                return HiddenStates(blocks[-4:])
            case "all":
                return HiddenStates(self._counted)
        found = [point for name in selection.split(",") for point in self._matching(name.strip())]
        return HiddenStates(dict.fromkeys(found))

    def _matching(self, name: str) -> Sequence[Point]:
        try:
            if re.fullmatch(r"-?\d+", name):
                return [self[int(name)]]
            if sliced := re.fullmatch(r"(-?\d+)?:(-?\d+)?", name):
                ends = (int(end) if end else None for end in sliced.groups())
                return self._some(self[slice(*ends)], name)
            if set(name) & set("*?["):
                return self._some([p for p in self.named if fnmatch.fnmatchcase(p.name, name)], name)
            return [self[name]]
        except LookupError as error:
            raise UserError(str(error.args[0])) from None

    def _some(self, found: Sequence[Point], name: str) -> Sequence[Point]:
        if not found:
            raise UserError(f"points '{name}': the model has {self._names()[0]} to {self._names()[-1]}")
        return found


def hidden_states(model: Any, stack: str | None = None, at: Sequence[Any] | None = None) -> HiddenStates:
    """The points of a functional Keras model.

    stack: which one, where the model has several (`all_stacks` gives them all). at: no search, but these
    points: layers (or names of layers) for what their first call returns, or symbolic tensors of the graph;
    each is named as its layer.

    Raises UserError for a model without a graph, without a stack of blocks, with several where none is
    named, and for a name that it lacks; each says what there is and what to do.
    """
    if at is not None:
        return _explicit(model, at)
    found = all_stacks(model)
    if stack is not None:
        if stack in found:
            return found[stack]
        raise UserError(f"unknown stack '{stack}'{nearest(stack, found)}")
    if len(found) == 1:
        return next(iter(found.values()))
    name = _title(model)
    if found:
        listed = ", ".join(f"'{stack}' ({len(states.blocks)} blocks)" for stack, states in found.items())
        raise UserError(f"{name} has {len(found)} stacks: {listed}: choose one with stack=")
    raise UserError(
        f"{name} has no stack of blocks whose hidden states could be told: name layers or tensors yourself, "
        f"hidden_states(model, at=[...]); its layers with weights: {_candidates(model)}"
    )


def all_stacks(model: Any) -> dict[str, HiddenStates]:
    """The points of every stack of a functional model, by the stack's name; empty where it has none.
    Raises UserError for a model without a graph."""
    found = stacks.find(model)
    return {name: _points(name, stack) for name, stack in zip(_names(found), found, strict=True)}


def _points(name: str, stack: stacks.Stack) -> HiddenStates:
    times: Counter[int] = Counter()
    blocks = []
    for index, (call, state) in enumerate(zip(stack.blocks, stack.states, strict=True)):
        layer = call.operation
        number = _which_call(call, times)
        blocks.append(Point(f"block_{index}", index, layer, state, name, number, stack.outer))
    first = stack.blocks[0]
    given = Point("embeddings", -1, _maker(stack.embeddings, first), stack.embeddings, name, 0, stack.outer)
    norm = None
    if stack.norm:
        call, tensor = stack.norm
        norm = Point("final_norm", len(blocks), call.operation, tensor, name, 0, stack.outer)
    return HiddenStates([given, *blocks], norm)


def _which_call(call: Call, times: Counter[int]) -> int:
    """Which of its layer's calls it is: in a graph by the layer's own count, inside a layer by ours."""
    if call.node is not None:
        return which_call(call)
    times[id(call.operation)] += 1
    return times[id(call.operation)] - 1


def _maker(tensor: Any, first: Call) -> Any:
    """The layer that makes a tensor; inside a layer that is not known: the first block then."""
    return first.operation if isinstance(tensor, Spec) else maker(tensor)[0]


def tensors_of(points: Iterable[Point]) -> list[Any]:
    """The points' symbolic tensors, for a sub-model that ends there. Raises UserError where one lies inside a
    nested model or a layer, in which none can."""
    found = list(points)
    inner = [point.name for point in found if point.inside]
    if inner:
        names = ", ".join(inner)
        raise UserError(
            f"{names}: inside a nested model or a layer: no sub-model ends there, take functional_freed"
        )
    return [point.tensor for point in found]


# -- names of stacks --


def _names(found: Sequence[stacks.Stack]) -> list[str]:
    """A name for each stack: `main` where it is the only one; else the shortest that tells them apart:
    encoder or decoder, the nested model or layer it lies in, what its blocks' names begin with, both."""
    if len(found) == 1:
        return [MAIN]
    begins = [_beginning(stack) for stack in found]
    sides = [next((side for side in ("encoder", "decoder") if side in begin), "") for begin in begins]
    paths = [[call.operation.name for call in stack.outer] for stack in found]
    plain = [[re.sub(r"_\d+$", "", name) for name in path] for path in paths]
    # Keras counts what has no name of its own, in the process: the counts last.
    for either in (plain, paths):
        outer = [path[-1] if path else "" for path in either]
        fallbacks = [[a or b for a, b in zip(outer, others, strict=True)] for others in (sides, begins)]
        for names in (sides, *fallbacks, begins, _joined(either, begins)):
            if all(names) and len(set(names)) == len(names):
                return names
    whole = _joined(plain, begins)
    count = Counter(whole)
    seen: Counter[str] = Counter()
    unique = []
    for name in whole:
        seen[name] += 1
        unique.append(name if count[name] == 1 else f"{name}_{seen[name] - 1}")
    return unique


def _joined(paths: Sequence[Sequence[str]], begins: Sequence[str]) -> list[str]:
    return ["/".join([*path, begin]) for path, begin in zip(paths, begins, strict=True)]


def _beginning(stack: stacks.Stack) -> str:
    """What the names of a stack's layers share at their beginning, without a number at its end."""
    names = [call.operation.name for call in stack.blocks]
    shared = 0
    while len({name[: shared + 1] for name in names}) == 1 and shared < len(names[0]):
        shared += 1
    return re.sub(r"_?\d*_?$", "", names[0][:shared], count=1) or names[0]


def _title(model: Any) -> str:
    return f"{type(model).__name__} '{model.name}'"


def _candidates(model: Any, most: int = 12) -> str:
    names = list(
        dict.fromkeys(c.operation.name for c in calls(model) if getattr(c.operation, "weights", None))
    )
    if len(names) > most:
        names = [*names[: most // 2], "...", *names[-most // 2 :]]
    return ", ".join(names)


# -- points that are kept with a model --

Kept = list[Any]
"""[stack, name]; of a point that the caller named [NAMED, layer, which of its calls in the graph, place among
what that returns]."""


def kept(model: Any, point: Point) -> Kept:
    """What finds the point again in the same model, loaded anew."""
    if point.stack != NAMED:
        return [point.stack, point.name]
    name = point.layer.name
    for number, tensors in enumerate(_returned(model, name)):
        for place, tensor in enumerate(tensors):
            if tensor is point.tensor:
                return [NAMED, name, number, place]
    raise ValueError(f"point '{point.name}' is of another model")


def found_again(model: Any, all_kept: Sequence[Kept]) -> list[Point]:
    """The points of a model that `kept` told."""
    stacks_of = all_stacks(model)
    return [
        stacks_of[stack][name]
        if not where
        else _explicit(model, [_returned(model, name)[where[0]][where[1]]])[0]
        for stack, name, *where in all_kept
    ]


def _returned(model: Any, name: str) -> list[Sequence[Any]]:
    """What each call of a layer returns in a model's graph, an input layer's too."""
    given = [(tensor,) for tensor in graph_of(model).inputs if maker(tensor)[0].name == name]
    return [*given, *(call.outputs for call in calls(model) if call.operation.name == name)]


def refuse_another_models(model: Any, points: Iterable[Point]) -> None:
    """Raises UserError for a point that is none of the model's."""
    graph = calls(model)
    nodes = {id(call.node) for call in graph}
    tensors = {id(tensor) for call in graph for tensor in call.outputs}
    tensors.update(id(tensor) for tensor in graph_of(model).inputs)
    for point in points:
        mine = id(point.outer[0].node) in nodes if point.outer else id(point.tensor) in tensors
        if not mine:
            raise UserError(
                f"point '{point.name}' is of another model than {_title(model)}: take hidden_states of "
                "this one"
            )


# -- points that the caller names --


def _explicit(model: Any, at: Sequence[Any]) -> HiddenStates:
    """Points at layers, names of layers, or tensors of the model's own graph."""
    graph = calls(model)
    known: dict[str, Call] = {}
    for call in graph:
        known.setdefault(call.operation.name, call)
    made = {id(tensor): call for call in graph for tensor in call.outputs}
    given = {id(tensor) for tensor in model.inputs}
    points = []
    for index, one in enumerate(at):
        if isinstance(one, str):
            if one not in known:
                raise UserError(f"{_title(model)} has no layer '{one}'{nearest(one, known)}")
            tensor = known[one].outputs[0]
        elif id(one) in made or id(one) in given:
            tensor = one
        elif mine := [call for call in graph if call.operation is one]:
            tensor = mine[0].outputs[0]
        else:
            raise UserError(
                f"{_title(model)}: {one!r} is no layer of its graph, name of one, or tensor in it; "
                f"its layers with weights: {_candidates(model)}"
            )
        layer, number = maker(tensor)
        points.append(Point(layer.name, index, layer, tensor, NAMED, number))
    if not points:
        raise UserError("at=[]: name at least one layer or tensor")
    return HiddenStates(points)
