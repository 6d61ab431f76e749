"""What a compiled call takes of a CPU's heap beyond XLA's plan: what its operations ask libraries for while
they work. It is measured with few blocks, and grows evenly with their number."""

from __future__ import annotations

from concurrent.futures.process import BrokenProcessPool

from hiddencost import backends, models
from hiddencost.errors import UserError
from hiddencost.forecast import CHECKED, DEPTHS, Line
from hiddencost.forecast.lowering import DEPTH
from hiddencost.forecast.shapes import find
from hiddencost.measure import state_of
from hiddencost.memory import HEAP_SETTINGS, Child, peak_heap

RUN = (DEPTHS[0], CHECKED)
"""Blocks of the models that are run."""


def beyond(name: str, dtype: str, rows: int, length: int) -> Line:
    """Bytes of heap beyond XLA's plan for a plain pass of a model with random weights, in the number of its
    blocks. Raises UserError where this machine cannot run it."""
    found = []
    for blocks in RUN:
        with Child({**backends.find("jax").settings(1, "cpu"), **HEAP_SETTINGS}) as child:
            try:
                found.append(child.call(child_beyond, name, dtype, blocks, rows, length))
            except Exception as error:
                if not isinstance(error, BrokenProcessPool) and state_of(error) != "out_of_memory":
                    raise
                raise UserError(
                    f"--measure: {blocks} blocks of {name} at {rows} x {length} do not run on this machine: "
                    "leave it out"
                ) from None
    few, more = found
    each = max(0.0, more - few) / (RUN[1] - RUN[0])
    return Line(few - each * RUN[0], each)


def child_beyond(name: str, dtype: str, blocks: int, rows: int, length: int) -> float:
    """The same for one number of blocks, in the measured process."""
    backends.start("jax", 1)
    model = find(name).load(dtype, load_weights=False, **{DEPTH: blocks})
    run = backends.Compiled(lambda inputs: model(inputs, training=False), "jit", model)
    placed = backends.place(models.random_inputs(model, rows, lambda tensor: length), "jit", rows)
    run(placed)
    peak, result = peak_heap(lambda: run(placed))
    return peak - run.analysis(placed)["compiled_temp_bytes"] - backends.returned_bytes(result)
