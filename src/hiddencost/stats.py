"""Paired ratios, their intervals, and verdicts. Pure functions of records; scipy does the statistics.

Within a block the machine's speed wanders, so a call is compared with the call before it (`effects`).
Samples of one process are not independent (memory layout, caches, thread placement), so the interval is
one between blocks: a t interval of the blocks' log ratios.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence, Set
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from scipy.optimize import least_squares
from scipy.special import stdtrit

from hiddencost.records import (
    OUTPUT,
    SINGLE_BLOCK,
    TOGETHER,
    TWIN,
    Case,
    Comparison,
    Measurement,
    Run,
    Verdict,
)

TRIM = 0.25
CONFIDENCE = 0.95
POWER = 0.80
FEWEST_BLOCKS = 5
"""With fewer blocks no interval is given: resampling three block means covers at most 75 %, and a t
interval of two is dozens of times as wide as their spread."""
FEW_BLOCKS = f"fewer than {FEWEST_BLOCKS} blocks"
HUBER = 1.345
"""Residuals beyond so many standard deviations pull with their sign only: 95 % efficient for normal noise
(Huber 1981, Robust Statistics)."""
MAD = 1.4826
"""Standard deviation of normal noise, in median absolute deviations."""
RESOLVED = 0.02
"""A difference that overlaps the noise band is called `same` only where an effect of 2 % would have shown."""


LOSS = 1.4
"""Variance of an effect over that of a mean of as many differences: 1.1 when the machine only wanders,
1.8 when it only jitters (by simulation, tests/test_stats.py)."""
_Name = TypeVar("_Name", bound=Hashable)


def effects(
    names: Sequence[_Name], log_seconds: Sequence[float] | np.ndarray
) -> tuple[dict[_Name, float], np.ndarray]:
    """What each name adds to the log time of a call, from calls in the order in which they were made.

    The k-th call takes `effect of its name + state of the machine`, and the state wanders slowly. So the
    effects are fitted to the differences of successive calls, by Huber's robust regression: every call
    serves twice, and only how far the machine moves from one call to the next is noise. Effects count
    from the first name's, which is 0. A/A ratios spread 10 to 15 % less this way than paired within
    shuffled rounds, and as little as with twice the calls in pairs (reports/experiments/pairing.md); in
    field trials the same is known as nearest-neighbour analysis (Wilkinson et al. 1983, J. R. Stat. Soc.
    B 45, 151-211).

    Returns ({name: effect}, residuals of the differences). Raises ValueError without any call.
    """
    if not len(names):
        raise ValueError("no calls: nothing to compare")
    distinct = list(dict.fromkeys(names))
    column = {name: i for i, name in enumerate(distinct)}
    design = np.zeros((len(names), len(distinct)))
    design[np.arange(len(names)), [column[name] for name in names]] = 1
    design = np.diff(design, axis=0)[:, 1:]
    steps = np.diff(np.asarray(log_seconds, dtype=float))
    found = np.linalg.lstsq(design, steps, rcond=None)[0] if len(distinct) > 1 else np.zeros(0)
    for _ in range(2 if found.size else 0):
        scale = MAD * float(np.median(np.abs(steps - design @ found)))
        if scale > 1e-12:
            fit = least_squares(
                _misfit, found, _slope, loss="huber", f_scale=HUBER * scale, args=(design, steps)
            )
            found = fit.x
    return dict(zip(distinct, [0.0, *map(float, found)], strict=True)), steps - design @ found


def _misfit(found: np.ndarray, design: np.ndarray, steps: np.ndarray) -> np.ndarray:
    misfit: np.ndarray = design @ found - steps
    return misfit


def _slope(found: np.ndarray, design: np.ndarray, steps: np.ndarray) -> np.ndarray:
    return design


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


def rounds_needed(residuals: Sequence[float] | np.ndarray, precision: float, blocks: int) -> int:
    """How many rounds a block needs so that the interval between `blocks` blocks has the half-width
    `precision`, when successive calls move like a pilot's `residuals` (see `effects`) and all of the
    spread lies within blocks."""
    values = np.asarray(residuals, dtype=float)
    if values.size < 2:
        return 1
    spread = MAD * float(np.median(np.abs(values)))
    if blocks < 2:
        wanted = precision / 1.96
    else:
        wanted = precision * math.sqrt(blocks) / float(stdtrit(blocks - 1, 0.5 + CONFIDENCE / 2))
    return max(1, math.ceil(LOSS * (spread / wanted) ** 2))


@dataclass(frozen=True)
class Cost:
    """Seconds of many calls of one way: `once` for build and first call, then `each` further call."""

    once: float
    each: float

    def after(self, calls: float) -> float:
        """Seconds spent when that many calls are done."""
        return self.once + (calls - 1) * self.each

    def crossing(self, other: Cost) -> float | None:
        """The number of calls at which this way has caught up with another; None where it is ahead from
        the first call on, or never is."""
        if self.once <= other.once or self.each >= other.each:
            return None
        return 1 + (self.once - other.once) / (other.each - self.each)


def ahead_from(crossing: float) -> int:
    """The first whole number of calls after a crossing."""
    return math.floor(crossing) + 1


def peak_metric(case: Case) -> str:
    """What the case's peak memory is told by: the heap's, or that of the device it ran on."""
    return "peak_heap_bytes" if case.device == "cpu" else "peak_device_bytes"


def called_with(measurement: Measurement) -> str:
    """What names the rotation in which it was called: its group, or all that took turns."""
    return measurement.notes.get(TOGETHER) or str(measurement.case.group)


class Table:
    """The measurements of a run by (case, metric), with their blocks. Only state `ok` has values."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._by_key: dict[tuple[Case, str], dict[int, Measurement]] = defaultdict(dict)
        self._rotations: dict[tuple[str, int], list[Measurement]] = defaultdict(list)
        self._effects: dict[tuple[str, int], dict[Case, float]] = {}
        self.not_ok: list[Measurement] = []
        for measurement in run.measurements:
            if measurement.state == "ok":
                self._by_key[measurement.case, measurement.metric][measurement.block] = measurement
            else:
                self.not_ok.append(measurement)
        for blocks in self._by_key.values():  # what was measured again stands for what it replaces
            for measurement in blocks.values():
                if measurement.places:
                    self._rotations[called_with(measurement), measurement.block].append(measurement)

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

    def note(self, case: Case, metric: str, name: str) -> str:
        """What a note of the first block says; nothing where there is none."""
        found = self._by_key.get((case, metric), {})
        return next((measurement.notes.get(name, "") for measurement in found.values()), "")

    def block_medians(self, case: Case, metric: str) -> dict[int, float]:
        """The median of each block's raw values, by block."""
        return {
            block: float(np.median(values)) for block, values in self.blocks(case, metric).items() if values
        }

    def medians(self, case: Case, metric: str) -> list[float]:
        """The median of each block's raw values."""
        return list(self.block_medians(case, metric).values())

    def rotations(self) -> Set[tuple[str, int]]:
        """(what is called together, block) of all rotations."""
        return self._rotations.keys()

    def rotation(self, together: str, block: int) -> Sequence[Measurement]:
        """The times of one rotation, case by case."""
        return self._rotations[together, block]

    def center(self, case: Case, metric: str) -> tuple[float, float | None, float | None] | None:
        """The geometric mean of block medians with its interval, or None when not measured."""
        medians = self.medians(case, metric)
        if not medians:
            return None
        if any(value <= 0 for value in medians):
            return t_interval(medians)
        return interval(medians)

    def block_effects(self, together: str, block: int) -> dict[Case, float]:
        """The log time of each case of one rotation, up to a constant (see `effects`)."""
        key = together, block
        if key not in self._effects:
            calls = sorted(
                (place, value, number)
                for number, m in enumerate(self._rotations[key])
                for place, value in zip(m.places, m.values, strict=True)
            )
            cases = [self._rotations[key][number].case for _, _, number in calls]
            self._effects[key] = effects(cases, np.log([value for _, value, _ in calls]))[0]
        return self._effects[key]

    def _log_ratio(self, block: int, mine: Measurement, theirs: Measurement) -> float:
        """Of one block: from the rotation that both were called in, else from their pairs in order."""
        together = called_with(mine)
        if mine.places and theirs.places and together == called_with(theirs):
            found = self.block_effects(together, block)
            return found[mine.case] - found[theirs.case]
        return block_mean([math.log(a / b) for a, b in zip(mine.values, theirs.values, strict=False)])

    def log_ratios(self, case: Case, against: Case, metric: str = "seconds") -> tuple[list[float], int]:
        """log(case / against) of each block that has both, and the number of pairs in all of them."""
        mine, theirs = self._by_key.get((case, metric), {}), self._by_key.get((against, metric), {})
        means, pairs = [], 0
        for block in sorted(mine.keys() & theirs.keys()):
            count = min(len(mine[block].values), len(theirs[block].values))
            if count:
                means.append(self._log_ratio(block, mine[block], theirs[block]))
                pairs += count
        return means, pairs

    def compare(self, case: Case, against: Case | None = None, metric: str = "seconds") -> Comparison | None:
        """`case` against another case (its group's reference by default) within each block; None when
        they share no block."""
        against = case.group if against is None else against
        means, pairs = self.log_ratios(case, against, metric)
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

    def cost(self, case: Case) -> Cost | None:
        """Build, first call and steady call of a case (means of the blocks); None where one is missing."""
        build, first, each = (
            self.center(case, metric) for metric in ("build_seconds", "first_call_seconds", "seconds")
        )
        return Cost(build[0] + first[0], each[0]) if build and first and each else None

    def payload_floor(self, case: Case) -> float | None:
        """Bytes of what is asked for: the hidden states, or the model's own output. None if unknown."""
        center = self.center(case, "output_bytes" if case.points == OUTPUT else "payload_bytes")
        return center[0] if center else None

    def live_set_floor(self, case: Case) -> float | None:
        """Bytes that no way of running a block can go below, in the case's mode and shape: the payload,
        and the working set of a single block beside it (without the block's own output, which is the
        next hidden state and so counted once)."""
        payload, alone = self.payload_floor(case), case.group.with_(strategy=SINGLE_BLOCK)
        block, output = self.center(alone, peak_metric(alone)), self.center(alone, "output_bytes")
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
