"""Every measurement of a run as a row of one table: for the page's own table, and for programs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from heapq import nsmallest
from itertools import islice
from typing import Any

import msgspec

from hiddencost.claims.evidence import ratio_of
from hiddencost.records import METRICS, REFERENCE, UNIT_OF, Case, Comparison, Measurement
from hiddencost.stats import Table, peak_metric

MOST = 10_000
"""As many measurements the page holds: those that matter most, where a run has more."""
PICKED = (
    "model",
    "backend",
    "device",
    "dtype",
    "mode",
    "strategy",
    "points",
    "batch",
    "length",
    "metric",
    "verdict",
)
"""The columns that a reader filters by."""

PEAKS = ("peak_heap_bytes", "peak_device_bytes")
Place = tuple[str, Case]
"""A metric of a case."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One metric of one case. value, low, high: over all blocks, in the metric's unit. ratio and its
    interval: to the plain forward pass of the same group, of times and peaks. band: the noise band of its
    group. verdict: the word on its time, `reference`, a state that is not `ok`, or nothing. claims: ids of
    the questions whose answer rests on the case."""

    case: Case
    metric: str
    unit: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    blocks: int = 0
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    band: tuple[float, float] | None = None
    verdict: str = ""
    reason: str = ""
    claims: tuple[str, ...] = ()

    @property
    def extra(self) -> str:
        """What a suite varies beside the shape: `12 layers`, `at 3`, `512 examples`, `topic`, `mean`."""
        case = self.case
        told = [
            f"{case.layers:,} layers" if case.layers is not None else "",
            f"at {case.position:,}" if case.position is not None else "",
            f"{case.examples:,} examples" if case.examples is not None else "",
            case.task,
            case.reduction if case.reduction != "none" else "",
        ]
        return ", ".join(filter(None, told))


def rows_of(table: Table, claims: dict[Case, tuple[str, ...]], most: int = MOST) -> tuple[list[Row], int]:
    """A row for each case and metric that was measured, and for each that was not and why, and how many
    these are. Of more than `most` those that matter, in their order: first what failed, then times, the
    farthest from the plain pass first, then peaks, then all else."""
    failed = _distinct(table.not_ok)
    measured = {metric.name: table.cases(metric.name) for metric in METRICS}
    count = len(failed) + sum(map(len, measured.values()))
    failed = failed[:most]
    wanted = _that_matter(table, measured, most - len(failed)) if count > most else None
    found = [
        _measured(table, case, metric, claims.get(case, ()))
        for metric, cases in measured.items()
        for case in cases
        if wanted is None or (metric, case) in wanted
    ]
    return [*found, *(_not_ok(m, alike) for m, alike in failed)], count


def _that_matter(table: Table, measured: Mapping[str, Sequence[Case]], most: int) -> set[Place]:
    """At most so many of them."""
    kept: list[Place] = []
    peaks = [
        (m, case) for m in PEAKS for case in measured[m] if m == peak_metric(case) and case != case.group
    ]
    for alike in ([("seconds", case) for case in measured["seconds"]], peaks):
        room = most - len(kept)
        kept += alike if len(alike) <= room else nsmallest(room, alike, partial(_nearness, table))
    taken = set(kept)
    others = (
        (metric, case) for metric, cases in measured.items() for case in cases if (metric, case) not in taken
    )
    return taken.union(islice(others, most - len(taken)))


def _nearness(table: Table, place: Place) -> float:
    """Of a time or a peak to the plain pass: 0 where it is as large, the farther below 0 the farther off."""
    metric, case = place
    if metric == "seconds":
        means, _ = table.log_ratios(case, case.group)
        return -abs(sum(means) / len(means)) if means else 0.0
    found = ratio_of(table, case, case.group, metric)
    return -abs(math.log(found[0])) if found and found[0] > 0 else 0.0


def _measured(table: Table, case: Case, metric: str, claims: tuple[str, ...]) -> Row:
    center = table.center(case, metric)
    value, low, high = center or (None, None, None)
    row = Row(
        case=case,
        metric=metric,
        unit=UNIT_OF[metric],
        value=value,
        low=low,
        high=high,
        blocks=len(table.medians(case, metric)),
        claims=claims,
    )
    if metric == "seconds":
        return _timed(table, row)
    if metric == peak_metric(case) and case != case.group and value:
        ratio, least, most = ratio_of(table, case, case.group, metric) or (None, None, None)
        return msgspec.structs.replace(row, ratio=ratio, ratio_low=least, ratio_high=most)
    return row


def _timed(table: Table, row: Row) -> Row:
    if row.case.strategy == REFERENCE:
        return msgspec.structs.replace(row, verdict="reference", band=table.band(row.case))
    verdict = table.verdict(row.case)
    found: Comparison | None = verdict.comparison
    return msgspec.structs.replace(
        row,
        ratio=found.ratio if found else None,
        ratio_low=found.low if found else None,
        ratio_high=found.high if found else None,
        band=verdict.band,
        verdict=verdict.word,
        reason=verdict.reason,
    )


def _distinct(bad: Iterable[Measurement]) -> list[tuple[Measurement, int]]:
    """The first of those that are alike in all but the block, with their number."""
    first: dict[tuple[Case, str, str, str], Measurement] = {}
    counts: Counter[tuple[Case, str, str, str]] = Counter()
    for measurement in bad:
        key = measurement.case, measurement.metric, measurement.state, measurement.reason
        first.setdefault(key, measurement)
        counts[key] += 1
    return [(measurement, counts[key]) for key, measurement in first.items()]


def _not_ok(bad: Measurement, count: int) -> Row:
    return Row(
        case=bad.case,
        metric=bad.metric,
        unit=UNIT_OF.get(bad.metric, ""),
        blocks=count,
        verdict=bad.state.replace("_", " "),
        reason=bad.reason,
    )


COLUMNS: dict[str, Callable[[Row], Any]] = {
    "model": lambda row: row.case.model,
    "backend": lambda row: row.case.backend,
    "device": lambda row: row.case.device,
    "dtype": lambda row: row.case.dtype,
    "mode": lambda row: row.case.mode,
    "strategy": lambda row: row.case.strategy,
    "points": lambda row: row.case.points,
    "batch": lambda row: row.case.batch or None,
    "length": lambda row: row.case.length or None,
    "extra": lambda row: row.extra,
    "metric": lambda row: row.metric,
    "unit": lambda row: row.unit,
    "value": lambda row: _short(row.value),
    "low": lambda row: _short(row.low),
    "high": lambda row: _short(row.high),
    "blocks": lambda row: row.blocks,
    "ratio": lambda row: _short(row.ratio),
    "ratio_low": lambda row: _short(row.ratio_low),
    "ratio_high": lambda row: _short(row.ratio_high),
    "band_low": lambda row: _short(row.band[0]) if row.band else None,
    "band_high": lambda row: _short(row.band[1]) if row.band else None,
    "verdict": lambda row: row.verdict,
    "reason": lambda row: row.reason,
    "claims": lambda row: " ".join(row.claims),
}
"""What the page knows of a row, and what a CSV file has."""


def _short(value: float | None) -> float | None:
    """Five digits: as many as an interval ever supports."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.5g}")


def packed(rows: Sequence[Row]) -> dict[str, Any]:
    """Columns for the page. Texts are places in `words`: what a thousand rows share is in it once."""
    words: dict[str, int] = {}
    columns: dict[str, list[Any]] = {}
    texts = []
    for name, read in COLUMNS.items():
        values = [read(row) for row in rows]
        if values and isinstance(values[0], str):
            texts.append(name)
            values = [words.setdefault(value, len(words)) for value in values]
        columns[name] = values
    return {"words": list(words), "texts": texts, "columns": columns, "count": len(rows)}
