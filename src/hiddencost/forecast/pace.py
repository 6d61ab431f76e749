"""How fast a machine computes, from a run that was made on it: seconds from blocks, operations and bytes."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.optimize
import scipy.stats

from hiddencost.errors import UserError
from hiddencost.forecast import Work, covers
from hiddencost.records import Case
from hiddencost.stats import CONFIDENCE, Table

FEWEST = 3
"""Shapes that a fit needs."""


@dataclass(frozen=True)
class Pace:
    """seconds = at_rest + blocks x per_block + flops x per_flop + bytes x per_byte. errors: the log of
    forecast over measured of each case, where its shape was left out of the fit."""

    at_rest: float
    per_block: float
    per_flop: float
    per_byte: float
    errors: tuple[float, ...] = ()

    def seconds(self, work: Work) -> float:
        """Of one call."""
        return (
            self.at_rest
            + work.blocks * self.per_block
            + work.flops * self.per_flop
            + work.accessed_bytes * self.per_byte
        )

    def interval(self, work: Work) -> tuple[float, float, float]:
        """The same with the ends of the interval in which a new shape lies, as far as those left out tell."""
        spread = math.sqrt(float(np.mean(np.square(self.errors))))
        half = spread * float(scipy.stats.t.ppf((1 + CONFIDENCE) / 2, len(self.errors) - 1))
        center = self.seconds(work)
        return center, center * math.exp(-half), center * math.exp(half)

    @property
    def median_error(self) -> float:
        """The median size of the errors, as a share."""
        return math.expm1(float(np.median(np.abs(self.errors))))


def fitted(samples: Sequence[tuple[Work, float]], errors: Sequence[float] = ()) -> Pace:
    """The least squares of relative errors, with no negative part (scipy.optimize.nnls). Where all have as
    many blocks, what they take each cannot be told from what a call takes at rest: it is counted there."""
    rows = np.array([[1.0, work.blocks, work.flops, work.accessed_bytes] for work, _ in samples])
    rows[:, 1] *= len(set(rows[:, 1])) > 1
    seconds = np.array([taken for _, taken in samples])
    scales = np.maximum(rows.max(axis=0), np.finfo(float).tiny)
    found, _ = scipy.optimize.nnls(rows / scales / seconds[:, None], np.ones(len(seconds)))
    at_rest, per_block, per_flop, per_byte = (float(part) for part in found / scales)
    return Pace(at_rest, per_block, per_flop, per_byte, tuple(errors))


def pace(samples: Mapping[Hashable, Sequence[tuple[Work, float]]]) -> Pace:
    """The fit to the samples of all shapes, with its errors for each shape that is left out. Raises UserError
    for fewer than FEWEST shapes."""
    if len(samples) < FEWEST:
        raise UserError(f"{len(samples)} shapes are timed whose work is known: a fit needs {FEWEST}")
    errors = []
    for left_out, mine in samples.items():
        others = fitted([one for shape, some in samples.items() if shape != left_out for one in some])
        errors += [math.log(others.seconds(work) / taken) for work, taken in mine]
    return fitted([one for some in samples.values() for one in some], errors)


def timed(
    table: Table, backend: str, mode: str, device: str, work_of: Callable[[Case], Work | None], **fields: str
) -> dict[Hashable, list[tuple[Work, float]]]:
    """Work and seconds of every case of a run on a backend, in a mode, whose work is known, by model and
    shape. fields: of the case, as dtype, that others have to have too."""
    found: dict[Hashable, list[tuple[Work, float]]] = {}
    for case in table.cases("seconds", backend=backend, mode=mode, device=device, **fields):
        center = table.center(case, "seconds")
        work = work_of(case) if covers(case, "jit") else None
        if work and center:
            found.setdefault((case.model, case.dtype, case.batch, case.length), []).append((work, center[0]))
    return found
