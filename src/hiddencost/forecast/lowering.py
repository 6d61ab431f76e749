"""What a model would cost in JAX, without its weights: it is built of shapes, and XLA plans the program.

    shapes = Shapes("llama3_70b", "bfloat16")
    shapes.program("last", rows=32, length=4096, blocks=3)

Nothing runs, and no weight is made: a variable of a model that is built within a `keras.StatelessScope` has a
shape and no value. JAX is imported, and Keras with it, when this is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from unittest import mock

from hiddencost import models, own
from hiddencost.backends import size_bytes
from hiddencost.backends.jax import planned
from hiddencost.chain import Step, steps_to
from hiddencost.errors import UserError
from hiddencost.forecast.shapes import find
from hiddencost.formatting import one_line
from hiddencost.graph import graph_of, input_names
from hiddencost.points import HiddenStates, Point, hidden_states, tensors_of
from hiddencost.records import OUTPUT

DEPTH = "num_layers"
"""What KerasHub's backbones call their number of blocks."""
PLANNED_IN = "float32"
"""A CPU computes narrower numbers in this one, and its plan then holds every weight twice. So this one's plan
is made, and its bytes are those of as many numbers of the dtype asked for."""
LEAN = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
"""Left to itself XLA orders operations for a CPU so that several can run at once, which holds more, and the
more the deeper the model; a GPU's plan does not."""


@dataclass(frozen=True)
class Program:
    """What XLA plans for one call. temp_bytes: of its work, beside weights, inputs and what it returns
    (output_bytes). flops: floating-point operations. accessed_bytes: read and written."""

    temp_bytes: float
    output_bytes: float
    flops: float
    accessed_bytes: float


@contextmanager
def _without_values() -> Iterator[None]:
    """Variables that are made within have no values. Keras lists them, to make up for that at the end of the
    next scope: the list is dropped."""
    import keras

    try:
        with keras.StatelessScope(initialize_variables=False):
            yield
    finally:
        keras.utils.clear_session(free_memory=False)


class Shapes:
    """A model of shapes alone, by the name of a model or of one of `shapes.SHAPES`. fused: attention is one
    operation that makes no array of sequence x sequence, where Keras leaves it to JAX, as on a GPU.

    Raises UserError for a model that is no KerasHub backbone, that cannot be built with another number of
    blocks, whose blocks are not alike, or at whose blocks no sub-model ends.
    """

    def __init__(self, name: str, dtype: str, fused: bool = False) -> None:
        self.name, self.dtype, self.fused = name, dtype, fused
        self.spec = find(name)
        if self.spec.blocks == 0 or (own.is_own(self.spec.name) and not self.spec.is_preset):
            raise UserError(
                f"model '{name}': a forecast builds it with fewer blocks, which takes a KerasHub backbone"
            )
        self._built: dict[tuple[int | None, str], tuple[Any, HiddenStates]] = {}
        self._programs: dict[tuple[str, int, int, int | None], Program] = {}
        self._alone: dict[tuple[int, int], tuple[Program, float]] = {}
        self._check()

    def of(self, blocks: int | None = None, dtype: str | None = None) -> tuple[Any, HiddenStates]:
        """The model with so many blocks, by default its own number, and its points."""
        dtype = dtype or self.dtype
        if (blocks, dtype) not in self._built:
            changes = {} if blocks is None else {DEPTH: blocks}
            with _without_values():
                try:
                    model = self.spec.load(dtype, load_weights=False, **changes)
                except (TypeError, ValueError, IndexError, OSError) as error:
                    told = one_line(str(error).partition("\n")[0])
                    how = f" with {DEPTH} = {blocks}" if blocks else ""
                    raise UserError(f"model '{self.name}' cannot be built{how}: {told}") from None
                points = hidden_states(model, models.stack_of(self.name))
            if blocks is not None and len(points.blocks) != blocks:
                raise UserError(
                    f"model '{self.name}': {DEPTH} = {blocks} gives it {len(points.blocks)} blocks"
                )
            self._built[blocks, dtype] = model, points
        return self._built[blocks, dtype]

    @property
    def max_length(self) -> int | None:
        """The longest sequence that the model takes, as far as it tells."""
        return self.spec.max_length or getattr(self.of()[0], "max_sequence_length", None)

    def _check(self) -> None:
        model, points = self.of()
        if any(point.inside for point in points):
            raise UserError(f"model '{self.name}': its blocks lie inside a layer, where no sub-model ends")
        operations = [str(self._operations(maker, 1, 8)) for maker in _makers(model, points.blocks)]
        for point, found in zip(points.blocks[1:], operations[1:], strict=True):
            if found != operations[1]:
                raise UserError(
                    f"model '{self.name}': {point.name} is not like block_1: few blocks tell nothing of all"
                )
        two, three = (steps_to(few, [found.blocks[0].tensor]) for few, found in (self.of(2), self.of(3)))
        if len(two) != len(three):
            raise UserError(f"model '{self.name}': what comes before its first block grows with {DEPTH} too")

    @cached_property
    def weights_bytes(self) -> int:
        """Bytes of the whole model's weights."""
        return models.weights_bytes(self.of()[0])

    def selected(self, selection: str) -> list[Point]:
        """The points of a selection, none for the model's own output. Raises UserError."""
        return [] if selection == OUTPUT else [*self.of()[1].select(selection)]

    def payload_bytes(self, selection: str, rows: int, length: int) -> int:
        """Bytes of the hidden states of a selection: batch x sequence x width, for each."""
        return sum(size_bytes(_abstract(point.tensor, rows, length)) for point in self.selected(selection))

    def kept_bytes(self, selection: str, rows: int, length: int) -> int:
        """Bytes of all that Keras's own eager run of the graph holds when it returns: what every layer that
        the selection needs has returned. What a layer passes on as it is (dropout in inference) is counted
        once."""
        import jax
        import keras

        model = self.of()[0]
        wanted = self.selected(selection)
        targets = tensors_of(wanted) if wanted else graph_of(model).outputs
        kept = [tensor for step in steps_to(model, targets) for tensor in step.call.outputs]
        every = keras.Model(model.inputs, kept)
        function = _pure(every, lambda inputs: every(inputs, training=False))
        jaxpr = jax.make_jaxpr(function)(
            *_abstract_weights(every), _abstract_inputs(model, rows, length)
        ).jaxpr
        given = {id(var) for var in jaxpr.invars}
        made = {id(var): var.aval for var in jaxpr.outvars if id(var) not in given}
        return sum(map(size_bytes, made.values()))

    def program(self, selection: str, rows: int, length: int, blocks: int | None = None) -> Program:
        """XLA's plan for reading a selection of the model with so many blocks, in inference; made once, since
        forecasts for several selections need the same ones."""
        key = selection, rows, length, blocks
        if key not in self._programs:
            self._programs[key] = self._program(*key)
        return self._programs[key]

    def _program(self, selection: str, rows: int, length: int, blocks: int | None) -> Program:
        import keras

        model, points = self.of(blocks, PLANNED_IN)
        wanted = [] if selection == OUTPUT else points.select(selection)
        read = keras.Model(model.inputs, tensors_of(wanted)) if wanted else model
        return self._planned(
            read, lambda inputs: read(inputs, training=False), _abstract_inputs(model, rows, length)
        )

    def block(self, rows: int, length: int) -> tuple[Program, float]:
        """XLA's plan for the first block alone, and the most bytes that are live at one time when its
        operations run one by one. In both its input is not counted. Made once, as programs are."""
        if (rows, length) not in self._alone:
            self._alone[rows, length] = self._block(rows, length)
        return self._alone[rows, length]

    def _block(self, rows: int, length: int) -> tuple[Program, float]:
        planned_step, step = (
            _makers(model, points.blocks)[0] for model, points in (self.of(2, PLANNED_IN), self.of(2))
        )
        compiled = self._planned(
            planned_step.call.operation, planned_step.alone, _taken(planned_step, rows, length)
        )
        return compiled, live_bytes(self._operations(step, rows, length))

    def _operations(self, step: Step, rows: int, length: int) -> Any:
        """The operations of one layer's call, as JAX records them."""
        import jax

        layer = step.call.operation
        given = (*_abstract_weights(layer), _taken(step, rows, length))
        with self._attention([]):
            return jax.make_jaxpr(_pure(layer, step.alone))(*given).jaxpr

    def _planned(self, layer: Any, run: Callable[[Any], Any], given: Any) -> Program:
        import jax

        hidden_flops: list[float] = []
        with self._attention(hidden_flops):
            lowered = jax.jit(_pure(layer, run)).lower(*_abstract_weights(layer), given)
        compiled = lowered.compile(LEAN if self.fused else None)
        found = planned(compiled)
        own, planned_in = (self.of(2, dtype)[1].blocks[0] for dtype in (self.dtype, PLANNED_IN))
        share = own.token_bytes / planned_in.token_bytes
        return Program(
            temp_bytes=found["compiled_temp_bytes"] * share,
            output_bytes=found["compiled_output_bytes"] * share,
            flops=found["compiled_flops"] + sum(hidden_flops),
            accessed_bytes=compiled.cost_analysis()["bytes accessed"] * share,
        )

    def _attention(self, flops: list[float]) -> Any:
        """While a function is traced: attention as one operation whose work needs no memory to speak of. Its
        operations are noted, since XLA does not see them."""
        import jax

        def fused(query: Any, key: Any, value: Any, *given: Any, **named: Any) -> Any:
            batch, length, heads, width = query.shape
            flops.append(4.0 * batch * heads * length * key.shape[1] * width)
            return query * (key * value).mean(axis=(1, 2), keepdims=True)

        return mock.patch.object(jax.nn, "dot_product_attention", fused) if self.fused else nullcontext()


def _makers(model: Any, points: Sequence[Point]) -> list[Step]:
    """The call that makes each of the points."""
    made = {id(t): step for step in steps_to(model, tensors_of(points)) for t in step.call.outputs}
    return [made[id(point.tensor)] for point in points]


def _taken(step: Step, rows: int, length: int) -> list[Any]:
    return [_abstract(tensor, rows, length) for _, tensor in step.call.arguments]


def _pure(layer: Any, run: Callable[[Any], Any]) -> Any:
    """The run of a layer as a function of its trainable and other weights, and of what it is given."""
    import keras

    variables = [*layer.trainable_variables, *layer.non_trainable_variables]

    def pure(trainable: Any, others: Any, given: Any) -> Any:
        mapping = list(zip(variables, [*trainable, *others], strict=True))
        with keras.StatelessScope(state_mapping=mapping, initialize_variables=False):
            return run(given)

    return pure


def _abstract_weights(layer: Any) -> tuple[list[Any], list[Any]]:
    import jax

    def shapes(variables: Iterable[Any]) -> list[Any]:
        return [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in variables]

    return shapes(layer.trainable_variables), shapes(layer.non_trainable_variables)


def _abstract_inputs(model: Any, rows: int, length: int) -> dict[str, Any]:
    tensors = zip(input_names(model), graph_of(model).inputs, strict=True)
    return {name: _abstract(tensor, rows, length) for name, tensor in tensors}


def _abstract(tensor: Any, rows: int, length: int) -> Any:
    """A symbolic tensor's shape and type, its open sizes given. The first one is the batch."""
    import jax

    first, *others = tensor.shape
    return jax.ShapeDtypeStruct((first or rows, *(size or length for size in others)), tensor.dtype)


def live_bytes(jaxpr: Any) -> float:
    """The most bytes that are live at one time where the operations of a jaxpr run one after the other, each
    with new memory for what it returns, and a value lives until its last use. What the jaxpr is given does
    not count; an operation that JAX compiles as a whole (gelu, softmax) is one."""
    last = {id(var): place for place, eqn in enumerate(jaxpr.eqns) for var in eqn.invars}
    last |= {id(var): len(jaxpr.eqns) for var in jaxpr.outvars}
    live: dict[int, int] = {}
    most = 0
    for place, eqn in enumerate(jaxpr.eqns):
        live |= {id(var): size_bytes(var.aval) for var in eqn.outvars}
        most = max(most, sum(live.values()))
        for key in [key for key in live if last.get(key, -1) <= place]:
            del live[key]
    return float(most)
