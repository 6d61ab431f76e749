"""The gate: hand-made records give literal words, sentences and exit codes."""

import json
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import gate_runs
import msgspec
import numpy as np
import psutil
import pytest
from click.testing import CliRunner
from gate_runs import ALL, GROUP, PLANNED, SUBMODEL
from scipy import stats as scipy_stats

from hiddencost import cli, gate, grid, stats, trees
from hiddencost.errors import NotComparableError, UserError
from hiddencost.gate import Outcome
from hiddencost.gate.baseline import changed_versions
from hiddencost.gate.judging import Evidence, holm, judge
from hiddencost.gate.lookups import log_slopes
from hiddencost.grid import planning
from hiddencost.nursery import NUMBER, SPOKEN, Forked, Nursery
from hiddencost.records import OTHER_SIDE, TWIN, Case, Change, Measurement

NAME = Case(model="lookup", strategy="get_layer_name")


def between(shifts=None, alpha=gate.SURE, thresholds=grid.GATED, **changes):
    before, after = gate_runs.sides(shifts, **changes)
    return gate.between_sides(before, after, thresholds, alpha)


def words(changes):
    return {(change.case, change.metric): change.word for change in changes}


def moved(changes):
    return {key: word for key, word in words(changes).items() if word != "same"}


# -- side by side --


def test_identical_sides_are_the_same_in_every_metric():
    found = between()
    assert {change.word for change in found} == {"same"}
    assert {change.metric for change in found} == {
        "seconds",
        "lookup_seconds_per_layer",
        "peak_heap_bytes",
        "payload_bytes",
    }
    assert Outcome(found).exit_code == 0


def test_a_slowdown_beyond_the_threshold_is_found_with_its_ratio_whatever_the_machine_does():
    found = between({ALL: 1.03})
    assert moved(found) == {(ALL, "seconds"): "slower"}
    (change,) = [change for change in found if change.word == "slower"]
    assert change.ratio == pytest.approx(1.03, rel=1e-3)
    assert change.low < 1.03 < change.high
    assert change.timed
    assert Outcome(found).exit_code == 1


def test_a_machine_that_changes_its_speed_at_once_moves_nothing():
    found = [change for change in between(jump=0.8) if change.metric == "seconds"]
    assert [change.ratio for change in found] == pytest.approx([1.0] * 3, abs=0.005)


def test_a_real_slowdown_within_the_threshold_passes():
    assert moved(between({ALL: 1.008})) == {}
    assert moved(between({ALL: 1.008}, thresholds={**grid.GATED, "seconds": 0.005})) == {
        (ALL, "seconds"): "slower"
    }


def test_faster_and_smaller_are_told_and_pass():
    found = between({SUBMODEL: 0.9}, heap=3e6)
    assert moved(found) == {
        (SUBMODEL, "seconds"): "faster",
        **{
            (case, "peak_heap_bytes"): "smaller"
            for case in (GROUP, GROUP.with_(strategy="single_block"), SUBMODEL)
        },
    }
    assert Outcome(found).exit_code == 0


def test_noise_wider_than_the_threshold_is_unclear_and_says_what_would_have_been_seen():
    found = [change for change in between({ALL: 1.02}, noise=0.05) if change.metric == "seconds"]
    assert {change.word for change in found} == {"unclear"}
    for change in found:
        assert change.smallest_detectable > 0.01
        assert change.reason == (
            f"a slowdown of less than {change.smallest_detectable:.1%} would not have been seen"
        )
    assert Outcome(found).exit_code == 0
    assert Outcome(found, strict=True).exit_code == 1


def test_fewer_than_five_blocks_are_unclear():
    found = [change for change in between({ALL: 1.5}, blocks=4) if change.timed]
    assert {change.word for change in found} == {"unclear"}
    assert found[0].reason == "fewer than 5 blocks: no interval"


def test_bytes_are_judged_without_noise_and_payload_exactly():
    assert not moved(between(heap=4.03e6))
    assert set(moved(between(heap=4.05e6)).values()) == {"larger"}
    assert moved(between(payload=3073.0)) == {(SUBMODEL, "payload_bytes"): "larger"}


def test_a_look_up_that_grows_faster_with_the_number_of_layers_is_slower():
    assert moved(between(slope=1.3)) == {(NAME, "lookup_seconds_per_layer"): "slower"}
    assert not moved(between(slope=1.05))


def test_a_look_ups_seconds_per_layer_are_the_median_of_its_rounds():
    table = stats.Table(gate_runs.run(gate_runs.alone(blocks=2)))
    assert log_slopes(table, "get_layer_name") == pytest.approx([math.log(1.2 * 2e-7)] * 2)


def test_a_layers_property_that_gets_faster_makes_no_look_up_slower():
    before, after = gate_runs.sides()
    faster = tuple(
        msgspec.structs.replace(m, values=tuple(value - m.case.layers * 5e-8 for value in m.values))
        if m.case.strategy == "layers_property"
        else m
        for m in after.measurements
    )
    found = gate.between_sides(
        before, msgspec.structs.replace(after, measurements=faster), grid.GATED, gate.SURE
    )
    layers = Case(model="lookup", strategy="layers_property")
    assert moved(found) == {(layers, "lookup_seconds_per_layer"): "faster"}


def test_what_vanished_crashed_or_became_wrong_is_missing_and_never_a_pass():
    before, after = gate_runs.sides()
    gone = msgspec.structs.replace(after, measurements=tuple(m for m in after.measurements if m.case != ALL))
    found = gate.between_sides(before, gone, grid.GATED, gate.SURE)
    assert moved(found) == {(ALL, "seconds"): "missing"}
    assert found[-1].reason == "measured before, and not after"
    assert Outcome(found).exit_code == 3
    for state in ("wrong", "crashed", "timeout", "out_of_memory", "skipped"):
        bad = [
            Measurement(case=m.case, metric=m.metric, state=state, reason="why", block=m.block)
            if (m.case, m.metric, m.block) == (ALL, "seconds", 3)
            else m
            for m in after.measurements
        ]
        failed = msgspec.structs.replace(after, measurements=tuple(bad))
        found = gate.between_sides(before, failed, grid.GATED, gate.SURE)
        assert ("missing", f"{state}: why") in {(change.word, change.reason) for change in found}
        assert Outcome(found).exit_code == 3
        both = gate.between_sides(failed, failed, grid.GATED, gate.SURE)
        assert Outcome(both).exit_code == (0 if state == "skipped" else 3)


@pytest.mark.parametrize("suite", planning.METRIC_OF_SUITE)
def test_what_is_not_compared_is_missed_where_it_failed(suite):
    """Growth, say, or the resident set."""
    before, after = gate_runs.sides()
    case, metric = ALL.with_(batch=9), planning.METRIC_OF_SUITE[suite]

    def adding(run, state, reason=""):
        values = (1.0,) if state == "ok" else ()
        more = Measurement(case=case, metric=metric, values=values, state=state, reason=reason)
        return msgspec.structs.replace(run, measurements=(*run.measurements, more))

    found = gate.between_sides(adding(before, "ok"), adding(after, "crashed", "why"), grid.GATED, gate.SURE)
    assert moved(found) == {(case, metric): "missing"}
    assert Outcome(found).exit_code == 3


def failing(run, case, metric, reason):
    """The run with a case crashed in all blocks."""
    return msgspec.structs.replace(
        run,
        measurements=tuple(
            Measurement(case=m.case, metric=m.metric, state="crashed", reason=reason, block=m.block)
            if (m.case, m.metric) == (case, metric)
            else m
            for m in run.measurements
        ),
    )


@pytest.mark.parametrize("after_reason", ["", OTHER_SIDE, "its own"])
def test_what_failed_before_cannot_be_compared_and_says_which_side_it_was(after_reason):
    before, after = gate_runs.sides()
    before = failing(before, ALL, "seconds", "no weights")
    if after_reason:
        after = failing(after, ALL, "seconds", after_reason)
    found = gate.between_sides(before, after, grid.GATED, gate.SURE)
    told = "crashed: its own" if after_reason == "its own" else "before: crashed: no weights"
    assert ("missing", told) in {(change.word, change.reason) for change in found if change.case == ALL}
    assert Outcome(found).exit_code == 3


def test_a_regression_is_told_before_a_missing_case():
    slow = Change(case=ALL, metric="seconds", word="slower", timed=True)
    lost = Change(case=SUBMODEL, metric="seconds", word="missing")
    same = Change(case=GROUP, metric="seconds", word="same")
    assert Outcome([same, slow, lost]).exit_code == 1
    assert Outcome([same, slow, lost], timings_advisory=True).exit_code == 3
    assert Outcome([same, slow], timings_advisory=True).exit_code == 0
    larger = Change(case=ALL, metric="traces", word="larger")
    assert Outcome([larger], timings_advisory=True).exit_code == 1
    assert Outcome([]).exit_code == Outcome([lost]).exit_code == 5


# -- statistics --


def test_holm_adjusts_step_by_step():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize(
    ("metric", "before", "after", "word"),
    [
        ("peak_heap_bytes", 500_994.0, 508_990.0, "same"),  # identical code, seen
        ("peak_heap_bytes", 500_000.0, 500_000.0 + 2**14, "same"),
        ("peak_heap_bytes", 500_000.0, 500_001.0 + 2**14, "larger"),
        ("peak_heap_bytes", 500_001.0 + 2**14, 500_000.0, "smaller"),
        ("peak_heap_bytes", 500_000.0 + 2**14, 500_000.0, "same"),
        ("payload_bytes", 500_000.0, 508_000.0, "larger"),
    ],
)
def test_a_heap_that_moves_by_less_than_its_smallest_step_is_the_same(metric, before, after, word):
    (change,) = judge([Evidence(ALL, metric, before, after)], {metric: 0.01}, gate.SURE)
    assert change.word == word


def test_pairs_are_judged_by_a_one_sample_t_test_and_runs_apart_by_welchs():
    generator = np.random.default_rng(0)
    shifts, earlier, later = (
        tuple(generator.normal(*normal)) for normal in ((0.02, 0.01, 8), (0, 0.01, 6), (0.03, 0.02, 9))
    )
    for evidence, test in (
        (Evidence(ALL, "seconds", 1, 1, shifts=shifts), scipy_stats.ttest_1samp(shifts, 0)),
        (
            Evidence(ALL, "seconds", 1, 1, earlier=earlier, later=later),
            scipy_stats.ttest_ind(later, earlier, equal_var=False),
        ),
    ):
        low, high = test.confidence_interval()
        chance = test.pvalue / 2
        above, below = (
            judge([evidence], {"seconds": 0.0}, alpha)[0] for alpha in (chance * 1.01, chance * 0.99)
        )
        assert (above.word, below.word == "slower") == ("slower", False)
        assert (math.log(above.low), math.log(above.high)) == pytest.approx((low, high))


def test_more_cases_ask_for_stronger_evidence():
    weak = Evidence(ALL, "seconds", 1, 1, shifts=(0.02, 0.05, 0.03, 0.01, 0.04))
    none = [Evidence(SUBMODEL, "seconds", 1, 1, shifts=(-0.01, 0.01, 0.02, -0.02, 0.0))] * 20
    thresholds = {"seconds": 0.01}
    assert judge([weak], thresholds, 0.01)[0].word == "slower"
    assert judge([weak, *none], thresholds, 0.01)[0].word == "unclear"


def test_a_suspicion_stands_only_when_it_is_seen_again():
    def change(word, ratio, metric="seconds"):
        return Change(case=ALL, metric=metric, word=word, ratio=ratio, timed=True)

    first = [change("slower", 1.04), change("same", 1.0, "traces")]
    assert gate.suspects(first) == [ALL]
    assert gate.confirmed(first, [change("slower", 1.05)]) == [change("slower", 1.05), first[1]]
    (dropped, _) = gate.confirmed(first, [change("unclear", 1.001)])
    assert (dropped.word, dropped.ratio) == ("unclear", 1.001)
    assert dropped.reason == "seemed slower at first (1.040), not when measured again"
    assert gate.confirmed(first, []) == first
    assert gate.confirmed(first, [change("missing", None)]) == first


def decided(generator, slower, threshold, confirmed):
    """Which of three ways are told to be slower, of which the first is, measured twice in eight blocks; and
    what is said to be detectable of the first."""

    def judged(shifts, alpha):
        found = [Evidence(case, "seconds", 1, 1, shifts=some) for case, some in shifts.items()]
        return {change.case: change for change in judge(found, {"seconds": threshold}, alpha, confirmed)}

    def blocks(case):
        return tuple(generator.normal(slower if case is ALL else 0.0, 0.01, 8))

    first = judged({case: blocks(case) for case in (ALL, SUBMODEL, GROUP)}, gate.SUSPECT)
    suspected = [case for case, change in first.items() if change.word == "slower"]
    again = judged({case: blocks(case) for case in suspected}, confirmed) if suspected else {}
    told = {case for case, change in again.items() if change.word == "slower"}
    return told, first[ALL].smallest_detectable


def told_of(threshold, confirmed):
    """The share of decisions that tell of noise alone, and of a slowdown as large as is said to be detectable
    in the mean."""
    generator = np.random.default_rng(0)
    found = [decided(generator, 0.0, threshold, confirmed) for _ in range(3000)]
    slower = math.log1p(np.mean([detectable for _, detectable in found]))
    seen = [ALL in decided(generator, slower, threshold, confirmed)[0] for _ in range(2000)]
    return np.mean([bool(told) for told, _ in found]), np.mean(seen)


def test_both_times_together_are_wrong_in_one_of_a_hundred_and_see_what_is_said_to_be_detectable():
    """By simulation, without a threshold: noise alone is told in 1 % of the decisions at most, a slowdown as
    large as `smallest_detectable` in 80 %."""
    assert told_of(0.0, gate.CONFIRMED) == pytest.approx((0.009, 0.80), abs=0.03)
    assert told_of(0.0, gate.CONFIRMED)[0] == pytest.approx(0.009, abs=0.004)


@pytest.mark.parametrize(
    ("threshold", "confirmed"), [(0.01, gate.CONFIRMED), (0.03, gate.CONFIRMED), (0.0, gate.SURE)]
)
def test_what_is_said_to_be_detectable_is_told_beyond_a_threshold_and_by_a_stricter_second_time(
    threshold, confirmed
):
    alarms, seen = told_of(threshold, confirmed)
    assert alarms < 0.009
    assert seen == pytest.approx(0.80, abs=0.05)


def test_what_seems_faster_is_not_measured_again_and_needs_more():
    faster = [Evidence(ALL, "seconds", 1, 1, shifts=(-0.02, -0.05, -0.03, 0.01, -0.03))]
    assert judge(faster, {"seconds": 0.01}, gate.SUSPECT)[0].word != "faster"
    slower = [Evidence(ALL, "seconds", 1, 1, shifts=(0.02, 0.05, 0.03, -0.01, 0.03))]
    assert judge(slower, {"seconds": 0.01}, gate.SUSPECT)[0].word == "slower"
    assert judge(slower, {"seconds": 0.01}, gate.SURE)[0].word == "unclear"


# -- against a baseline --


@pytest.fixture
def baseline():
    return gate.keep(gate_runs.run(gate_runs.alone()), "run")


def against(baseline, **changes):
    found = gate_runs.run(gate_runs.alone(**changes))
    return gate.against_baseline(baseline, found, grid.GATED, gate.SURE)


def test_a_baseline_holds_what_travels_and_no_seconds(baseline):
    assert {kept.metric for kept in baseline.kept} == {
        "overhead_ratio",
        "lookup_slope_ratio",
        "peak_heap_bytes",
        "payload_bytes",
        "traces",
    }
    ratios = {kept.case: kept.logs for kept in baseline.kept if kept.metric == "overhead_ratio"}
    assert set(ratios) == {SUBMODEL, ALL}
    assert np.exp(np.mean(ratios[ALL])) == pytest.approx(1.05, rel=1e-3)
    slopes = {kept.case: kept.logs for kept in baseline.kept if kept.metric == "lookup_slope_ratio"}
    assert np.exp(slopes[NAME]) == pytest.approx(2.0)


def test_what_is_measured_again_has_settings_of_its_own(baseline):
    """Where it is memory alone: its processes have other settings than those that take times."""
    again = gate_runs.run(
        gate_runs.memory(heap=5e6), environments=[gate_runs.environment(settings={"PYTHONMALLOC": "malloc"})]
    )
    found = gate.against_baseline(baseline, again, grid.GATED, gate.SURE, part=True)
    assert {change.word for change in found if change.metric == "peak_heap_bytes"} == {"larger"}
    with pytest.raises(NotComparableError, match="settings were"):
        gate.against_baseline(baseline, again, grid.GATED, gate.SURE)


def test_a_run_that_does_not_tell_where_it_was_measured_is_no_baseline():
    with pytest.raises(UserError, match=r"^run: does not tell where it was measured: it is damaged$"):
        gate.keep(gate_runs.run(gate_runs.alone(), environments=()), "run")


def test_a_run_like_the_baseline_passes_on_a_machine_of_any_speed(baseline):
    found = against(
        baseline, factors={case: 3 * factor for case, factor in ((GROUP, 1), (SUBMODEL, 1.02), (ALL, 1.05))}
    )
    assert moved(found) == {}
    assert Outcome(found).exit_code == 0


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"factors": {ALL: 1.09}}, {(ALL, "overhead_ratio"): "slower"}),
        ({"factors": {ALL: 1.01}}, {(ALL, "overhead_ratio"): "faster"}),
        (
            {"traces": 2},
            {(case, "traces"): "larger" for case in (GROUP, SUBMODEL, ALL, GROUP.with_(strategy=TWIN))},
        ),
        ({"payload": 6144.0}, {(SUBMODEL, "payload_bytes"): "larger"}),
        ({"slope": 1.5}, {(NAME, "lookup_slope_ratio"): "slower"}),
    ],
)
def test_what_moved_since_the_baseline_is_named(baseline, changes, expected):
    assert moved(against(baseline, **changes)) == expected


def test_a_figure_that_the_baseline_lacks_is_unclear_and_says_what_to_do(baseline):
    """Or it could grow for ever and pass."""
    older = msgspec.structs.replace(
        baseline, kept=tuple(kept for kept in baseline.kept if kept.metric != "payload_bytes")
    )
    found = against(older)
    assert moved(found) == {(SUBMODEL, "payload_bytes"): "unclear"}
    (new,) = [change for change in found if change.metric == "payload_bytes"]
    assert (new.after, new.reason) == (
        3072.0,
        "not in the baseline: `hiddencost baseline RUN` writes a new one",
    )
    assert (Outcome(found).exit_code, Outcome(found, strict=True).exit_code) == (0, 1)
    part = gate.against_baseline(older, gate_runs.run(gate_runs.alone()), grid.GATED, gate.SURE, part=True)
    assert moved(part) == {}


def test_a_baseline_is_read_as_it_was_written_and_damage_is_told(baseline, tmp_path):
    path = tmp_path / "baseline.json"
    gate.write(baseline, path)
    assert gate.read(path) == baseline
    whole = path.read_text()
    path.write_text(whole[:-40])
    with pytest.raises(UserError, match=r"baseline .*baseline\.json: damaged: "):
        gate.read(path)
    path.write_text(whole.replace('"schema_version": 1', '"schema_version": 99'))
    with pytest.raises(NotComparableError, match="has schema 99, this hiddencost 1"):
        gate.read(path)
    path.write_text("[]")
    with pytest.raises(UserError, match="damaged"):
        gate.read(path)
    with pytest.raises(UserError, match=r"cannot be read .*`hiddencost baseline RUN` writes one"):
        gate.read(tmp_path / "none.json")


def test_other_conditions_or_another_grid_are_not_comparable(baseline):
    run = gate_runs.run(gate_runs.alone())
    threads = (gate_runs.environment(threads={"intra_op": 2, "inter_op": 1}),)
    with pytest.raises(NotComparableError, match=r"threads were .* in the baseline and are "):
        gate.against_baseline(
            baseline, msgspec.structs.replace(run, environments=threads), grid.GATED, gate.SURE
        )
    other = grid.parse(gate_runs.PLAN.replace("length = [8]", "length = [9]"), "plan")
    with pytest.raises(NotComparableError, match="plans 13 cases, this run's 13, and they share 8"):
        gate.against_baseline(baseline, gate_runs.run(gate_runs.alone(), other), grid.GATED, gate.SURE)


def test_a_run_that_does_not_hold_its_plan_is_not_comparable(baseline):
    run = gate_runs.run(gate_runs.alone())
    old = msgspec.structs.replace(run, header=msgspec.structs.replace(run.header, plan=""))
    with pytest.raises(NotComparableError, match="does not hold its plan: an older hiddencost"):
        gate.against_baseline(baseline, old, grid.GATED, gate.SURE)


def test_other_versions_are_told_and_compared(baseline):
    newer = gate_runs.environment(versions={"keras": "3.16.0", "tensorflow": "2.21.0"}, python="3.12.1")
    run = gate_runs.run(gate_runs.alone(), environments=(newer,))
    assert moved(gate.against_baseline(baseline, run, grid.GATED, gate.SURE)) == {}
    assert changed_versions(baseline, run) == [
        "keras 3.15.1 before, 3.16.0 after",
        "Python 3.11.9 before, 3.12.1 after",
    ]


def test_a_baseline_is_made_of_a_run_without_failures_only():
    """One that failed could never be compared, and every later gate would say so."""
    bad = failing(gate_runs.run(gate_runs.alone()), ALL, "seconds", "why")
    with pytest.raises(
        UserError, match=r"^run: 1 failed, and no later run could be compared: .* \(crashed: why\)"
    ):
        gate.keep(bad, "run")


def test_a_baseline_is_made_of_a_complete_run_only():
    with pytest.raises(UserError, match=r"^run: not complete: `hiddencost run --resume run` measures"):
        gate.keep(gate_runs.run(gate_runs.alone(), how="interrupted"), "run")
    with pytest.raises(UserError, match="measured nothing that a gate compares"):
        gate.keep(gate_runs.run([]), "run")


# -- what is told --


def test_the_table_says_what_moved_and_nothing_else():
    slow = Change(
        case=ALL, metric="seconds", word="slower", before=0.01, after=0.0105,
        ratio=1.05, low=1.04, high=1.06, timed=True,
    )  # fmt: skip
    same = Change(case=GROUP, metric="seconds", word="same", before=0.01, after=0.01, ratio=1.0)
    larger = Change(
        case=SUBMODEL, metric="peak_heap_bytes", word="larger", before=2**20, after=2**21, ratio=2.0
    )
    found = Outcome([same, slow, larger], ["keras 1 before, 2 after"])
    table = gate.as_lines(found)
    assert table[:2] == ["Regression. 1 slower, 1 larger, 1 same.", ""]
    assert table[2].split() == ["case", "metric", "before", "after", "after", "/", "before", "verdict"]
    assert [line.split()[-1] for line in table[3:5]] == ["slower", "larger"]
    assert "1.050 [1.040, 1.060]" in table[3]
    assert "+100.0 %" in table[4]
    assert table[-1] == "note: keras 1 before, 2 after"
    assert gate.as_markdown(found).splitlines()[:5] == [
        "### ❌ hiddencost gate",
        "",
        "Regression. 1 slower, 1 larger, 1 same.",
        "",
        "| case | metric | before | after | after / before | verdict |",
    ]
    assert (
        "| bert_tiny-graph-1x8-always_return_all-all | seconds | 10.0 ms | 10.5 ms "
        "| 1.050 [1.040, 1.060] | slower |" in gate.as_markdown(found)
    )
    told = json.loads(gate.as_json(found))
    assert (told["exit_code"], len(told["changes"])) == (1, 3)
    advisory = Outcome([same, slow], timings_advisory=True)
    assert gate.as_lines(advisory)[0] == "No regression. 1 slower, 1 same."
    assert gate.as_lines(advisory)[3].endswith("slower (advisory)")


def test_a_reason_of_several_lines_stays_in_its_row():
    """As TensorFlow's errors have: it would end a table of Markdown."""
    why = "crashed: block 0: InternalError: Graph execution error:\n\nDetected at node\t'x'"
    found = Outcome([Change(case=ALL, metric="seconds", word="missing", reason=why)])
    told = "missing: crashed: block 0: InternalError: Graph execution error: Detected at node 'x'"
    assert gate.as_lines(found)[-1].endswith(told)
    assert gate.as_markdown(found).splitlines()[-1].endswith(f"| {told} |")


def test_each_outcome_has_its_sentence():
    def first_line(*words, **options):
        changes = [Change(case=ALL, metric="seconds", word=word, timed=True) for word in words]
        return gate.as_lines(Outcome(changes, **options))[0]

    assert first_line("same", "same") == "No regression. 2 same."
    assert first_line("same", "unclear") == "No regression. 1 unclear, 1 same."
    assert first_line("unclear", strict=True) == "Unclear, which --strict does not pass. 1 unclear."
    assert first_line("missing", "same") == "Cases are missing or failed. 1 missing, 1 same."
    assert first_line() == "Nothing was measured."


# -- what is measured --


def test_a_suspected_case_is_measured_again_with_its_reference_and_nothing_else():
    (job, *_), memory = planning.timed_jobs(PLANNED), planning.memory_jobs(PLANNED)
    (again,) = planning.only([job], [ALL])
    assert [task.case for task in again.tasks] == [GROUP, GROUP.with_(strategy=TWIN), ALL]
    (looked,) = planning.only([job], [NAME])
    assert {task.suite for task in looked.tasks} == {"lookup"}
    assert len(looked.tasks) == 8
    assert [[task.case for task in one.tasks] for one in planning.only(memory, [SUBMODEL])] == [[SUBMODEL]]
    assert planning.only([job], [GROUP.with_(length=99)]) == []


@pytest.mark.parametrize("baseline", [False, True])
def test_what_is_measured_twice_on_both_sides_needs_both_chances_and_a_baseline_serves_twice(
    baseline, monkeypatch, tmp_path
):
    judging = sys.modules["hiddencost.cli.gate"]
    chances = []

    def found(before, after, thresholds, alpha, part=False):
        chances.append(alpha)
        return [Change(case=ALL, metric="seconds", word="slower", timed=True)]

    monkeypatch.setattr(judging, "warn", lambda jobs: ())
    monkeypatch.setattr(judging, "measured", lambda *_: None)
    monkeypatch.setattr(judging, "_run_sides", lambda *_: None)
    monkeypatch.setattr(judging, "changed_versions", lambda *_: [])
    monkeypatch.setattr(judging.store, "read", lambda folder: gate_runs.run([]))
    monkeypatch.setattr(gate, "between_sides", found)
    monkeypatch.setattr(gate, "against_baseline", found)
    if baseline:
        known = gate.keep(gate_runs.run(gate_runs.alone()), "first")
        gate.write(known, tmp_path / "baseline.json")
        judging._with_baseline(None, tmp_path / "baseline.json", tmp_path / "run", None)
        assert chances == [gate.SUSPECT, gate.SURE]
    else:
        judging.decide((None, None), PLANNED, "", tmp_path / "run", grid.GATED)
        assert chances == [gate.SUSPECT, gate.CONFIRMED]
        assert math.prod(chances) == pytest.approx(gate.SURE)


@pytest.mark.parametrize("keep", [True, False])
def test_both_sides_load_one_anothers_programs_where_the_grid_keeps_them(keep, monkeypatch, tmp_path):
    """A GPU's compiler chooses among kernels by trying them: code that is the same must not run others."""
    judging = sys.modules["hiddencost.cli.gate"]
    started = []

    class Noted:
        def __init__(self, python, environment, log):
            started.append(environment)

        def await_ready(self):
            raise UserError("enough")

        def close(self):
            pass

    monkeypatch.setattr("hiddencost.nursery.Nursery", Noted)
    jobs = [msgspec.structs.replace(job, backend="jax") for job in planning.timed_jobs(PLANNED)]
    planned = msgspec.structs.replace(PLANNED, time=msgspec.structs.replace(PLANNED.time, keep_programs=keep))
    sides = trees.current(), trees.current()
    with pytest.raises(UserError, match="enough"):
        judging._run_sides(
            sides, planned, judging.header(planned, "", jobs), tmp_path / "run", jobs, [], None
        )
    folder = str(tmp_path / "run" / "programs") if keep else None
    assert [environment.get("JAX_COMPILATION_CACHE_DIR") for environment in started] == [folder] * 2


def test_side_by_side_a_budget_does_not_count(monkeypatch, tmp_path):
    """Each side would leave out what it has no time for, by a clock of its own."""
    judging, given = sys.modules["hiddencost.cli.gate"], []
    monkeypatch.setattr(judging, "_judged_twice", lambda folder, timed, *_: given.extend(timed))
    time = msgspec.structs.replace(PLANNED.time, budget=60.0)
    planned = msgspec.structs.replace(PLANNED, time=time)
    assert planning.timed_jobs(planned)[0].time.budget == 60.0
    judging.decide((None, None), planned, "", tmp_path / "run", grid.GATED)
    assert {job.time.budget for job in given} == {None}


def git(folder, *arguments):
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A checkout with two commits that differ in a source file."""
    root = tmp_path / "root"
    (root / "bench").mkdir(parents=True)
    (root / "src" / "hiddencost").mkdir(parents=True)
    (root / "src" / "hiddencost" / "nursery.py").write_text("")
    (root / "pyproject.toml").write_text("[project]\n")
    (root / "bench" / "a.toml").write_text("old")
    git(tmp_path, "init", "-q", str(root))
    git(root, "add", ".")
    git(root, "commit", "-qm", "one")
    (root / "bench" / "a.toml").write_text("new")
    git(root, "commit", "-qam", "two")
    monkeypatch.setattr(trees, "_checkout", lambda: root)
    return root


def test_a_commit_is_checked_out_beside_and_uses_this_environment_where_packages_are_the_same(
    repository, tmp_path, monkeypatch
):
    side = trees.other("HEAD~1", tmp_path / "trees")
    assert side.name.startswith("commit ")
    assert (side.bench / "a.toml").read_text() == "old"
    assert (repository / "bench" / "a.toml").read_text() == "new"
    assert side.python == trees.current().python
    monkeypatch.delenv("PYTHONPATH", raising=False)
    assert side.environment["PYTHONPATH"] == str(side.bench.parent / "src")
    monkeypatch.setenv("PYTHONPATH", "mine")  # where a model of one's own is looked for
    assert side.environment["PYTHONPATH"] == f"{side.bench.parent / 'src'}{os.pathsep}mine"
    (repository / "pyproject.toml").write_text("[project]\n# other packages\n")
    with pytest.raises(UserError, match=r"^the packages of .* cannot be set up: make: "):
        trees.other("HEAD~1", tmp_path / "trees")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match=r"cannot be set up: make is not installed$"):
        trees._own_environment(side.bench.parent)


def test_a_commit_with_changes_is_told_with_what_they_are(repository, monkeypatch):
    """Or a run could be resumed with other code than it was begun with."""
    monkeypatch.setattr(trees, "__file__", str(repository / "src" / "hiddencost" / "nursery.py"))
    clean = trees.git_commit()
    assert len(clean) == 12
    (repository / "README.md").write_text("of no matter")
    git(repository, "add", "README.md")
    assert trees.git_commit() == clean
    (repository / "bench" / "a.toml").write_text("newer")
    once = trees.git_commit()
    assert once.startswith(f"{clean}+")
    (repository / "bench" / "a.toml").write_text("newest")
    assert trees.git_commit().startswith(f"{clean}+")
    assert trees.git_commit() != once
    (repository / "bench" / "a.toml").write_text("newer")
    assert trees.git_commit() == once


def test_setting_up_packages_ends_with_all_that_it_has_started(tmp_path, monkeypatch):
    """As when someone presses Ctrl-C while pip works."""
    make = tmp_path / "make"
    make.write_text("#!/bin/sh\nsleep 60 & echo $! > started\nwait\n")
    make.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    def interrupt():
        while not (tmp_path / "started").is_file() or not (tmp_path / "started").read_text():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may ignore it
    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        trees._own_environment(tmp_path)
    signal.signal(signal.SIGINT, before)
    started = int((tmp_path / "started").read_text())
    for _ in range(500):
        if not psutil.pid_exists(started):
            return
        time.sleep(0.01)
    raise AssertionError("what make had started still runs")


def test_an_interpreter_measures_this_source(repository, tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\n")
    python.chmod(0o755)
    side = trees.other(str(python), tmp_path / "trees")
    assert (side.python, side.source) == (str(python), trees.current().source)


def test_neither_a_commit_nor_an_interpreter_is_one_line(repository, tmp_path):
    with pytest.raises(UserError) as caught:
        trees.other("mian", tmp_path / "trees")
    assert str(caught.value) == (
        "--against 'mian': neither a git commit of this checkout nor a Python interpreter"
    )


def test_a_commit_that_cannot_take_turns_is_not_comparable(repository, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    git(repository, "rm", "-q", "src/hiddencost/nursery.py")
    git(repository, "commit", "-qm", "three")
    with pytest.raises(NotComparableError, match=r"^commit \w{12} is older than measuring side by side$"):
        trees.other("HEAD", tmp_path / "trees")
    done = CliRunner().invoke(cli.main, ["gate", "--against", "HEAD", "--out", str(tmp_path / "run")])
    assert done.exit_code == 4
    assert done.stderr.startswith("hiddencost: not comparable: commit ")


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        ("99", NotComparableError, r"the other source speaks 99, this one 1\.2: records, turns"),
        ("", UserError, "cannot measure: No module named keras"),
    ],
)
def test_a_source_that_answers_otherwise_is_refused_in_one_line(tmp_path, answer, error, words):
    python = tmp_path / "python"
    python.write_text(
        f"#!{sys.executable}\n"
        "import os, sys\n"
        f"os.write(int(sys.argv[3]), b'{answer}') if '{answer}' else print('No module named keras')\n"
    )
    python.chmod(0o755)
    with open(tmp_path / "log", "wb") as log:
        nursery = Nursery(str(python), {}, log)
        with pytest.raises(error, match=words):
            nursery.await_ready()
        nursery.close()


def test_an_executable_that_is_no_program_is_told_in_one_line(tmp_path):
    python = tmp_path / "python"
    python.write_bytes(b"\0")
    python.chmod(0o755)
    with open(tmp_path / "log", "wb") as log, pytest.raises(UserError) as caught:
        Nursery(str(python), {}, log)
    assert str(caught.value) == f"{python} cannot measure: Exec format error"


def test_a_nursery_that_ended_is_told_in_one_line_and_one_that_hangs_is_ended(tmp_path):
    python = tmp_path / "python"
    head = f"#!{sys.executable}\nimport os, sys, time\n"
    spoken = f"os.write(int(sys.argv[3]), b'{SPOKEN}')\n"
    python.write_text(head + spoken + "print('Cannot allocate memory')\n")
    python.chmod(0o755)
    with open(tmp_path / "log", "wb") as log:
        nursery = Nursery(str(python), {}, log)
        nursery.await_ready()
        for _ in range(2):  # while it ends, and after it
            with pytest.raises(UserError, match=r"python cannot measure: Cannot allocate memory \(see "):
                nursery.start([], {}, log)
            nursery._process.wait()
        nursery.close()
        python.write_text(head + "time.sleep(600)\n")
        hanging = Nursery(str(python), {}, log)
        hanging.close()
        assert hanging._process.returncode == -signal.SIGKILL


def test_a_job_does_not_tell_what_has_its_default():
    """So that a source that is older than a new key can read it."""
    (job, *_) = planning.timed_jobs(PLANNED)
    told = msgspec.json.decode(msgspec.json.encode(job))
    assert set(told) == {"block", "seed", "time", "tasks"}
    assert set(told["time"]) == {"blocks"}


def test_a_forked_workers_end_is_told_once_to_whoever_asks():
    """One thread waits while others poll: none of them may take the closed socket for another end."""
    for code in (0, 3, -11):
        mine, theirs = socket.socketpair()
        worker, found = Forked(1, mine), []
        threads = [threading.Thread(target=lambda w=worker, f=found: f.append(w.wait())) for _ in range(4)]
        for thread in threads:
            thread.start()
        assert worker.poll() is None
        theirs.send(NUMBER.pack(code))
        theirs.close()
        for thread in threads:
            thread.join(10)
        assert found == [code] * 4
        assert worker.poll() == code
    mine, theirs = socket.socketpair()
    theirs.close()
    assert Forked(1, mine).wait() == -9  # the nursery died, and its workers with it
