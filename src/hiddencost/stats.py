"""Paired ratios, their intervals, and verdicts. Pure functions of records; scipy does the statistics.

A sample is a pair of calls of the same round. Samples of one process are not independent (memory
layout, caches, thread placement), so the interval is one between blocks: a t interval of the block
means of the log ratios.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from scipy.special import stdtrit

from hiddencost.records import OUTPUT, SINGLE_BLOCK, TWIN, Case, Comparison, Measurement, Run, Verdict

TRIM = 0.25
CONFIDENCE = 0.95
POWER = 0.80
FEWEST_BLOCKS = 5
"""With fewer blocks no interval is given: resampling three block means covers at most 75 %, and a t
interval of two is dozens of times as wide as their spread."""
FEW_BLOCKS = f"fewer than {FEWEST_BLOCKS} blocks"
RESOLVED = 0.02
"""A difference that overlaps the noise band is called `same` only where an effect of 2 % would have shown."""


def block_mean(log_ratios: Sequence[float]) -> float:
    """The interquartile mean of the log ratios of one block: as steady as the median under bursts of
    load, and a little less coarse when rounds are few. Few values (under 4) give the median."""
    values = np.sort(np.asarray(log_ratios, dtype=float))
    if values.size == 0:
        raise ValueError("a block without pairs has no mean")
    cut = int(values.size * TRIM)
    return float(np.median(values)) if values.size < 4 else float(values[cut : values.size - cut].mean())


def t_interval(means: Sequence[float]) -> tuple[float, float | None, float | None]:
    """The mean of block means and its 95 % t interval; (mean, None, None) with fewer than five blocks."""
    values = np.asarray(means, dtype=float)
    center = float(values.mean())
    if values.size < FEWEST_BLOCKS:
        return center, None, None
    half = float(stdtrit(values.size - 1, 0.5 + CONFIDENCE / 2)) * standard_error(values)
    return center, center - half, center + half


def standard_error(means: Sequence[float] | np.ndarray) -> float:
    """Standard error of the mean of block means (at least two of them)."""
    values = np.asarray(means, dtype=float)
    return float(values.std(ddof=1) / math.sqrt(values.size))


def smallest_detectable(means: Sequence[float]) -> float | None:
    """The smallest relative effect found with 80 % power by a two-sided 5 % test on as many blocks of
    this spread: (t(0.975) + t(0.80)) standard errors, as a ratio minus 1. None with fewer than five
    blocks."""
    if len(means) < FEWEST_BLOCKS:
        return None
    degrees = len(means) - 1
    factor = float(stdtrit(degrees, 0.5 + CONFIDENCE / 2) + stdtrit(degrees, POWER))
    return math.expm1(factor * standard_error(means))


def interval(values: Sequence[float]) -> tuple[float, float | None, float | None]:
    """Geometric mean of positive block values with its 95 % t interval on the log scale."""
    center, low, high = t_interval([math.log(value) for value in values])
    return (
        math.exp(center),
        None if low is None else math.exp(low),
        None if high is None else math.exp(high),
    )


def rounds_needed(pilot_log_ratios: Sequence[float] | np.ndarray, precision: float, blocks: int) -> int:
    """How many pairs a block needs so that the interval between `blocks` blocks has the half-width
    `precision`, when the spread is that of the pilot and all of it lies within blocks."""
    values = np.asarray(pilot_log_ratios, dtype=float)
    if values.size < 2:
        return 1
    quartiles = np.percentile(values, [25, 75])
    spread = float(quartiles[1] - quartiles[0]) / 1.349
    if blocks < 2:
        wanted = precision / 1.96
    else:
        wanted = precision * math.sqrt(blocks) / float(stdtrit(blocks - 1, 0.5 + CONFIDENCE / 2))
    efficiency = 1.2  # variance of the interquartile mean against the mean, normal samples
    return max(1, math.ceil(efficiency * (spread / wanted) ** 2))


class Table:
    """The measurements of a run by (case, metric), with their blocks. Only state `ok` has values."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._by_key: dict[tuple[Case, str], dict[int, Measurement]] = defaultdict(dict)
        self.not_ok: list[Measurement] = []
        for measurement in run.measurements:
            if measurement.state == "ok":
                self._by_key[measurement.case, measurement.metric][measurement.block] = measurement
            else:
                self.not_ok.append(measurement)

    def cases(self, metric: str, **fields: object) -> list[Case]:
        """The cases that have this metric, in the order first measured, whose fields equal `fields`."""
        return [
            case
            for case, name in self._by_key
            if name == metric and all(getattr(case, key) == value for key, value in fields.items())
        ]

    def blocks(self, case: Case, metric: str) -> dict[int, tuple[float, ...]]:
        """Raw values by block; empty when the case was not measured."""
        found = self._by_key.get((case, metric), {})
        return {block: measurement.values for block, measurement in sorted(found.items())}

    def medians(self, case: Case, metric: str) -> list[float]:
        """The median of each block's raw values."""
        return [float(np.median(values)) for values in self.blocks(case, metric).values() if values]

    def center(self, case: Case, metric: str) -> tuple[float, float | None, float | None] | None:
        """The geometric mean of block medians with its interval, or None when not measured."""
        medians = self.medians(case, metric)
        if not medians:
            return None
        if any(value <= 0 for value in medians):
            return t_interval(medians)
        return interval(medians)

    def compare(self, case: Case, against: Case | None = None, metric: str = "seconds") -> Comparison | None:
        """`case` against another case (its group's reference by default), paired round by round within
        each block; None when they share no block."""
        against = case.group if against is None else against
        mine, theirs = self.blocks(case, metric), self.blocks(against, metric)
        means, pairs = [], 0
        for block in sorted(mine.keys() & theirs.keys()):
            log_ratios = [math.log(a / b) for a, b in zip(mine[block], theirs[block], strict=False)]
            if log_ratios:
                means.append(block_mean(log_ratios))
                pairs += len(log_ratios)
        if not means:
            return None
        center, low, high = t_interval(means)
        return Comparison(
            case=case,
            against=against,
            metric=metric,
            ratio=math.exp(center),
            low=None if low is None else math.exp(low),
            high=None if high is None else math.exp(high),
            pairs=pairs,
            blocks=len(means),
            smallest_detectable=smallest_detectable(means),
        )

    def payload_floor(self, case: Case) -> float | None:
        """Bytes of what is asked for: the hidden states, or the model's own output. None if unknown."""
        center = self.center(case, "output_bytes" if case.points == OUTPUT else "payload_bytes")
        return center[0] if center else None

    def live_set_floor(self, case: Case) -> float | None:
        """Bytes that no way of running a block can go below, in the case's mode and shape: the payload,
        and the working set of a single block beside it (without the block's own output, which is the
        next hidden state and so counted once)."""
        payload, alone = self.payload_floor(case), case.group.with_(strategy=SINGLE_BLOCK)
        block, output = self.center(alone, "peak_heap_bytes"), self.center(alone, "output_bytes")
        if payload is None or block is None:
            return None
        return payload + block[0] - (output[0] if output else 0.0)

    def band(self, case: Case) -> tuple[float, float] | None:
        """The noise band of the case's group: the interval of its A/A twin, hull with 1."""
        twin = self.compare(case.group.with_(strategy=TWIN))
        if twin is None or twin.low is None or twin.high is None:
            return None
        return min(1.0, twin.low), max(1.0, twin.high)

    def verdict(self, case: Case) -> Verdict:
        """The time of `case` against its reference, judged against the twin's band (see `judge`)."""
        return judge(self.compare(case), self.band(case))


def judge(comparison: Comparison | None, band: tuple[float, float] | None) -> Verdict:
    """One word for a comparison of times.

    `slower`/`faster`: the whole interval lies outside the band. `same`: they overlap, and either the
    ratio lies inside the band or an effect of 2 % would have shown. `unclear`: anything else, and
    whenever there is no interval. `missing`: nothing was measured.
    """
    if comparison is None:
        return Verdict(comparison=None, word="missing", reason="not measured")
    if comparison.low is None or comparison.high is None:
        return Verdict(comparison=comparison, word="unclear", band=band, reason=f"{FEW_BLOCKS}: no interval")
    if band is None:
        return Verdict(comparison=comparison, word="unclear", reason="no interval of an A/A twin")
    low, high = band
    if comparison.low > high:
        return Verdict(comparison=comparison, word="slower", band=band)
    if comparison.high < low:
        return Verdict(comparison=comparison, word="faster", band=band)
    resolved = comparison.smallest_detectable is not None and comparison.smallest_detectable <= RESOLVED
    if low <= comparison.ratio <= high or resolved:
        return Verdict(comparison=comparison, word="same", band=band)
    return Verdict(
        comparison=comparison, word="unclear", band=band, reason="the interval overlaps the noise band"
    )


def line_fit(xs: Iterable[float], ys: Iterable[float]) -> tuple[float, float]:
    """(slope, intercept) of the least-squares line; at least two distinct xs."""
    slope, intercept = np.polyfit(np.asarray(list(xs), float), np.asarray(list(ys), float), 1)
    return float(slope), float(intercept)


SETTLED = 5
"""The call from which growth is counted: until then the allocator gives back what came before."""


def growth_per_call(values: Sequence[float]) -> float:
    """The slope of values taken at each of many calls in turn, from the call SETTLED on."""
    settled = values[SETTLED - 1 :] if len(values) > SETTLED else values
    return line_fit(range(len(settled)), settled)[0]


def fit_by_block(
    points: Sequence[tuple[float, dict[int, float]]],
) -> tuple[float, float | None, float | None] | None:
    """The slope of y against x fitted in each block by itself, with a t interval between blocks.

    points: (x, {block: y}). None when no block has two distinct xs.
    """
    by_block: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for x, values in points:
        for block, y in values.items():
            by_block[block].append((x, y))
    slopes = [
        line_fit([x for x, _ in pairs], [y for _, y in pairs])[0]
        for pairs in by_block.values()
        if len({x for x, _ in pairs}) > 1
    ]
    return t_interval(slopes) if slopes else None
