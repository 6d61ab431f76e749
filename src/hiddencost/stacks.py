"""Stacks of blocks in the graph of any functional model, without a table for each model.

A stack is a chain of calls, each given at one and the same argument what the one before returned at one
and the same place of its outputs: that stream is the hidden state. A constant argument tells it from what
else a block is given (another stack's output, a position bias, a mask), even where shapes agree. Where no
layer is a block (a transformer written with plain layers), the stream is told by its residual additions.

Models inside models and layers with blocks inside are entered. Convolutional stages are no hidden states.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import takewhile
from typing import Any

from hiddencost.graph import Call, calls, calls_inside, is_graph, sub_layers


class Known:
    """What is known of layers while one model is searched. Keras gathers the layers inside a layer, and its
    weights, anew each time they are asked for. kind: a layer's class and the classes of the layers inside;
    what is decided for one layer of a kind holds for all."""

    def __init__(self) -> None:
        self.inside = cache(sub_layers)
        self.kind = cache(lambda layer: (type(layer), *map(type, self.inside(layer))))
        self.blocks: dict[tuple[type, ...], bool] = {}
        self.holders: dict[tuple[type, ...], bool] = {}


@dataclass(frozen=True, eq=False)
class Stack:
    """Blocks in order. outer: the calls that were entered to get there, outermost first. embeddings: what
    the first block is given. states: what each block returns, the hidden states. norm: the normalization of
    the last one and the call that makes it, None where there is none."""

    outer: tuple[Call, ...]
    blocks: tuple[Call, ...]
    embeddings: Any
    states: tuple[Any, ...]
    norm: tuple[Call, Any] | None


def find(model: Any) -> list[Stack]:
    """All stacks of a functional model, in the order of their first blocks. Raises UserError where the
    model has no graph."""
    return _find(calls(model), (), Known())


def _find(level: Sequence[Call], outer: tuple[Call, ...], known: Known) -> list[Stack]:
    inside = cache(lambda call: _inside(call, outer, known))  # tracing a layer takes tenths of a second

    def holds(call: Call) -> bool:
        """Whether chains of blocks are in it. A single one may be a part of a block: its attention, say."""
        return any(len(stack.blocks) > 1 for stack in inside(call))

    made = _made(level)
    found = [
        stack
        for stack in _chains(level, outer, known, made) or _flat(level, outer, made)
        if len(stack.blocks) > 2 or not all(map(holds, stack.blocks))
    ]
    stacks = [(stack.blocks[0].number, [stack]) for stack in found]
    used = {id(block) for _, (stack,) in stacks for block in stack.blocks}
    for call in level:
        if id(call) not in used:
            stacks.append((call.number, inside(call)))
    return [stack for _, found in sorted(stacks, key=lambda pair: pair[0]) for stack in found]


def _inside(call: Call, outer: tuple[Call, ...], known: Known) -> list[Stack]:
    """The stacks inside a call. One or two calls that each hold some are no blocks, but what holds them."""
    if not _may_hold_blocks(call.operation, known):
        return []
    return _find(calls_inside(call), (*outer, call), known)


def _may_hold_blocks(operation: Any, known: Known) -> bool:
    """A model, or a layer that holds at least two layers of one class that could be blocks."""
    if is_graph(operation):
        return True
    kind = known.kind(operation)
    if kind not in known.holders:
        classes = Counter(type(layer) for layer in known.inside(operation) if _is_block(layer, known))
        known.holders[kind] = max(classes.values(), default=0) > 1
    return known.holders[kind]


# -- what a block is --


def _is_block(operation: Any, known: Known) -> bool:
    """Whether it can be a block (see `_could_be_block`)."""
    kind = known.kind(operation)
    if kind not in known.blocks:
        known.blocks[kind] = _could_be_block(operation, known)
    return known.blocks[kind]


def _could_be_block(operation: Any, known: Known) -> bool:
    """A model; a recurrent layer; a layer that is not Keras's own, with at least two layers that have
    weights, or a matrix of its own. Not where all it computes with are convolutions."""
    import keras

    if not isinstance(operation, keras.Layer) or not operation.weights:
        return False
    if isinstance(operation, (keras.layers.RNN, keras.layers.Bidirectional)):
        return True
    inside = known.inside(operation)
    if not isinstance(operation, keras.Model):
        if type(operation).__module__.startswith(("keras.src", "keras.layers")):
            return False
        with_weights = [layer for layer in inside if layer.weights]
        if len(with_weights) < 2 and not any(map(_is_matrix, _own(operation))):
            return False
    leaves = (layer for layer in inside if not known.inside(layer) and layer.weights)
    first = next(leaves, None)
    if first is None or _computes(first) or any(map(_computes, leaves)):  # one is enough, of many
        return True
    return any(map(_is_matrix, _own(operation)))


def _is_matrix(weight: Any) -> bool:
    """Whether a weight can be multiplied with. What begins with 1 is the same for each example and is added
    to it, as positions are."""
    return len(weight.shape) > 1 and weight.shape[0] != 1


def _own(layer: Any) -> Iterable[Any]:
    """A layer's weights without those of the layers inside."""
    inside = {id(weight) for sub in sub_layers(layer) for weight in sub.weights}
    return (weight for weight in layer.weights if id(weight) not in inside)


def _computes(leaf: Any) -> bool:
    """Whether a layer has a matrix, and is no convolution."""
    return "Conv" not in type(leaf).__name__ and any(map(_is_matrix, leaf.weights))


# -- chains of blocks --


def _chains(
    level: Sequence[Call], outer: tuple[Call, ...], known: Known, made: dict[int, tuple[Call, int]]
) -> list[Stack]:
    blocks = [call for call in level if _is_block(call.operation, known)]
    numbers = {call.number for call in blocks}
    links: dict[tuple[Any, int], dict[int, list[Call]]] = defaultdict(lambda: defaultdict(list))
    given: dict[tuple[Any, int], dict[int, Call]] = defaultdict(dict)
    for call in blocks:
        for path, tensor in call.arguments:
            source = _source(tensor, made, lambda found: found.number in numbers)
            if source:
                before, place = source
                links[path, place][before.number].append(call)
                given[path, place][call.number] = before
    for key in list(links):
        _merge(blocks, key, links[key], given[key], made)
    chains = []
    for (path, place), after in links.items():
        for call in blocks:
            if (
                call.number not in given[path, place]
                or len(after[given[path, place][call.number].number]) > 1
            ):
                chain = _follow(call, path, place, after)
                chains += _runs(chain, path, place)
    chains.sort(key=lambda chain: (-len(chain[0]), chain[2], str(chain[1])))  # the state is returned first
    stacks: list[Stack] = []
    used: set[int] = set()
    for members, path, place in chains:
        if not used & {id(call) for call in members}:
            used |= {id(call) for call in members}
            stacks.append(_stack(level, outer, members, path, place))
    return stacks or _single(level, outer, blocks)


def _takes(call: Call, tensor: Any) -> bool:
    return any(taken is tensor for _, taken in call.arguments)


def _made(level: Sequence[Call]) -> dict[int, tuple[Call, int]]:
    """The call that made each tensor, with the tensor's place among its outputs. A layer that returns what
    it is given, as a dropout does at inference, makes nothing."""
    made = {}
    for call in level:
        taken = {id(tensor) for _, tensor in call.arguments}
        for place, tensor in enumerate(call.outputs):
            if id(tensor) not in taken:
                made[id(tensor)] = call, place
    return made


def _source(tensor: Any, made: dict[int, Any], stop: Callable[[Call], bool]) -> tuple[Call, int] | None:
    """The call that a tensor comes from, with the place among its outputs: through calls that take one
    tensor and return one of its shape, up to one at which to stop."""
    while (found := made.get(id(tensor))) is not None:
        call, place = found
        if stop(call):
            return call, place
        if len(call.arguments) != 1 or len(call.outputs) != 1:
            return None
        (_, before), shape = call.arguments[0], tensor.shape
        if tuple(before.shape) != tuple(shape):
            return None
        tensor = before
    return None


def _merge(
    blocks: Sequence[Call],
    key: tuple[Any, int],
    after: dict[int, list[Call]],
    given: dict[int, Call],
    made: dict[int, tuple[Call, int]],
) -> None:
    """Where the stream of a key divides and its branches are merged again, links the block after them to the
    one before them: what lies between is beside the stream."""
    path, place = key
    numbers = {call.number for call in blocks}
    for call in blocks:
        taken = dict(call.arguments).get(path)
        if call.number in given or taken is None:
            continue
        merged = _merged(taken, made, numbers)
        if len(merged) < 2 or any(found is None or found[1] != place for found in merged):
            continue
        lines = [_line(found[0], given) for found in merged if found]
        common = [one for one in lines[0] if all(one in line for line in lines[1:])]
        between = {one.number for line in lines for one in line[: line.index(common[0])]} if common else set()
        if common and all(one.number in between for one in after[common[0].number]):
            after[common[0].number] = [call]
            given[call.number] = common[0]
            for number in between:
                after.pop(number, None)


def _merged(
    tensor: Any, made: dict[int, tuple[Call, int]], numbers: set[int]
) -> set[tuple[Call, int] | None]:
    """The blocks that a tensor is merged from, with the places of their outputs, through calls that take and
    return tensors of one shape; None among them where it comes from elsewhere too."""
    found: set[tuple[Call, int] | None] = set()
    left, seen = [tensor], {id(tensor)}
    while left:
        tensor = left.pop()
        call, place = made.get(id(tensor), (None, 0))
        if call is not None and call.number in numbers:
            found.add((call, place))
            continue
        taken = [one for _, one in call.arguments] if call is not None and len(call.outputs) == 1 else []
        if {tuple(one.shape) for one in taken} != {tuple(tensor.shape)}:
            return {None}
        left += [one for one in taken if id(one) not in seen]
        seen |= set(map(id, taken))
    return found


def _line(call: Call, given: dict[int, Call]) -> list[Call]:
    """The call and those before it in the stream, the nearest first."""
    line = [call]
    while line[-1].number in given:
        line.append(given[line[-1].number])
    return line


def _follow(call: Call, path: Any, place: int, after: dict[int, list[Call]]) -> list[Call]:
    """From a first block on, as long as exactly one takes what the one before returns."""
    chain = [call]
    while len(following := after.get(chain[-1].number, [])) == 1:
        chain += following
    return chain


def _runs(chain: list[Call], path: Any, place: int) -> list[tuple[list[Call], Any, int]]:
    """The parts of a chain of at least two blocks whose hidden states are of one width; the first is given
    a state of that width too, or is of the same class as the second."""
    parts: list[list[Call]] = []
    chain = _without_heads(chain)
    for call in takewhile(lambda call: place < len(call.outputs), chain):
        if parts and _width(parts[-1][-1].outputs[place]) == _width(call.outputs[place]):
            parts[-1].append(call)
        else:
            parts.append([call])
    found = [_from_first(part, path, place) for part in parts]
    return [(kept, path, place) for kept in found if len(kept) > 1 and not _one_block_attends(kept, path)]


def _one_block_attends(pair: Sequence[Call], path: Any) -> bool:
    """Whether two calls are the attentions of one block: the first is given the stream at more places, as
    query and as key, the second is given another stream for its key. (In longer chains a block that is given
    the embeddings beside the stream does so in all, and only for the first both are one.)"""
    if len(pair) != 2:
        return False
    places = []
    for call in pair:
        stream = dict(call.arguments)[path]
        places.append([where for where, taken in call.arguments if taken is stream])
    return places[0] != places[1]


def _without_heads(chain: list[Call]) -> list[Call]:
    """Without what is wrapped up in a Sequential after the last block, a neck or a head, or before the first:
    unless all are."""
    import keras

    blocks = [number for number, call in enumerate(chain) if not isinstance(call.operation, keras.Sequential)]
    return chain[blocks[0] : blocks[-1] + 1] if blocks else chain


def _from_first(part: list[Call], path: Any, place: int) -> list[Call]:
    while part and not _begins(part, path, place):
        part = part[1:]
    return part


def _begins(part: list[Call], path: Any, place: int) -> bool:
    first, state = part[0], part[0].outputs[place]
    taken = dict(first.arguments).get(path)
    if taken is None or len(taken.shape) != len(state.shape) or len(state.shape) < 3:
        return False
    same = len(part) > 1 and type(first.operation) is type(part[1].operation)
    return "float" in str(taken.dtype) and (_width(taken) == _width(state) or same)


def _width(tensor: Any) -> tuple[int, Any]:
    return len(tensor.shape), tensor.shape[-1] if len(tensor.shape) else None


def _single(level: Sequence[Call], outer: tuple[Call, ...], blocks: Sequence[Call]) -> list[Stack]:
    """A stack of one block, where only one call of the level can be a block and returns what it is given."""
    alone = [
        (call, path)
        for call in blocks
        if not is_graph(call.operation) and call.outputs
        for path, _ in call.arguments[:1]
        if _begins([call], path, 0)
    ]
    if len(alone) != 1:
        return []
    ((call, path),) = alone
    return [_stack(level, outer, [call], path, 0)]


def _stack(
    level: Sequence[Call], outer: tuple[Call, ...], members: Sequence[Call], path: Any, place: int
) -> Stack:
    states = tuple(call.outputs[place] for call in members)
    return Stack(outer, tuple(members), dict(members[0].arguments)[path], states, _norm(level, states[-1]))


def _norm(level: Sequence[Call], state: Any) -> tuple[Call, Any] | None:
    """What normalizes the last state: reached through calls that only pass it on, such as a dropout."""
    while True:
        takers = [
            call for call in level if _takes(call, state) and not any(made is state for made in call.outputs)
        ]
        norms = [call for call in takers if "Norm" in type(call.operation).__name__]
        if len(norms) == 1 and len(norms[0].outputs) == 1:
            return norms[0], norms[0].outputs[0]
        if len(takers) != 1 or "Dropout" not in type(takers[0].operation).__name__:
            return None
        state = takers[0].outputs[0]


# -- residual streams --


@dataclass(frozen=True, eq=False)
class _Addition:
    """One addition to a stream. stream: what is added to. kind: what the branch computes with."""

    call: Call
    stream: Any
    kind: tuple[Any, ...]


def _flat(level: Sequence[Call], outer: tuple[Call, ...], made: dict[int, tuple[Call, int]]) -> list[Stack]:
    """Blocks written with plain layers: the longest run of additions to one stream whose branches repeat.
    A block is one period; its state is what the next block adds to."""
    computing: dict[tuple[Any, ...], bool] = {}
    additions = {call.number: found for call in level if (found := _addition(call, made, computing))}
    after: dict[int, list[Call]] = defaultdict(list)
    following = set()
    for addition in additions.values():
        before = _source(addition.stream, made, lambda found: found.number in additions)
        if before:
            after[before[0].number].append(addition.call)
            following.add(addition.call.number)
    stacks = []
    for addition in additions.values():
        if addition.call.number not in following or len(after[addition.call.number]) > 1:
            chain = [additions[call.number] for call in _follow(addition.call, None, 0, after)]
            stack = _periods(level, outer, chain)
            stacks += [stack] if stack else []
    return stacks


def _addition(call: Call, made: dict[int, Any], computing: dict[tuple[Any, ...], bool]) -> _Addition | None:
    """The call as an addition to a stream: one of its two tensors is computed from the other, with
    weights; both of shape (batch, sequence, width). computing: whether a kind of branch has a matrix, decided
    once for each."""
    import keras

    if type(call.operation).__name__ != "Add" or len(call.arguments) != 2:
        return None
    tensors = [tensor for _, tensor in call.arguments]
    if {tuple(tensor.shape) for tensor in tensors} != {tuple(call.outputs[0].shape)}:
        return None
    if len(call.outputs[0].shape) != 3:
        return None
    stream, branch = sorted(
        tensors, key=lambda tensor: made[id(tensor)][0].number if id(tensor) in made else -1
    )
    seen: dict[int, Call] = {}
    left, reached = [branch], False
    while left:
        tensor = left.pop()
        if tensor is stream:
            reached = True
        elif id(tensor) in made and made[id(tensor)][0].number not in seen:
            source = made[id(tensor)][0]
            seen[source.number] = source
            left += [taken for _, taken in source.arguments]
    if not reached:
        return None
    layers = [one for one in seen.values() if isinstance(one.operation, keras.Layer)]
    # What they return tells layers apart too, and is known at once: of their weights, TensorFlow makes the
    # shapes anew each time they are asked for, which took half of the search.
    kind = tuple(sorted((type(one.operation).__name__, str(one.outputs[0].shape)) for one in layers))
    if kind not in computing:
        computing[kind] = any(len(weight.shape) > 1 for one in layers for weight in one.operation.weights)
    return _Addition(call, stream, kind) if computing[kind] else None


def _periods(level: Sequence[Call], outer: tuple[Call, ...], chain: Sequence[_Addition]) -> Stack | None:
    """The stack of a chain of additions whose branches repeat at least twice."""
    kinds = [addition.kind for addition in chain]
    count = len(chain)
    for period in range(1, count // 2 + 1):
        if count % period == 0 and kinds[period:] == kinds[:-period]:
            ends = range(period - 1, count, period)
            states = [chain[end + 1].stream for end in ends if end + 1 < count]
            last = chain[-1].call.outputs[0]
            norm = _norm(level, last)
            if norm and states[-1] is not chain[ends[-2]].call.outputs[0]:
                last, norm = norm[1], _norm(level, norm[1])
            blocks = tuple(chain[end].call for end in ends)
            return Stack(outer, blocks, chain[0].stream, (*states, last), norm)
    return None
