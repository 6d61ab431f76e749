"""One metric of one case, before and after -> a word. A slowdown needs both: beyond the threshold, and
beyond the noise, corrected for the number of cases that are judged together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from scipy.special import stdtr, stdtrit

from hiddencost.records import Case, Change, Word
from hiddencost.stats import CONFIDENCE, FEW_BLOCKS, FEWEST_BLOCKS, POWER

SURE = 0.01
"""Chance of any false alarm among the times that are judged together, where the verdict is final."""
SUSPECT = 0.2
"""The same where a suspicion is measured again."""
CONFIRMED = SURE / SUSPECT
"""The same of what is measured again by itself on both sides: both chances have to come true for a false
alarm, and no measurement serves twice. (What is compared with a baseline once more is not independent of the
first comparison, and has to be SURE.) A suspicion costs time alone, and what is not suspected is missed:
reports/calibration/report.md has what was told with 0.05 and 0.01 in their place, and with these."""

GRAIN_BYTES = {"peak_heap_bytes": 16 * 2**10}
"""A metric's smallest step. The same call on the same code now and then holds 8 kB more or less at its peak,
whatever its size: on a heap of half a MiB 1.4 %, twice in a row."""


@dataclass(frozen=True)
class Evidence:
    """One metric of one case. before, after: a value to show. shifts: log(after / before) in each block
    of pairs; or, where the two were measured apart, `earlier` and `later` hold the logs of each block.
    Exact metrics have none of the three."""

    case: Case
    metric: str
    before: float
    after: float
    shifts: Sequence[float] = ()
    earlier: Sequence[float] = ()
    later: Sequence[float] = ()

    @property
    def timed(self) -> bool:
        return bool(self.shifts or self.earlier or self.later)


@dataclass(frozen=True)
class _Estimate:
    """The mean shift on the log scale, its standard error and degrees of freedom."""

    shift: float
    error: float
    degrees: float

    def chance(self, shift: float) -> float:
        """The chance of so large a shift, in its own direction, when there is none (one-sided t test)."""
        if self.error == 0:
            return 0.0 if shift > 0 else 1.0
        return float(stdtr(self.degrees, -shift / self.error))


def _estimate(evidence: Evidence) -> _Estimate | None:
    """Paired by block, or by Welch's t test where there are no pairs; None with fewer than five blocks."""
    if evidence.shifts:
        values = np.asarray(evidence.shifts, dtype=float)
        if values.size < FEWEST_BLOCKS:
            return None
        return _Estimate(
            float(values.mean()), float(values.std(ddof=1)) / math.sqrt(values.size), values.size - 1
        )
    before, after = (np.asarray(side, dtype=float) for side in (evidence.earlier, evidence.later))
    if min(before.size, after.size) < FEWEST_BLOCKS:
        return None
    parts = [float(side.var(ddof=1)) / side.size for side in (before, after)]
    spread = sum(parts)
    degrees = (
        spread**2 / sum(part**2 / (side.size - 1) for part, side in zip(parts, (before, after), strict=True))
        if spread
        else before.size + after.size - 2
    )
    return _Estimate(float(after.mean() - before.mean()), math.sqrt(spread), degrees)


def holm(chances: Sequence[float]) -> list[float]:
    """Adjusted so that each can be held against one level for all (Holm 1979, Scand. J. Stat. 6, 65-70)."""
    adjusted, highest = [0.0] * len(chances), 0.0
    for rank, index in enumerate(sorted(range(len(chances)), key=chances.__getitem__)):
        highest = max(highest, min(1.0, (len(chances) - rank) * chances[index]))
        adjusted[index] = highest
    return adjusted


def judge(
    found: Sequence[Evidence], thresholds: Mapping[str, float], alpha: float, again: float = CONFIRMED
) -> list[Change]:
    """A word for each, in order. alpha: the chance of any false `slower` among all times judged here. Of
    `faster` it is SURE at most: that is not measured again. again: the chance that a suspicion has to meet
    by itself when it is measured again."""
    estimates = [_estimate(evidence) for evidence in found]
    tested = [estimate for estimate in estimates if estimate]
    slower = iter(holm([estimate.chance(estimate.shift) for estimate in tested]))
    faster = iter(holm([estimate.chance(-estimate.shift) for estimate in tested]))
    changes = []
    for evidence, estimate in zip(found, estimates, strict=True):
        threshold = thresholds[evidence.metric]
        if not evidence.timed:
            changes.append(_exact(evidence, threshold))
        elif estimate is None:
            changes.append(_change(evidence, "unclear", threshold, reason=f"{FEW_BLOCKS}: no interval"))
        else:
            share = min(alpha / len(tested), again)
            changes.append(_timed(evidence, estimate, threshold, next(slower), next(faster), alpha, share))
    return changes


def _timed(
    evidence: Evidence,
    estimate: _Estimate,
    threshold: float,
    slower: float,
    faster: float,
    alpha: float,
    share: float,
) -> Change:
    """slower, faster: Holm's chances. share: the level that the hardest of all tests has to meet. Where alpha
    is not final, a slowdown has to be seen twice: each time with the root of the power."""
    half = float(stdtrit(estimate.degrees, 0.5 + CONFIDENCE / 2)) * estimate.error
    power = POWER if alpha <= SURE else math.sqrt(POWER)
    beyond_noise = float(stdtrit(estimate.degrees, 1 - share)) * estimate.error
    margin = float(stdtrit(estimate.degrees, power)) * estimate.error
    least = math.log1p(threshold)
    detectable = math.expm1(max(beyond_noise, least) + margin)
    word: Word = "same"
    reason = ""
    if slower < alpha and estimate.shift > least:
        word = "slower"
    elif faster < min(alpha, SURE) and -estimate.shift > least:
        word = "faster"
    elif beyond_noise + margin > least:
        word, reason = "unclear", f"a slowdown of less than {detectable:.1%} would not have been seen"
    change = _change(evidence, word, threshold, reason)
    return msgspec.structs.replace(
        change,
        ratio=math.exp(estimate.shift),
        low=math.exp(estimate.shift - half),
        high=math.exp(estimate.shift + half),
        smallest_detectable=detectable,
    )


def _exact(evidence: Evidence, threshold: float) -> Change:
    before, after = evidence.before, evidence.after
    word: Word = "same"
    if after > before * (1 + threshold) and after - before > GRAIN_BYTES.get(evidence.metric, 0):
        word = "larger"
    elif after < before / (1 + threshold) and before - after > GRAIN_BYTES.get(evidence.metric, 0):
        word = "smaller"
    change = _change(evidence, word, threshold)
    return msgspec.structs.replace(change, ratio=after / before) if before else change


def _change(evidence: Evidence, word: Word, threshold: float, reason: str = "") -> Change:
    return Change(
        case=evidence.case,
        metric=evidence.metric,
        word=word,
        before=evidence.before,
        after=evidence.after,
        threshold=threshold,
        timed=evidence.timed,
        reason=reason,
    )
