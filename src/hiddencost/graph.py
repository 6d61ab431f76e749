"""The graph of a functional Keras model, read as calls. The one file that knows what Keras keeps private:

- `Function._nodes_by_depth`: the graph's nodes, in the order in which Keras runs them;
- `Node.operation`, `.arguments`, `.outputs`, `.is_input`: one call of one layer (a layer may have many);
- `Operation._inbound_nodes`, `KerasTensor._keras_history`: a layer's calls, and which of them made a tensor;
- `get_keras_mask`, `set_keras_mask` of `keras.src.backend`: the mask that a tensor carries to the layers that
  take it;
- `Operation._call_context_args`: which of a call's arguments, such as `training`, the model passes on;
- `Function._standardize_inputs`: inputs to a flat list, cast and ordered as Keras does it;
- `Sequential._functional`: the functional model that a built Sequential runs;
- `Layer._layers`, `._flatten_layers`: the layers right inside a layer, and those at any depth;
- an attribute `call` of the instance takes the place of the class's, as `Operation.__call__` looks it up:
  it is set for the time of one call, to see the calls inside a layer, and removed again.

tests/test_graph.py has a canary for each, which names the one that a new Keras changed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from hiddencost.errors import UserError

OPEN = 8
"""What a layer is traced with for the sizes that its inputs leave open, where it cannot be with Keras's."""
Path = tuple[Any, ...]
"""Where a tensor stands in the arguments `(args, kwargs)` of a call: `(0, 0)`, `(1, "mask")`."""


@dataclass(frozen=True, eq=False)
class Spec:
    """A tensor that was seen inside a layer, without its value. seen: the number of the call that it was
    first seen at, whether it was one of its "arguments" or "outputs", and where there."""

    shape: tuple[int | None, ...]
    dtype: str
    seen: tuple[int, str, Path]


@dataclass(frozen=True, eq=False)
class Call:
    """One call of one operation. arguments: the tensors that it takes, each with its path. outputs: what it
    returns, flat. number: its place in the order of calls. node: of Keras's graph, None inside a layer.
    inside: the calls that were seen inside it, none for a node of the graph (see `calls_inside`)."""

    operation: Any
    arguments: tuple[tuple[Path, Any], ...]
    outputs: tuple[Any, ...]
    number: int
    node: Any = None
    inside: list[Call] = field(default_factory=list)

    def filled(self, values: Mapping[int, Any]) -> tuple[Sequence[Any], dict[str, Any]]:
        """The arguments of a call of the graph, with the values of its tensors by their ids."""
        args, kwargs = self.node.arguments.fill_in(values)
        return args, kwargs

    def keep(self, returned: Any, values: dict[int, Any]) -> None:
        """Adds what such a call returned to the values."""
        import keras

        for tensor, value in zip(self.outputs, keras.tree.flatten(returned), strict=True):
            values[id(tensor)] = value


def is_graph(operation: Any) -> bool:
    """Whether it is a functional model, or a Sequential that has been built."""
    import keras

    return _is_functional(operation) or (
        isinstance(operation, keras.Sequential) and operation._functional is not None
    )


def _is_functional(model: Any) -> bool:
    """A keras.Function that is no model has no inputs of its own to cast, and no dtype."""
    import keras

    return isinstance(model, keras.Function) and isinstance(model, keras.Layer)


def graph_of(model: Any) -> Any:
    """The functional model itself, or the one that a Sequential runs. Raises UserError for any other."""
    import keras

    if _is_functional(model):
        return model
    name = type(model).__name__
    if isinstance(model, keras.Sequential):
        if model._functional is not None:
            return model._functional
        raise UserError(f"{name} '{model.name}' is not built: call it once, or give it a keras.Input")
    if isinstance(model, keras.Model):
        raise UserError(
            f"{name} '{model.name}' is a subclassed model, which has no graph: build it with the functional "
            "API, or let its `call` return what you need"
        )
    raise UserError(f"{name} is no Keras model: give a functional keras.Model")


def calls(model: Any) -> list[Call]:
    """The calls of a functional model's graph, in the order in which Keras runs them."""
    import keras

    found: list[Call] = []
    graph = graph_of(model)
    for depth in sorted(graph._nodes_by_depth, reverse=True):
        for node in graph._nodes_by_depth[depth]:
            if not node.is_input:
                taken = _tensors((node.arguments.args, node.arguments.kwargs), keras.KerasTensor)
                found.append(Call(node.operation, taken, tuple(node.outputs), len(found), node))
    return found


def _tensors(arguments: Any, kind: Any) -> tuple[tuple[Path, Any], ...]:
    args, kwargs = arguments
    if len(args) == 1 and not kwargs and isinstance(args[0], kind):  # most take one: it is known at once
        return (((0, 0), args[0]),)
    found: list[tuple[Path, Any]] = []
    _gather(arguments, (), kind, found)
    return tuple(found)


def _gather(value: Any, path: Path, kind: Any, found: list[tuple[Path, Any]]) -> None:
    """Adds the leaves of a kind with their paths, as `keras.tree.flatten_with_path` gives them; plain
    containers are walked here, which is quicker."""
    if isinstance(value, kind):
        found.append((path, value))
    elif type(value) in (list, tuple):
        for place, one in enumerate(value):
            if one is not None:
                _gather(one, (*path, place), kind, found)
    elif type(value) is dict and all(isinstance(key, str) for key in value):
        for key in sorted(value):
            if value[key] is not None:
                _gather(value[key], (*path, key), kind, found)
    elif not isinstance(value, (str, int, float)):
        import keras

        for inner, leaf in keras.tree.flatten_with_path(value):
            if isinstance(leaf, kind):
                found.append(((*path, *inner), leaf))


def ancestors(model: Any, of: Any) -> set[int]:
    """The ids of the tensors of a model's graph that a tensor of it, or a call, depends on."""
    found = {id(tensor) for _, tensor in of.arguments} if isinstance(of, Call) else {id(of)}
    for call in reversed(calls(model)):
        if any(id(tensor) in found for tensor in call.outputs):
            found |= {id(tensor) for _, tensor in call.arguments}
    return found


def maker(tensor: Any) -> tuple[Any, int]:
    """The layer that made a symbolic tensor, and in which of its calls."""
    return tensor._keras_history.operation, int(tensor._keras_history.node_index)


def which_call(call: Call) -> int:
    """Which of its layer's calls a call of a graph is, 0 for the first."""
    return int(call.operation._inbound_nodes.index(call.node))


def input_names(model: Any) -> list[str]:
    """The names by which a model takes its inputs: those of its input layers."""
    return [maker(tensor)[0].name for tensor in graph_of(model).inputs]


def flat_inputs(model: Any, inputs: Any) -> list[Any]:
    """The model's inputs as a flat list, cast and ordered as Keras does it."""
    return list(graph_of(model)._standardize_inputs(inputs))


def packed(model: Any, flat: Sequence[Any]) -> Any:
    """The values of a model's outputs in the structure that it returns."""
    import keras

    found = keras.tree.pack_sequence_as(graph_of(model).output, list(flat))
    return found[0] if isinstance(found, (list, tuple)) and len(found) == 1 else found


def mask_of(tensor: Any) -> Any:
    """The mask that Keras has attached to a tensor, or None."""
    from keras.src import backend

    return backend.get_keras_mask(tensor)


def masked(tensors: Sequence[Any], mask: Any) -> None:
    """Attaches the masks that a model is given to its inputs, as Keras's `Functional.call` does."""
    import keras

    if mask is not None:
        for tensor, one in zip(tensors, keras.tree.flatten(mask), strict=False):
            _attach(tensor, one)


def carry(tensor: Any, mask: Any) -> None:
    """Attaches a mask that the tensor had: Keras's attention takes it off what it is given."""
    if mask_of(tensor) is None:
        _attach(tensor, mask)


def _attach(tensor: Any, mask: Any) -> None:
    from keras.src import backend

    if mask is not None:
        backend.set_keras_mask(tensor, mask)


def sub_layers(operation: Any) -> list[Any]:
    """The layers inside a layer, at any depth; none for an operation that is no layer."""
    import keras

    if not isinstance(operation, keras.Layer) or not operation._layers:  # most have none: it is known at once
        return []
    return list(operation._flatten_layers(include_self=False))


class Enough(BaseException):
    """Everything that was wanted from inside a layer has been seen. Not an Exception: Keras and TensorFlow
    rewrite those on their way out."""


@contextmanager
def watched(
    layer: Any,
    before: Callable[[int, Any, Any], None],
    after: Callable[[int, Any, Any], None],
) -> Iterator[None]:
    """While it lasts, `before(number, layer, (args, kwargs))` and `after(number, layer, outputs)` are called
    around each call of each layer inside `layer`. The layers are as they were afterwards.

    Not for two threads at once on the same layer.
    """
    count = 0
    inside = sub_layers(layer)

    def watching(one: Any) -> Callable[..., Any]:
        call = one.call

        def watch(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            number, count = count, count + 1
            before(number, one, (args, kwargs))
            outputs = call(*args, **kwargs)
            after(number, one, outputs)
            return outputs

        return watch

    kept = [one.__dict__.get("call") for one in inside]
    try:
        for one in inside:
            object.__setattr__(one, "call", watching(one))
        yield
    finally:
        for one, own in zip(inside, kept, strict=True):
            if own is not None:
                object.__setattr__(one, "call", own)
            elif "call" in one.__dict__:
                object.__delattr__(one, "call")


def read_inside(
    layer: Any, args: Sequence[Any], kwargs: Mapping[str, Any], wanted: Sequence[Spec], to_its_end: bool
) -> tuple[list[Any], Any]:
    """The values of tensors inside a layer when it is called on these arguments, and what it returns; where
    it need not run to its end, it stops as soon as all have been seen and returns None. Raises UserError
    where they do not come up as they did when they were found."""
    import keras

    at: dict[tuple[int, str], list[tuple[int, Path]]] = {}
    for place, spec in enumerate(wanted):
        number, kind, path = spec.seen
        at.setdefault((number, kind), []).append((place, path))
    found: dict[int, Any] = {}

    masks: dict[int, Any] = {}
    running: list[tuple[Any, Any, Any]] = []  # layers, what they were given first, and its mask

    def keep(number: int, kind: str, structure: Any) -> None:
        if (number, kind) in at:
            leaves = {tuple(path): leaf for path, leaf in keras.tree.flatten_with_path(structure)}
            for place, path in at[number, kind]:
                found[place] = leaves[path]
                masks[place] = _mask_to_come(leaves[path], running)
            if len(found) == len(wanted) and not to_its_end:
                raise Enough

    def before(number: int, one: Any, arguments: Any) -> None:
        keep(number, "arguments", arguments)
        first = arguments[0][0] if arguments[0] else None
        running.append((one, first, mask_of(first)))

    def after(number: int, _: Any, returned: Any) -> None:
        keep(number, "outputs", returned)
        running.pop()

    outputs = None
    with watched(layer, before, after), suppress(Enough):
        outputs = layer(*args, **kwargs)
    if len(found) < len(wanted):
        raise UserError(f"layer '{layer.name}' made other calls than when its hidden states were found")
    for place, mask in masks.items():
        carry(found[place], mask)
    return [found[place] for place in range(len(wanted))], outputs


def _mask_to_come(tensor: Any, running: Sequence[tuple[Any, Any, Any]]) -> Any:
    """The mask of what a layer returns: Keras attaches it after the layer's `call`, which the last one wanted
    does not come to. That of the innermost layer that is given one and passes it on."""
    if mask_of(tensor) is not None:
        return mask_of(tensor)
    for layer, first, mask in reversed(running):
        if mask is not None and layer.supports_masking:
            return layer.compute_mask(first, mask)
    return None


def runs_its_graph(operation: Any) -> bool:
    """Whether calling it is to run its graph on its inputs, and nothing else: no `call` of its own."""
    return is_graph(operation) and (
        type(operation).call.__qualname__ in ("Functional.call", "Sequential.call", "Function.call")
        and type(operation).__call__.__qualname__
        in ("Layer.__call__", "Operation.__call__", "Sequential.__call__")
    )


def passed_on(operation: Any, context: Mapping[str, Any]) -> dict[str, Any]:
    """What a model passes on to a layer that it calls: of `training` and the like, what the layer knows."""
    known = getattr(operation, "_call_context_args", ())
    return {name: value for name, value in context.items() if name in known and value is not None}


def calls_inside(call: Call) -> list[Call]:
    """The calls that an operation makes when it is called as in `call`: those of its graph, or those seen
    while it is traced on abstract tensors (no values are computed). None, and a warning, where it cannot be.
    """
    if call.node is None:
        return call.inside
    if is_graph(call.operation):
        return calls(call.operation)
    try:
        return _traced(call, [tensor for _, tensor in call.arguments])
    except Exception:  # Keras takes 83 for an open size on JAX and torch: longer than some layers take
        with suppress(Exception):
            return _traced(call, [_sized(tensor) for _, tensor in call.arguments])
    warnings.warn(f"layer '{call.operation.name}' cannot be traced: what is inside is not seen", stacklevel=2)
    return []


def _sized(tensor: Any) -> Any:
    """The symbolic tensor with small numbers for its open sizes."""
    import keras

    shape = [size or (OPEN if place else 1) for place, size in enumerate(tensor.shape)]
    return keras.KerasTensor(shape, dtype=tensor.dtype)


def _traced(call: Call, abstract: Sequence[Any]) -> list[Call]:
    """Runs the layer on abstract tensors and notes the calls inside it."""
    import keras

    layer, call_of_graph, top = call.operation, call, list[Call]()

    class Trace(keras.Layer):  # type: ignore[misc,unused-ignore]
        def call(self, *tensors: Any) -> Any:
            top.clear()
            given = zip(call_of_graph.arguments, tensors, strict=True)
            args, kwargs = call_of_graph.filled({id(symbolic): tensor for (_, symbolic), tensor in given})
            with _noted(layer, top):
                return layer(*args, **kwargs)

    Trace().compute_output_spec(*abstract)
    return top


@contextmanager
def _noted(layer: Any, top: list[Call]) -> Iterator[None]:
    """Fills `top` with the calls of the layers directly inside `layer`, these with those inside them."""
    import keras

    specs: dict[int, Spec] = {}
    alive: list[Any] = []  # an id is a tensor's own only as long as the tensor lives
    begun: list[Call] = []

    def spec(tensor: Any, number: int, kind: str, path: Path) -> Spec:
        if id(tensor) not in specs:
            alive.append(tensor)
            shape = tuple(size if isinstance(size, int) else None for size in tensor.shape)
            dtype = keras.backend.standardize_dtype(tensor.dtype)
            specs[id(tensor)] = Spec(shape, dtype, (number, kind, path))
        return specs[id(tensor)]

    def all_specs(structure: Any, number: int, kind: str) -> tuple[tuple[Path, Spec], ...]:
        return tuple(
            (tuple(path), spec(leaf, number, kind, tuple(path)))
            for path, leaf in keras.tree.flatten_with_path(structure)
            if keras.ops.is_tensor(leaf)
        )

    def before(number: int, one: Any, arguments: Any) -> None:
        begun.append(Call(one, all_specs(arguments, number, "arguments"), (), number))

    def after(number: int, one: Any, outputs: Any) -> None:
        mine = begun.pop()
        returned = tuple(found for _, found in all_specs(outputs, number, "outputs"))
        done = Call(one, mine.arguments, returned, number, None, mine.inside)
        (begun[-1].inside if begun else top).append(done)

    with watched(layer, before, after):
        yield
