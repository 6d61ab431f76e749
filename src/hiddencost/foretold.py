"""How far forecasts were from measurements, and what the largest models would take.

`data/foretold.json` is written by `make forecast`; `hiddencost forecast` and the pages look there.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import msgspec

from hiddencost.stats import Table

SHIPPED = "data/foretold.json"
HEAP, WORK, DEVICE = "peak heap", "what XLA planned for its work", "what XLA planned for the GPU"
RUN_HEAP = "peak heap, with --measure"
"""What a forecast of bytes was held against."""


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """Forecasts of bytes against measurements. of: one of those above. Errors, as shares (forecast /
    measured - 1): their median, the median of their sizes, and the largest size."""

    device: str
    mode: str
    of: str
    cases: int
    median: float
    median_size: float
    largest: float


class Timed(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds of shapes that were left out of a fit to the others of a run, against measurements."""

    run: str
    backend: str
    mode: str
    device: str
    shapes: int
    cases: int
    median_size: float
    largest: float


class Large(msgspec.Struct, frozen=True, kw_only=True):
    """What reading would take of a model too large for most machines. all_bytes: all of its hidden states.
    peaks: by strategy, the bytes of a compiled call beside the weights. fits: by strategy, the devices."""

    model: str
    batch: int
    length: int
    weights_bytes: float
    all_bytes: float
    peaks: dict[str, float]
    fits: dict[str, tuple[str, ...]]


class Foretold(msgspec.Struct, frozen=True, kw_only=True):
    """All of it. dtype, points: of the large models and of what is read there by a sub-model. devices: name
    and memory, smallest first."""

    held: tuple[Held, ...]
    timed: tuple[Timed, ...]
    large: tuple[Large, ...]
    dtype: str
    points: str
    devices: tuple[tuple[str, float], ...]

    def of_peaks(self, mode: str, on_gpu: bool, with_run: bool = False) -> Held | None:
        """How far forecasts of peaks were off in a mode: on a GPU where that was measured, else on a CPU,
        there perhaps with what few blocks took when they were run."""
        of = HEAP if mode != "jit" else DEVICE if on_gpu else RUN_HEAP if with_run else HEAP
        return next((one for one in self.held if (one.mode, one.of) == (mode, of)), None)


def concerning(table: Table) -> Foretold | None:
    """What is shipped, for a run of what it is of: JAX, compiled."""
    return shipped() if table.cases("seconds", backend="jax", mode="jit") else None


@cache
def shipped() -> Foretold:
    """What is shipped with the package."""
    return msgspec.json.decode(files("hiddencost").joinpath(SHIPPED).read_bytes(), type=Foretold)
