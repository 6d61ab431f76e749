"""What is found in a model whose blocks are known, by `hidden_states` and by two rules that people use."""

from __future__ import annotations

import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hiddencost import backends, points
from hiddencost.graph import flat_inputs
from hiddencost.layers import freed
from hiddencost.plan import Plan
from hiddencost.survey.known import Known

Stacks = Mapping[str, Sequence[Any]]
"""Name of a stack -> what stands for each of its hidden states, in order."""


@dataclass(frozen=True)
class Found:
    """What a way finds in a model.

    stacks: how many the model has. right: of those, how many it finds whole and in order, with bit-equal
    values. wrong: what else it takes for one. difference: largest absolute one of a value to what the block
    returned in an untouched forward pass; control: the smallest of the states one block off, which a check
    that can fail has above 0. output_difference: of the model's own outputs, run by its graph. They are
    None where nothing could be compared. seconds: finding alone. why: the error that a rule ended with.
    """

    stacks: int
    right: int
    wrong: int
    difference: float | None = None
    control: float | None = None
    output_difference: float | None = None
    seconds: float | None = None
    why: str = ""


def look(known: Known, depth: int) -> Found:
    """What `hidden_states` finds. Raises what building or calling the model raises."""
    model, truth = known.made(depth)
    began = time.perf_counter()
    states = points.all_stacks(model)
    seconds = time.perf_counter() - began
    inputs = known.inputs(model)
    outputs, theirs = _captured(model, truth, inputs)
    alike = {
        name: [_is(point, one) for point, one in zip(states[name].blocks, blocks, strict=False)]
        for name, blocks in truth.items()
        if name in states and len(states[name].blocks) == len(blocks)
    }
    named = [name for name, found in alike.items() if all(found)]
    mine = {
        name: _arrays(
            Plan(model, states[name].blocks).values(flat_inputs(model, inputs), {"training": False})
        )
        for name in named
    }
    own = _arrays(freed(model)(inputs))
    equal = [name for name in named if _difference(mine[name], theirs[name]) == 0]
    return Found(
        stacks=len(truth),
        right=len(equal),
        wrong=len(set(states) - set(equal)),
        difference=max((_difference(mine[name], theirs[name]) for name in named), default=None),
        control=min(
            (_control(mine[name], theirs[name]) for name in named if len(truth[name]) > 1), default=None
        ),
        output_difference=_difference(own, outputs),
        seconds=seconds,
    )


def rule(name: str, known: Known, depth: int) -> Found:
    """What a rule finds (a name of RULES): right where its tensors have the blocks' values."""
    model, truth = known.made(depth)
    inputs = known.inputs(model)
    _, theirs = _captured(model, truth, inputs)
    try:
        given = [_values(model, tensors, inputs) for tensors in RULES[name](model)]
    except Exception as error:  # whatever it is: who follows the rule meets it
        return Found(len(truth), 0, 0, why=f"{type(error).__name__}: {error}"[:300])
    matched = {
        stack: number
        for stack, values in theirs.items()
        for number, mine in enumerate(given)
        if len(mine) == len(values) and _difference(mine, values) == 0
    }
    return Found(len(truth), len(matched), len(set(range(len(given))) - set(matched.values())))


def _listed_attribute(model: Any) -> Iterator[list[Any]]:
    """`[layer.output for layer in backbone.transformer_layers]`."""
    yield [layer.output for layer in model.transformer_layers]


def _numbered_names(model: Any) -> Iterator[list[Any]]:
    """`layer.output` of the layers of one class that are named alike but for a number, Keras's own aside."""
    alike = defaultdict(list)
    for layer in model.layers:
        numbered = re.fullmatch(r"(.*?)_?\d+", layer.name)
        if numbered and not type(layer).__module__.startswith("keras.src."):
            alike[type(layer), numbered[1]].append(layer)
    yield from ([layer.output for layer in layers] for layers in alike.values())


RULES = {"listed_attribute": _listed_attribute, "numbered_names": _numbered_names}
"""Ways without a look at the graph, by the names that a grid gives them."""


def _is(point: points.Point, one: Any) -> bool:
    """Whether the point is what the truth names: a layer, or a tensor."""
    return point.layer is one or point.tensor is one


def _captured(model: Any, truth: Stacks, inputs: Any) -> tuple[list[Any], dict[str, list[Any]]]:
    """An untouched forward pass: the model's outputs, and what each block of each stack returned. A layer
    that stands several times in the truth was called as often, in that order."""
    import keras

    layers = {id(one): one for blocks in truth.values() for one in blocks if isinstance(one, keras.Layer)}
    returned: dict[int, list[Any]] = defaultdict(list)
    for layer in layers.values():

        def keep(*args: Any, call: Any = layer.call, who: int = id(layer), **kwargs: Any) -> Any:
            outputs = call(*args, **kwargs)
            returned[who].append(keras.tree.flatten(outputs)[0])
            return outputs

        object.__setattr__(layer, "call", keep)
    try:
        outputs = model(inputs)
    finally:
        for layer in layers.values():
            object.__delattr__(layer, "call")
    used: Counter[int] = Counter()
    theirs: dict[str, list[Any]] = {}
    for name, blocks in truth.items():
        if not all(id(one) in layers for one in blocks):
            theirs[name] = _values(model, blocks, inputs)
            continue
        theirs[name] = []
        for one in blocks:
            theirs[name].append(returned[id(one)][used[id(one)]])
            used[id(one)] += 1
    return _arrays(outputs), {name: _arrays(values) for name, values in theirs.items()}


def _values(model: Any, tensors: Sequence[Any], inputs: Any) -> list[Any]:
    """The values of tensors of the graph, by a sub-model of Keras's own."""
    import keras

    return _arrays(keras.Model(model.inputs, list(tensors))(flat_inputs(model, inputs)))


def _arrays(outputs: Any) -> list[Any]:
    import keras

    return [backends.to_numpy(value) for value in keras.tree.flatten(outputs)]


def _difference(mine: Sequence[Any], theirs: Sequence[Any]) -> float:
    """The largest absolute difference; infinite between shapes, and where one alone is not a number."""
    worst = 0.0
    for one, other in zip(mine, theirs, strict=True):
        if one.shape != other.shape:
            return float("inf")
        both = [value.astype("float64") for value in (one, other)]
        gaps = np.abs(both[0] - both[1])[~(np.isnan(both[0]) & np.isnan(both[1]))]
        worst = max(worst, float(np.nan_to_num(gaps, nan=np.inf).max(initial=0.0)))
    return worst


def _control(mine: Sequence[Any], theirs: Sequence[Any]) -> float:
    """The smallest difference of a state to that of the block before it."""
    return min(_difference([one], [other]) for one, other in zip(mine[1:], theirs[:-1], strict=True))
