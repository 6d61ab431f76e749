"""What a compiled call takes of a CPU's heap beyond XLA's plan: what its operations ask libraries for while
they work. It is measured with few blocks, and grows evenly with their number, which is checked."""

from __future__ import annotations

from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace

from hiddencost import backends
from hiddencost.errors import UserError
from hiddencost.forecast import AFFINE, CHECKED, DEPTHS, Line
from hiddencost.forecast.lowering import DEPTH
from hiddencost.forecast.shapes import find
from hiddencost.inputs import random_inputs
from hiddencost.measure import state_of
from hiddencost.memory import HEAP_SETTINGS, Child, least_peak_heap

RUN, RUN_CHECKED = (DEPTHS[0], CHECKED), DEPTHS[1]
"""Blocks of the models that are run: those through which the line goes, and of the one that checks it."""


def beyond(name: str, dtype: str, rows: int, length: int) -> Line:
    """Bytes of heap beyond XLA's plan for a plain pass of a model with random weights, in the number of its
    blocks; never less for more of them. Raises UserError where this machine cannot run it, and where a third
    model misses the line by more than AFFINE of its peak."""
    few, more = RUN
    found = {blocks: _run(name, dtype, blocks, rows, length) for blocks in (*RUN, RUN_CHECKED)}
    at_few, at_more = found[few][0], found[more][0]
    taken, peak = found[RUN_CHECKED]
    missed = abs(Line.through(few, at_few, more, at_more).at(RUN_CHECKED) - taken) / peak
    if missed > AFFINE:
        raise UserError(
            f"--measure: {RUN_CHECKED} blocks of {name} at {rows} x {length} take {missed:.1%} more or less "
            f"than {few} and {more} blocks tell, so that nothing follows for all: leave it out"
        )
    return replace(Line.through(few, at_few, more, max(at_few, at_more)), missed=missed)


def _run(name: str, dtype: str, blocks: int, rows: int, length: int) -> tuple[float, float]:
    with Child({**backends.find("jax").settings(1, "cpu"), **HEAP_SETTINGS}) as child:
        try:
            return child.call(child_beyond, name, dtype, blocks, rows, length)
        except Exception as error:
            if not isinstance(error, BrokenProcessPool) and state_of(error) != "out_of_memory":
                raise
            raise UserError(
                f"--measure: {blocks} blocks of {name} at {rows} x {length} do not run on this machine: "
                "leave it out"
            ) from None


def child_beyond(name: str, dtype: str, blocks: int, rows: int, length: int) -> tuple[float, float]:
    """The same for one number of blocks, and the whole peak, in the measured process."""
    backends.start("jax", 1)
    model = find(name).load(dtype, load_weights=False, **{DEPTH: blocks})
    run = backends.Compiled(lambda inputs: model(inputs, training=False), "jit", model)
    placed = backends.place(random_inputs(model, rows, lambda tensor: length), "jit", rows)
    run(placed)
    peak, result = least_peak_heap(lambda: run(placed))  # beside other tests one took 0.1 MiB more, once
    planned = run.analysis(placed)["compiled_temp_bytes"] + backends.returned_bytes(result)
    return peak - planned, peak
