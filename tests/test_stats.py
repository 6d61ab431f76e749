"""Statistics on hand-made numbers whose results are known, and coverage by simulation."""

import math

import msgspec
import numpy as np
import pytest

from hiddencost import stats
from hiddencost.records import REFERENCE, TWIN, Case, Comparison, Header, Measurement, Run

REFERENCE_CASE = Case(model="m", strategy=REFERENCE, mode="graph", batch=1, length=16)
WAY = REFERENCE_CASE.with_(strategy="way", points="all")
TWIN_CASE = REFERENCE_CASE.with_(strategy=TWIN)


def run_of(*measurements):
    header = Header(
        schema_version=1,
        hiddencost_version="",
        started="",
        command="",
        grid_name="",
        grid="",
        seed=0,
        git_commit="",
    )
    return Run(header=header, environments=(), measurements=measurements)


def table(ratios_by_block, strategy_case=WAY, twin=(1.0,) * 5):
    """A table in which the way takes the given ratio of the reference in each block, ten rounds each."""
    rows = []
    for block, ratio in enumerate(ratios_by_block):
        reference = [0.01 * (1 + 0.1 * i) for i in range(10)]
        for case, factor in (
            (REFERENCE_CASE, 1),
            (strategy_case, ratio),
            (TWIN_CASE, twin[block % len(twin)]),
        ):
            values = tuple(factor * value for value in reference)
            rows.append(Measurement(case=case, metric="seconds", values=values, block=block))
    return stats.Table(run_of(*rows))


def test_the_block_mean_is_the_interquartile_mean():
    assert stats.block_mean([0, 1, 2, 3, 4, 5, 6, 100]) == pytest.approx((2 + 3 + 4 + 5) / 4)
    assert stats.block_mean([3, 1, 100]) == 3
    with pytest.raises(ValueError, match="without pairs"):
        stats.block_mean([])


def calls(generator, rounds, effects, wander=0.0, jitter=0.0):
    """(name of each call in shuffled rounds, its log time) for a machine whose speed wanders or jitters."""
    names = [name for _ in range(rounds) for name in generator.permutation(len(effects))]
    state = np.cumsum(generator.normal(0, wander, len(names))) + generator.normal(0, jitter, len(names))
    return names, np.take(effects, names) + state


def test_effects_are_what_was_put_in_whatever_the_machines_speed():
    names, times = calls(np.random.default_rng(0), 3, [0.0, 0.7, -0.2])
    found, residuals = stats.effects(names, times + 5)
    assert [found[i] - found[0] for i in range(3)] == pytest.approx([0, 0.7, -0.2])
    assert residuals == pytest.approx(0)
    assert found[names[0]] == 0
    assert stats.effects(["only"] * 3, [1.0, 2.0, 3.0])[0] == {"only": 0.0}
    with pytest.raises(ValueError, match="no calls"):
        stats.effects([], [])


def by_round(names, times, count):
    """The block mean of each name against name 0, paired round by round."""
    table = np.empty((len(names) // count, count))
    for call, name in enumerate(names):
        table[call // count, name] = times[call]
    return [stats.block_mean(table[:, name] - table[:, 0]) for name in range(1, count)]


@pytest.mark.parametrize(
    ("wander", "jitter", "bursts", "against_pairs", "loss"),
    [
        (0.05, 0, 0, 0.54, 1.1),
        (0.035, 0.025, 0, 0.73, 1.43),
        (0.05, 0, 0.05, 0.6, 1.27),
        (0, 0.035, 0, 1.13, 1.78),
    ],
)
def test_effects_are_steadier_than_pairs_of_a_round_where_the_machine_wanders(
    wander, jitter, bursts, against_pairs, loss
):
    generator = np.random.default_rng(4)
    found, paired, spreads = [], [], []
    for _ in range(300):
        names, times = calls(generator, 20, np.zeros(11), wander, jitter)
        times += generator.normal(0.3, 0.1, len(times)) * (generator.random(len(times)) < bursts)
        effects, residuals = stats.effects(names, times)
        found.append([effects[name] - effects[0] for name in range(1, 11)])
        paired.append(by_round(names, times, 11))
        spreads.append(stats.MAD * np.median(np.abs(residuals)))
    variance = np.mean(np.square(found))
    assert np.mean(found) == pytest.approx(0, abs=3 * math.sqrt(variance / 300))
    assert math.sqrt(variance / np.mean(np.square(paired))) == pytest.approx(against_pairs, abs=0.05)
    assert variance / (np.mean(np.square(spreads)) / 20) == pytest.approx(loss, rel=0.1)


def test_the_interval_is_a_t_interval_of_block_means():
    center, low, high = stats.t_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    half = 2.7764451 * math.sqrt(2.5 / 5)  # t(0.975, 4 degrees of freedom) from a table
    assert (center, low, high) == pytest.approx((3, 3 - half, 3 + half))
    assert stats.t_interval([2.0]) == (2.0, None, None)
    assert stats.t_interval([1.0, 2.0, 3.0, 4.0]) == (2.5, None, None)


def test_the_smallest_detectable_effect_has_eighty_percent_power_by_simulation():
    generator = np.random.default_rng(0)
    spread, blocks, trials = 0.01, 5, 4000
    effect = math.log1p(
        np.mean(
            [stats.smallest_detectable(generator.normal(0, spread, blocks)) for _ in range(400)],
        )
    )
    found = 0
    for _ in range(trials):
        _, low, high = stats.t_interval(generator.normal(effect, spread, blocks))
        found += low > 0 or high < 0
    assert 0.74 < found / trials < 0.86
    assert stats.smallest_detectable([0.1]) is None


def test_the_interval_covers_the_truth_in_95_of_100_by_simulation():
    generator = np.random.default_rng(1)
    trials = 4000
    covered = 0
    for _ in range(trials):
        _, low, high = stats.t_interval(generator.normal(0.3, 0.02, 5))
        covered += low <= 0.3 <= high
    assert 0.94 < covered / trials < 0.96


def test_a_comparison_pairs_round_by_round_within_blocks():
    comparison = table([1.10, 1.20, 1.10, 1.20, 1.15]).compare(WAY)
    assert comparison.ratio == pytest.approx(math.exp(np.mean(np.log([1.1, 1.2, 1.1, 1.2, 1.15]))))
    assert (comparison.pairs, comparison.blocks) == (50, 5)
    assert comparison.low < comparison.ratio < comparison.high
    assert comparison.against == REFERENCE_CASE


def test_values_without_a_partner_in_their_block_are_left_out():
    lonely = stats.Table(
        run_of(
            Measurement(case=WAY, metric="seconds", values=(1.0,), block=0),
            Measurement(case=REFERENCE_CASE, metric="seconds", values=(1.0,), block=1),
        )
    )
    assert lonely.compare(WAY) is None
    assert lonely.verdict(WAY).word == "missing"


@pytest.mark.parametrize(
    ("ratios", "twin", "word"),
    [
        ([1.10, 1.11, 1.10, 1.11, 1.10], (1.0,), "slower"),
        ([0.50, 0.51, 0.50, 0.51, 0.50], (1.0,), "faster"),
        ([1.001, 0.999, 1.0, 1.002, 0.998], (0.999, 1.001), "same"),
        ([1.02, 0.99, 1.03, 1.0, 1.05], (0.999, 1.001), "unclear"),
        ([1.02, 1.02, 1.021, 1.02, 1.02], (1.0, 1.03), "same"),  # inside a wide band
        ([1.1], (1.0,), "unclear"),
    ],
)
def test_the_verdict_is_judged_against_the_twins_band(ratios, twin, word):
    assert table(ratios, twin=twin).verdict(WAY).word == word


def test_the_band_is_the_twins_interval_hull_with_one():
    low, high = table([1.0] * 5, twin=(0.98, 0.981, 0.98, 0.982, 0.98)).band(WAY)
    assert high == 1.0
    assert low == pytest.approx(0.9795, abs=5e-4)


def test_an_interval_that_just_touches_the_band_is_not_slower():
    touching = Comparison(
        case=WAY,
        against=REFERENCE_CASE,
        metric="seconds",
        ratio=1.02,
        low=1.01,
        high=1.03,
        pairs=10,
        blocks=5,
        smallest_detectable=0.03,
    )
    assert stats.judge(touching, (0.99, 1.01)).word == "unclear"
    assert stats.judge(touching, (0.99, 1.0099)).word == "slower"


def test_an_interval_that_just_touches_the_band_is_not_faster():
    table_ = table([0.90, 0.95, 0.97, 0.99, 1.06])
    comparison = table_.compare(WAY)
    assert comparison.ratio < 1 < comparison.high
    assert table_.verdict(WAY).word != "faster"


def test_the_first_whole_call_after_a_crossing_is_ahead():
    build_once, at_each_call = stats.Cost(once=10.0, each=1.0), stats.Cost(once=1.0, each=4.0)
    crossing = build_once.crossing(at_each_call)
    assert crossing == 4.0
    assert build_once.after(4) == at_each_call.after(4)
    assert stats.ahead_from(crossing) == 5
    assert at_each_call.crossing(build_once) is None


def test_growth_is_counted_from_the_call_when_the_allocator_has_settled():
    assert stats.growth_per_call([50.0, 40.0, 30.0, 20.0, 7.0, 9.0, 11.0, 13.0]) == pytest.approx(2.0)
    assert stats.growth_per_call([50.0, 40.0, 30.0, 20.0, 7.0, 5.0, 5.0]) == pytest.approx(-1.0)


def test_rounds_follow_from_the_spread_and_the_wanted_precision():
    generator = np.random.default_rng(2)
    _, pilot = stats.effects(*calls(generator, 200, np.zeros(8), 0.03, 0.01))
    rounds = stats.rounds_needed(pilot, 0.01, 5)
    half_widths = []
    for _ in range(100):
        blocks = [stats.effects(*calls(generator, rounds, np.zeros(8), 0.03, 0.01))[0] for _ in range(5)]
        _, low, high = stats.t_interval([found[1] - found[0] for found in blocks])
        half_widths.append((high - low) / 2)
    assert 0.007 < np.median(half_widths) < 0.0105
    assert stats.rounds_needed(pilot, 0.02, 5) < rounds
    assert stats.rounds_needed([0.0], 0.01, 5) == 1


def test_cases_of_a_rotation_are_compared_by_successive_calls():
    """The machine is ten times slower from its fourth call on: that is between two calls, not in a ratio."""
    sequence = [
        REFERENCE_CASE,
        WAY,
        TWIN_CASE,
        TWIN_CASE,
        WAY,
        REFERENCE_CASE,
        WAY,
        REFERENCE_CASE,
        TWIN_CASE,
    ]
    speeds = [1] * 3 + [10] * 6
    rows = []
    for block in range(5):
        for case, factor in ((REFERENCE_CASE, 1.0), (WAY, 1.5), (TWIN_CASE, 1.0)):
            places = tuple(i for i, called in enumerate(sequence) if called == case)
            values = tuple(factor * speeds[place] for place in places)
            rows.append(Measurement(case=case, metric="seconds", values=values, places=places, block=block))
    found = stats.Table(run_of(*rows))
    assert found.compare(WAY).ratio == pytest.approx(1.5)
    assert found.compare(WAY, TWIN_CASE).ratio == pytest.approx(1.5)
    assert (found.compare(WAY).pairs, found.compare(WAY).blocks) == (15, 5)


def test_medians_and_centers_of_blocks():
    found = stats.Table(
        run_of(
            Measurement(case=WAY, metric="build_seconds", values=(1.0, 2.0, 9.0), block=0),
            Measurement(case=WAY, metric="build_seconds", values=(8.0,), block=1),
        )
    )
    assert found.medians(WAY, "build_seconds") == [2.0, 8.0]
    assert found.center(WAY, "build_seconds")[0] == pytest.approx(4.0)  # geometric
    assert found.center(WAY, "first_call_seconds") is None


def test_slopes_are_fitted_block_by_block():
    slopes = {0: 2, 1: 4, 2: 3, 3: 2, 4: 4}
    points = [(x, {block: slope * x + 1 for block, slope in slopes.items()}) for x in (10.0, 20.0, 30.0)]
    center, low, high = stats.fit_by_block(points)
    assert center == pytest.approx(3)
    assert low < 3 < high
    assert stats.fit_by_block([(1.0, {0: 1.0})]) is None


def test_what_is_not_ok_has_no_values():
    failed = Measurement(case=WAY, metric="seconds", state="wrong", reason="differs", block=0)
    found = stats.Table(run_of(failed))
    assert found.not_ok == [failed]
    assert found.cases("seconds") == []


def rotated(effects_by_case, block=0, **changes):
    """Times of three rounds of these cases, each off by what its effect says."""
    count = len(effects_by_case)
    return [
        Measurement(
            case=case,
            metric="seconds",
            values=(math.exp(effect),) * 3,
            places=tuple(range(place, place + 3 * count, count)),
            block=block,
            **changes,
        )
        for place, (case, effect) in enumerate(effects_by_case.items())
    ]


def test_an_effect_that_is_stored_is_not_fitted_again():
    times = [line for block in range(5) for line in rotated({REFERENCE_CASE: 0.0, WAY: 0.5}, block)]
    assert stats.Table(run_of(*times)).compare(WAY).ratio == pytest.approx(math.exp(0.5))
    told = [msgspec.structs.replace(line, effect=0.3 if line.case == WAY else 0.1) for line in times]
    found = stats.Table(run_of(*told)).compare(WAY)
    assert (found.ratio, found.pairs, found.blocks) == (pytest.approx(math.exp(0.2)), 15, 5)
    elsewhere = WAY.with_(length=64)
    others = [msgspec.structs.replace(line, case=elsewhere) for line in told if line.case == WAY]
    apart = stats.Table(run_of(*told, *others)).compare(elsewhere, REFERENCE_CASE)
    assert apart.ratio == pytest.approx(math.exp(0.5))  # the effects of two rotations have nothing in common


def test_what_failed_when_it_was_measured_again_has_no_values():
    times = rotated({REFERENCE_CASE: 0.0, WAY: 0.5})
    again = [*rotated({REFERENCE_CASE: 0.1}), Measurement(case=WAY, metric="seconds", state="crashed")]
    found = stats.Table(run_of(*times, *again))
    assert found.blocks(REFERENCE_CASE, "seconds") == {0: (math.exp(0.1),) * 3}
    assert found.cases("seconds") == [REFERENCE_CASE]
    assert [bad.case for bad in found.not_ok] == [WAY]
