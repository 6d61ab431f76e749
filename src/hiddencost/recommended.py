"""What the reference runs recommend: the way to read hidden states on each backend and in each mode.

`data/recommended.json` is written from them by `make readme`; `extractor(strategy="auto")` looks there.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import msgspec

SHIPPED = "data/recommended.json"
BETWEEN = ("functional_freed", "functional_submodel")
"""The ways that are chosen between, the first where nothing tells them apart: it holds less where Keras runs
the graph itself, and reads what lies inside nested models and layers too."""


class Read(msgspec.Struct, frozen=True, kw_only=True):
    """What reading some points costs in the recommended way: its time over that of the plain forward pass
    with the ends of its interval, and its peak heap, beside those of the other way; timed, held: the model,
    batch and length of each, as `minilm 4x128`."""

    points: str
    timed: str
    held: str
    ratio: float
    low: float
    high: float
    other_ratio: float
    peak_heap_bytes: int
    other_peak_heap_bytes: int


class Recommendation(msgspec.Struct, frozen=True, kw_only=True):
    """For a backend and mode the strategy to take, with what was measured."""

    backend: str
    mode: str
    strategy: str
    reads: tuple[Read, ...]


@cache
def shipped() -> tuple[Recommendation, ...]:
    """The table that is shipped with the package."""
    data = files("hiddencost").joinpath(SHIPPED).read_bytes()
    return msgspec.json.decode(data, type=tuple[Recommendation, ...])


def strategy(backend: str, mode: str) -> str:
    """The strategy that is recommended there; the first of BETWEEN where nothing was measured."""
    found = (one.strategy for one in shipped() if (one.backend, one.mode) == (backend, mode))
    return next(found, BETWEEN[0])
