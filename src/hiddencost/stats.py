"""Paired ratios, their intervals, and verdicts. Pure functions of records; scipy does the statistics.

Within a block the machine's speed wanders, so a call is compared with the call before it (`effects`).
Samples of one process are not independent (memory layout, caches, thread placement), so the interval is
one between blocks: a t interval of the blocks' log ratios.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence, Set
from dataclasses import dataclass
from functools import cache, cached_property
from operator import attrgetter
from typing import TypeVar

import numpy as np
from scipy.optimize import least_squares
from scipy.special import stdtrit

from hiddencost.columns import columns_of
from hiddencost.records import (
    OUTPUT,
    ROUNDS_WANTED,
    SINGLE_BLOCK,
    STACK,
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
_Made = TypeVar("_Made")


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
    center = math.fsum(means) / len(means) if len(means) else math.nan
    if len(means) < FEWEST_BLOCKS:
        return center, None, None
    half = _quantile(len(means) - 1, 0.5 + CONFIDENCE / 2) * standard_error(means)
    return center, center - half, center + half


def standard_error(means: Sequence[float]) -> float:
    """Standard error of the mean of block means (at least two of them)."""
    center = math.fsum(means) / len(means)
    variance = math.fsum((value - center) ** 2 for value in means) / (len(means) - 1)
    return math.sqrt(variance / len(means))


def smallest_detectable(means: Sequence[float]) -> float | None:
    """The smallest relative effect found with 80 % power by a two-sided 5 % test on as many blocks of
    this spread: (t(0.975) + t(0.80)) standard errors, as a ratio minus 1. None with fewer than five
    blocks."""
    if len(means) < FEWEST_BLOCKS:
        return None
    degrees = len(means) - 1
    factor = _quantile(degrees, 0.5 + CONFIDENCE / 2) + _quantile(degrees, POWER)
    return math.expm1(factor * standard_error(means))


@cache
def _quantile(degrees: int, share: float) -> float:
    """Of Student's t distribution."""
    return float(stdtrit(degrees, share))


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


def rotation_effects(rotation: Sequence[Measurement]) -> dict[Case, float]:
    """The log time of each case of the calls of one rotation, up to a constant (see `effects`)."""
    calls = sorted(
        (place, value, number)
        for number, m in enumerate(rotation)
        for place, value in zip(m.places, m.values, strict=True)
    )
    cases = [rotation[number].case for _, _, number in calls]
    return effects(cases, np.log([value for _, value, _ in calls]))[0]


def called_with(measurement: Measurement) -> str:
    """What names the rotation in which it was called: its group, or all that took turns."""
    return measurement.notes.get(TOGETHER) or str(measurement.case.group)


class Table:
    """The measurements of a run by (case, metric), with their blocks. Only state `ok` has values: what was
    measured again in a block, and failed then, has none."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._columns = found = columns_of(run)
        blocks = found.block
        order = np.lexsort((blocks, found.case, found.metric))  # stable: what came later stands later
        last = np.zeros(len(order), bool)
        last[-1:] = True
        for column in (found.metric, found.case, blocks):
            last[:-1] |= column[order[1:]] != column[order[:-1]]
        order = order[last]  # what was measured again stands for what it replaces
        self._rows = rows = order[found.in_state("ok")[order]].astype(np.int32)
        self._place = {case: place for place, case in enumerate(found.cases)}
        self._starts: dict[str, np.ndarray] = {}
        every_case, bounds = np.arange(len(found.cases) + 1), np.arange(len(found.metrics) + 1)
        bounds = np.searchsorted(found.metric[rows], bounds)
        for name, low, high in zip(found.metrics, bounds, bounds[1:], strict=False):
            self._starts[name] = low + np.searchsorted(found.case[rows[low:high]], every_case)
        timed = found.metrics.index("seconds") if "seconds" in found.metrics else len(found.metrics)
        self._first_timed = int(bounds[timed])
        self._stored_effects = found.effects(rows[bounds[timed] : bounds[min(timed + 1, len(found.metrics))]])
        self._cases: dict[str, list[Case]] = {}
        self._effects: dict[tuple[str, int], dict[Case, float]] = {}
        self._bands: dict[Case, tuple[float, float] | None] = {}
        self._made: dict[Hashable, object] = {}

    def once(self, make: Callable[..., _Made], *arguments: Hashable) -> _Made:
        """`make(table, *arguments)`, made once: several read it, and it takes a look at every case."""
        key = make, *arguments
        if key not in self._made:
            self._made[key] = make(self, *arguments)
        return self._made[key]  # type: ignore[return-value]

    @cached_property
    def not_ok(self) -> list[Measurement]:
        """What has a state instead of values."""
        return list(self._columns.only(~self._columns.in_state("ok")))

    def cases(self, metric: str, **fields: object) -> list[Case]:
        """The cases that have this metric, in the order first measured, whose fields equal `fields`."""
        if metric not in self._cases:
            rows = np.zeros(len(self._columns), bool)
            rows[self._rows] = True
            self._cases[metric] = self._columns.met(rows & self._columns.of((metric,)))
        if not fields:
            return list(self._cases[metric])
        read, values = attrgetter(*fields), tuple(fields.values())
        wanted = values if len(values) > 1 else values[0]
        return [case for case in self._cases[metric] if read(case) == wanted]

    def _of(self, case: Case, metric: str) -> slice:
        """Where the blocks of a case stand in `_rows`, in their order."""
        place, starts = self._place.get(case), self._starts.get(metric)
        return slice(0, 0) if place is None or starts is None else slice(*starts[place : place + 2].tolist())

    def blocks(self, case: Case, metric: str) -> dict[int, tuple[float, ...]]:
        """Raw values by block; empty when the case was not measured."""
        rows = self._rows[self._of(case, metric)]
        values = map(self._columns.values_of, rows)
        return dict(zip(self._columns.blocks_of(rows), values, strict=True))

    def note(self, case: Case, metric: str, name: str) -> str:
        """What a note of the lowest block says; nothing where there is none."""
        rows = self._rows[self._of(case, metric)][:1]
        return next((self._columns.notes_of(row).get(name, "") for row in rows), "")

    @cached_property
    def capped(self) -> set[Case]:
        """The groups whose rounds time ended before the wanted precision, in some block."""
        return {case.group for case in self._columns.met(self._columns.with_note(ROUNDS_WANTED.__eq__))}

    def block_medians(self, case: Case, metric: str) -> dict[int, float]:
        """The median of each block's raw values, by block."""
        rows = self._rows[self._of(case, metric)]
        pairs = zip(self._columns.blocks_of(rows), self._columns.medians[rows].tolist(), strict=True)
        return {block: median for block, median in pairs if not math.isnan(median)}

    def medians(self, case: Case, metric: str) -> list[float]:
        """The median of each block's raw values."""
        return list(self.block_medians(case, metric).values())

    @cached_property
    def _rotations(self) -> dict[tuple[str, int], list[Measurement]]:
        found: dict[tuple[str, int], list[Measurement]] = defaultdict(list)
        for row in np.sort(self._rows).tolist():
            if self._columns.places_of(row):
                measurement = self._columns[row]
                found[called_with(measurement), measurement.block].append(measurement)
        return found

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
            self._effects[key] = rotation_effects(self._rotations[key])
        return self._effects[key]

    def log_ratios(self, case: Case, against: Case, metric: str = "seconds") -> tuple[list[float], int]:
        """log(case / against) of each block that has both, and the number of pairs in all of them."""
        own, others = self._of(case, metric), self._of(against, metric)
        mine, theirs = self._rows[own], self._rows[others]
        both = self._in_both(mine, theirs)
        counts = [self._columns.counts[rows].tolist() for rows in (mine, theirs)]
        pairs = [min(counts[0][i], counts[1][j]) for i, j in both]
        stored = self._stored(own, metric), self._stored(others, metric)
        if all(stored) and case.group == against.group:
            means = [stored[0][i] - stored[1][j] for i, j in both]
        else:
            found = zip(both, pairs, strict=True)
            means = [self._log_ratio(int(mine[i]), int(theirs[j])) for (i, j), count in found if count]
        return means, sum(pairs)

    def _in_both(self, mine: np.ndarray, theirs: np.ndarray) -> list[tuple[int, int]]:
        """The places of those rows of either that are of one block."""
        blocks = self._columns.blocks_of(mine), self._columns.blocks_of(theirs)
        if blocks[0] == blocks[1]:
            return [(place, place) for place in range(len(blocks[0]))]
        places = {block: place for place, block in enumerate(blocks[1])}
        return [(place, places[block]) for place, block in enumerate(blocks[0]) if block in places]

    def _stored(self, here: slice, metric: str) -> list[float]:
        """The stored effects of these rows; nothing where one has none."""
        if metric != "seconds":
            return []
        low = self._first_timed
        found: list[float] = self._stored_effects[here.start - low : here.stop - low].tolist()
        return [] if any(map(math.isnan, found)) else found

    def _log_ratio(self, mine: int, theirs: int) -> float:
        """Of two rows of one block: from the rotation that both were called in, else from their pairs in
        order."""
        columns = self._columns
        if columns.places_of(mine) and columns.places_of(theirs):
            one, other = columns[mine], columns[theirs]
            if (together := called_with(one)) == called_with(other):
                found = self.block_effects(together, one.block)
                return found[one.case] - found[other.case]
        pairs = zip(columns.values_of(mine), columns.values_of(theirs), strict=False)
        return block_mean([math.log(a / b) for a, b in pairs])

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
        next hidden state and so counted once). None for a whole model of several stacks: the block is of
        the one that is named, and those of the others may need more."""
        if case.points == OUTPUT and STACK in case.model:
            return None
        payload, alone = self.payload_floor(case), case.group.with_(strategy=SINGLE_BLOCK)
        block, output = self.center(alone, peak_metric(alone)), self.center(alone, "output_bytes")
        if payload is None or block is None:
            return None
        return payload + block[0] - (output[0] if output else 0.0)

    def band(self, case: Case) -> tuple[float, float] | None:
        """The noise band of the case's group: the interval of its A/A twin, hull with 1."""
        group = case.group
        if group not in self._bands:
            twin = self.compare(group.with_(strategy=TWIN))
            self._bands[group] = None
            if twin is not None and twin.low is not None and twin.high is not None:
                self._bands[group] = min(1.0, twin.low), max(1.0, twin.high)
        return self._bands[group]

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
