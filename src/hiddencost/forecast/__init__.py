"""What reading hidden states would cost on a model or shape that this machine cannot hold.

Blocks are alike, so cost is affine in their number: programs of two small depths give a line, one of a third
depth checks it. What comes from shapes alone (weights, payload, what Keras's eager run keeps) needs no line.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from hiddencost.errors import UserError
from hiddencost.forecast.lowering import Program, Shapes
from hiddencost.records import OUTPUT, REFERENCE, Case

DEPTHS, CHECKED = (2, 3), 5
"""Blocks of the programs through which the line goes, and of the one that checks it."""
AFFINE = 0.005
"""Share by which the line may miss the checked program; beyond it nothing is forecast."""


WAYS = {
    "jit": (REFERENCE, "functional_submodel", "always_return_all"),
    "eager": (REFERENCE, "functional_submodel", "functional_freed", "always_return_all"),
}
"""The modes that are forecast, and the ways in each."""


def covers(case: Case, mode: str) -> bool:
    """Whether what a case does is among what is forecast for a mode."""
    whole = case.points == OUTPUT and case.strategy != REFERENCE
    return case.strategy in WAYS.get(mode, ()) and case.reduction == "none" and not whole


@dataclass(frozen=True)
class Work:
    """What a compiled call does. flops: floating-point operations. accessed_bytes: read and written by its
    blocks; what looks tokens up is left out, which XLA counts as if it read the whole table."""

    blocks: int
    flops: float
    accessed_bytes: float


@dataclass(frozen=True)
class Line:
    """A quantity of programs as a line in the number of blocks. missed: the share by which it misses a
    program that checks it."""

    at_none: float
    each: float
    missed: float = 0.0

    def at(self, blocks: int) -> float:
        """The quantity with so many blocks."""
        return self.at_none + self.each * blocks

    @classmethod
    def through(cls, few: int, at_few: float, more: int, at_more: float) -> Line:
        """The line through two numbers of blocks."""
        each = (at_more - at_few) / (more - few)
        return cls(at_few - each * few, each)


def line(programs: dict[int, Program], quantity: Callable[[Program], float]) -> Line:
    """The line through two programs, and by how much it misses the third one."""
    few, more = DEPTHS
    through = Line.through(few, quantity(programs[few]), more, quantity(programs[more]))
    found = quantity(programs[CHECKED])
    return replace(through, missed=abs(through.at(CHECKED) - found) / found if found else 0.0)


@dataclass(frozen=True)
class Way:
    """A way to read the hidden states, in a mode. payload_bytes: what it returns. floor_bytes: what no way
    can go below, the payload with the working set of one block. peak_bytes: beside the weights and the
    inputs. passes: its operations, in plain forward passes. work: what a compiled call does."""

    strategy: str
    mode: str
    payload_bytes: float
    floor_bytes: float
    peak_bytes: float
    passes: float
    work: Work


@dataclass(frozen=True)
class Forecast:
    """Of one model and shape. missed: the largest share by which a line missed the program that checks it."""

    weights_bytes: int
    blocks: int
    points: int
    ways: tuple[Way, ...]
    missed: float

    def fits(self, way: Way, memory_bytes: float) -> bool:
        """Whether a way fits into so much memory, with the weights."""
        return way.peak_bytes + self.weights_bytes <= memory_bytes

    def leanest(self, mode: str) -> Way:
        """The way to read the hidden states in a mode with the lowest peak, of those the one with the fewest
        operations."""
        reading = [way for way in self.ways if way.mode == mode and way.strategy != REFERENCE]
        return min(reading, key=lambda way: (way.peak_bytes, way.passes))


NOTHING = Line(0.0, 0.0)


def forecast(shapes: Shapes, selection: str, rows: int, length: int, beyond: Line = NOTHING) -> Forecast:
    """What each way to read the selection would take of the whole model at this batch and length. beyond:
    what a compiled call takes besides XLA's plan (see `forecast.beyond`). Raises UserError where the model
    has no such points, or its cost is not affine in its depth."""
    blocks, wanted = len(shapes.of()[1].blocks), shapes.selected(selection)
    if not wanted:
        raise UserError(f"points '{selection}': a forecast is for hidden states, as last_four")
    deepest = min(blocks, max(point.index for point in wanted) + 1)
    if not deepest:
        raise UserError(f"points '{selection}': no block runs for these: their payload is all there is")
    normed = any(point.name == "final_norm" for point in wanted)
    one = "final_norm" if normed else "last"
    programs = {
        which: {depth: shapes.program(which, rows, length, depth) for depth in (*DEPTHS, CHECKED)}
        for which in (OUTPUT, one, "all")
    }
    temp = {which: line(found, lambda program: program.temp_bytes) for which, found in programs.items()}
    flops = {which: line(found, lambda program: program.flops) for which, found in programs.items()}
    accessed = {
        which: line(found, lambda program: program.accessed_bytes) for which, found in programs.items()
    }
    missed = max(found.missed for lines in (temp, flops) for found in lines.values())
    if missed > AFFINE:
        raise UserError(
            f"model '{shapes.name}' at {rows} x {length}: XLA's plan for {CHECKED} blocks is {missed:.1%} "
            f"off the line through {DEPTHS[0]} and {DEPTHS[1]}, so that nothing follows for {blocks}"
        )
    output = line(programs[OUTPUT], lambda program: program.output_bytes).at(blocks)
    payload = shapes.payload_bytes(selection, rows, length)
    every = shapes.payload_bytes("all", rows, length)
    alone, alone_eager = shapes.block(rows, length)

    def work(which: str, depth: int) -> Work:
        return Work(depth, flops[which].at(depth), accessed[which].each * depth)

    def kept(which: str) -> float:
        return shapes.kept_bytes(which, rows, length)

    working = {"jit": alone.temp_bytes, "eager": alone_eager - alone.output_bytes}
    reads_all = [point.name for point in wanted] == [point.name for point in shapes.selected("all")]
    # For all states XLA may plan a third less than for the last one (minilm_fused 4x512): for several but not
    # all of them the larger plan counts.
    plans = ("all",) if reads_all else (one,) if len(wanted) == 1 else (one, "all")
    reading = max(temp[which].at(deepest) for which in plans)
    whole = beyond.at(blocks)
    plain, read, all_read = work(OUTPUT, blocks), work(one, deepest), work("all", blocks)
    told = [
        (REFERENCE, "jit", output, output + temp[OUTPUT].at(blocks) + whole, plain),
        ("functional_submodel", "jit", payload, payload + reading + beyond.at(deepest), read),
        ("always_return_all", "jit", every, every + temp["all"].at(blocks) + whole, all_read),
        (REFERENCE, "eager", output, kept(OUTPUT) + working["eager"], plain),
        ("functional_submodel", "eager", payload, kept(selection) + working["eager"], read),
        ("functional_freed", "eager", payload, payload + working["eager"], read),
        ("always_return_all", "eager", every, kept("all") + working["eager"], all_read),
    ]
    ways = tuple(
        Way(strategy, mode, returned, returned + working[mode], peak, does.flops / plain.flops, does)
        for strategy, mode, returned, peak, does in told
        if not (normed and strategy == "always_return_all")  # it returns blocks alone
    )
    return Forecast(shapes.weights_bytes, blocks, len(wanted), ways, missed)
