"""Which way is recommended, from records made by hand; and the table that is shipped."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from test_claims import group, heap, run_of

from hiddencost import recommended, store
from hiddencost.claims import sound
from hiddencost.claims.recommending import recommendations
from hiddencost.recommended import BETWEEN
from hiddencost.stats import Table

FREED, SUBMODEL = BETWEEN
SHIPPED = Path(recommended.__file__).parent / recommended.SHIPPED
REFERENCE_RUN = Path(__file__).parents[1] / "reports" / "reference-ways"
EQUAL = {"middle": (0.5, 0.5), "all": (1.0, 1.0)}


def recommended_from(times: dict[str, tuple[float, float]], peaks: dict[str, tuple[float, float]]) -> str:
    """The way that is recommended where (freed, sub-model) have these ratios and these MiB, by points."""
    lines = group(
        {(way, points): r for points, both in times.items() for way, r in zip(BETWEEN, both, strict=True)}
    )
    for points, both in peaks.items():
        lines += heap({(way, points): mib for way, mib in zip(BETWEEN, both, strict=True)})
    (found,) = recommendations(Table(run_of(lines)))
    assert (found.backend, found.mode) == ("tensorflow", "graph")
    assert [read.points for read in found.reads] == list(times)
    return found.strategy


@pytest.mark.parametrize(
    ("times", "peaks", "way"),
    [
        (EQUAL, {"middle": (10, 10), "all": (20, 20)}, FREED),
        (EQUAL, {"middle": (5, 10), "all": (20, 20)}, FREED),
        (EQUAL, {"middle": (10, 9.8), "all": (20, 20)}, SUBMODEL),
        (EQUAL, {"middle": (10, 9.95), "all": (20, 20)}, FREED),
        (EQUAL, {"middle": (10, 9.8), "all": (12, 20)}, FREED),
        ({"middle": (0.5, 0.45), "all": (1.0, 1.0)}, {"middle": (5, 10), "all": (20, 20)}, SUBMODEL),
        ({"middle": (0.5, 0.45), "all": (1.0, 1.1)}, {"middle": (10, 5), "all": (20, 20)}, FREED),
        ({"middle": (0.45, 0.5), "all": (1.0, 1.0)}, {"middle": (10, 5), "all": (20, 20)}, FREED),
        ({"middle": (0.5, 0.497), "all": (1.0, 1.0)}, {"middle": (10, 10), "all": (20, 20)}, FREED),
    ],
)
def test_the_faster_way_is_recommended_then_the_leaner_then_the_freed_one(times, peaks, way) -> None:
    assert recommended_from(times, peaks) == way


def test_what_it_costs_stands_beside_what_the_other_costs() -> None:
    lines = group({(FREED, "all"): 1.02, (SUBMODEL, "all"): 1.1})
    lines += heap({(FREED, "all"): 10, (SUBMODEL, "all"): 30})
    ((read,),) = (one.reads for one in recommendations(Table(run_of(lines))))
    assert (read.ratio, read.other_ratio) == (1.02, 1.1)
    assert read.low < 1.02 < read.high
    assert (read.peak_heap_bytes, read.other_peak_heap_bytes) == (10 * 2**20, 30 * 2**20)


def test_a_way_that_was_read_alone_is_not_recommended() -> None:
    lines = group({(FREED, "all"): 1.02})
    assert recommendations(Table(run_of(lines))) == ()


def test_the_shipped_table_is_what_the_reference_run_says() -> None:
    found = recommendations(Table(sound(store.read(REFERENCE_RUN))))
    assert msgspec.json.decode(SHIPPED.read_bytes(), type=tuple[recommended.Recommendation, ...]) == found
    assert {one.backend for one in found} == {"tensorflow", "jax", "torch"}
    assert recommended.shipped() == found
