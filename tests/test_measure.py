"""One group: values first, then paired times; a bad case costs one case."""

import gc
import itertools
import os
import time
from types import SimpleNamespace

import msgspec
import pytest

from hiddencost import backends, growth, lookups, measure, rotation, stats, strategies
from hiddencost.grid import Time
from hiddencost.grid.planning import Fault, Task
from hiddencost.records import REFERENCE, TWIN, Case
from hiddencost.strategies import Extraction, Strategy
from hiddencost.suites import Replay

CASE = Case(model="bert_tiny", strategy=REFERENCE, batch=1, length=8)


def tasks(*cases, seconds=0.1):
    return [Task(suite="forward", case=case, seconds=seconds) for case in cases]


def group(process, *cases, seconds=0.1):
    """The measurements of a group with reference and twin, by (strategy, metric)."""
    planned = tasks(CASE, CASE.with_(strategy=TWIN), *cases, seconds=seconds)
    return {(m.case.strategy, m.metric): m for m in rotation.rotation(process, planned)}


def added(monkeypatch, name, build):
    """A strategy of the tests' own."""
    monkeypatch.setattr(strategies, "STRATEGIES", (*strategies.STRATEGIES, Strategy(name, "", build)))
    return CASE.with_(strategy=name, points="last")


def test_every_case_of_a_group_has_a_time_from_every_round(process, tiny):
    found = group(process, CASE.with_(strategy="functional_submodel", points="all"))
    calls = {name: len(m.values) for (name, metric), m in found.items() if metric == "seconds"}
    rounds = calls["functional_submodel"]
    assert rounds >= 4
    assert calls == {REFERENCE: 3 * rounds, TWIN: 3 * rounds, "functional_submodel": rounds}
    places = sorted(place for m in found.values() for place in m.places)
    assert places == list(range(7 * rounds))
    times = [m for m in found.values() if m.metric == "seconds"]
    assert {m.case: m.effect for m in times} == stats.rotation_effects(times)
    assert found["functional_submodel", "output_bytes"].values == (3 * 8 * 128 * 4,)
    assert found["functional_submodel", "payload_bytes"].values == (3 * 8 * 128 * 4,)
    assert found["functional_submodel", "build_seconds"].values[0] > 0
    assert found["functional_submodel", "max_abs_difference"].values[0] <= measure.TOLERANCE["float32"]


def test_no_call_finds_what_others_left_to_the_collector(process, tiny, monkeypatch):
    """Each is timed with an empty youngest generation, as far as its own call has not filled it."""

    class Cycle:
        pass

    def leaving(model, points, wanted):
        right = strategies.functional_submodel(model, points, wanted)

        def run(inputs):
            found.append(sum(isinstance(one, Cycle) for one in gc.get_objects(generation=0)))
            left = Cycle()
            left.itself = left
            return right(inputs)

        return Extraction(run)

    found = []
    group(process, *(added(monkeypatch, name, leaving) for name in "ab"))
    assert len(found) > 8
    assert set(found[4:]) == {0}  # before, each was called twice to be checked and warmed up


def test_bringing_the_states_to_the_host_is_timed_apart_from_computing_them(process, tiny, monkeypatch):
    def slow(tensor):
        copied.append(tensor)
        time.sleep(0.05)
        return to_numpy(tensor)

    def copies(rounds):
        copied.clear()
        settings = msgspec.structs.replace(process.settings, min_rounds=rounds)
        monkeypatch.setattr(process, "settings", settings)
        found = group(process, CASE.with_(strategy="functional_submodel", points="all"), seconds=0.01)
        assert found["functional_submodel", "host_copy_seconds"].values[0] >= 3 * 0.05
        assert len(found["functional_submodel", "seconds"].values) >= rounds
        return len(copied)

    copied: list[object] = []
    to_numpy = backends.to_numpy
    monkeypatch.setattr(backends, "to_numpy", slow)
    copies(2)  # the right values are brought to the host once, for all groups
    assert copies(2) == copies(8)
    predicted = [
        m
        for m in rotation.rotation(process, tasks(CASE.with_(mode="predict", examples=2)))
        if m.metric == "host_copy_seconds"
    ]
    assert predicted == []


def test_a_wrong_strategy_is_a_record_and_never_has_a_time(process, tiny, monkeypatch):
    def wrong(model, points, wanted):
        right = strategies.functional_submodel(model, points, wanted)
        return Extraction(lambda inputs: [state + 1e-3 for state in right.states(right(inputs))])

    found = group(process, added(monkeypatch, "wrong_way", wrong))
    assert found["wrong_way", "seconds"].state == "wrong"
    assert found["wrong_way", "seconds"].values == ()
    assert "values differ by" in found["wrong_way", "seconds"].reason
    assert found[REFERENCE, "seconds"].state == "ok"


def test_a_reason_does_not_tell_where_packages_lie():
    error = ValueError(
        "true_fun is f at /home/me/.venv/lib/python3.11/site-packages/keras_hub/src/sam.py:246"
    )
    assert measure.told(error) == "ValueError: true_fun is f at keras_hub/src/sam.py:246"


def test_a_strategy_that_raises_costs_one_case(process, tiny, monkeypatch):
    def broken(model, points, wanted):
        raise KeyError("no such layer")

    found = group(process, added(monkeypatch, "broken", broken))
    assert found["broken", "seconds"].state == "crashed"
    assert found["broken", "seconds"].reason == "KeyError: 'no such layer'"
    assert found[TWIN, "seconds"].state == "ok"


def test_a_strategy_that_this_version_lacks_costs_one_case(process, tiny):
    """As on the side of a gate that is older than the way: what takes turns has to stay in step."""
    found = group(process, CASE.with_(strategy="not_made_yet", points="all"))
    assert found["not_made_yet", "seconds"].state == "crashed"
    assert found["not_made_yet", "seconds"].reason == "no strategy is named 'not_made_yet' here"
    assert found[TWIN, "seconds"].state == "ok"


def test_points_that_the_model_lacks_are_a_record(process, tiny):
    found = group(process, CASE.with_(strategy="functional_submodel", points="last_four"))
    assert "points 'last_four' needs 4 blocks" in found["functional_submodel", "seconds"].reason


def test_a_group_without_its_reference_gives_no_times(process, tiny, monkeypatch):
    def broken(model, points, wanted):
        raise RuntimeError("no forward pass")

    broken_reference = [
        Strategy(s.name, s.summary, broken) if s.name == REFERENCE else s for s in strategies.STRATEGIES
    ]
    monkeypatch.setattr(strategies, "STRATEGIES", tuple(broken_reference))
    found = group(process)
    assert found[TWIN, "seconds"].state == "crashed"
    assert found[TWIN, "seconds"].reason == "the group's reference did not run"


def test_the_reported_ratio_is_the_work_that_was_added(process, tiny, monkeypatch):
    """A way that sleeps as long as the reference takes, beside it, is told as about twice as slow."""

    def slept(model, points, wanted):
        right = strategies.functional_submodel(model, points, wanted)

        def run(inputs):
            time.sleep(0.05)
            return right(inputs)

        return Extraction(run)

    found = group(process, added(monkeypatch, "slept", slept))
    assert min(found["slept", "seconds"].values) >= 0.05


def test_the_end_of_the_work_is_waited_for(process):
    """The time of a synchronized call grows with the work in it."""
    import tensorflow as tf

    square = tf.random.normal((400, 400))

    @tf.function
    def multiplied(times):
        product = square
        for _ in tf.range(times):
            product = tf.matmul(product, square) / 400.0
        return product

    def seconds(times):
        began = time.perf_counter()
        backends.synchronize(multiplied(tf.constant(times)))
        return time.perf_counter() - began

    seconds(1)
    few, many = min(seconds(5) for _ in range(3)), min(seconds(100) for _ in range(3))
    assert many > 5 * few


def fake_group(monkeypatch, durations):
    """A reference, a twin and a way whose calls take what `durations` says, on a fake clock in seconds."""
    clock = [0.0]
    monkeypatch.setattr(measure.time, "perf_counter_ns", lambda: int(clock[0] * 1e9))
    monkeypatch.setattr(measure.time, "perf_counter", lambda: clock[0])

    def call(taken):
        def run(placed):
            clock[0] += next(taken)

        return run

    names = (REFERENCE, TWIN, "way")
    return [
        rotation.Ready(CASE.with_(strategy=name), call(itertools.cycle(taken)))
        for name, taken in zip(names, durations, strict=True)
    ]


def test_exact_durations_need_no_more_than_the_pilot(process, monkeypatch):
    ready = fake_group(monkeypatch, [[0.01], [0.01], [0.02]])
    assert rotation._rounds(process, ready, seconds=1.6) == {}
    assert [len(r.seconds) for r in ready] == [15, 15, 5]  # 0.08 s a round, a quarter of 1.6 s
    assert set(ready[2].seconds) == {0.02}


def test_rounds_that_never_get_precise_end_with_the_time_and_say_so(process, monkeypatch):
    ready = fake_group(monkeypatch, [[0.01], [0.01, 0.03, 0.02], [0.01, 0.05, 0.01, 0.02]])
    notes = rotation._rounds(process, ready, seconds=2)
    rounds = len(ready[2].seconds)
    assert int(notes["rounds_wanted"]) > rounds
    assert 15 <= rounds <= 19  # of 0.11 s


def test_each_round_calls_every_case_in_a_new_order_and_the_reference_and_its_twin_more_often(process):
    called = []
    names = [REFERENCE, TWIN, *"abcdef"]
    ready = [
        rotation.Ready(CASE.with_(strategy=name), lambda placed, name=name: called.append(name))
        for name in names
    ]
    rotation._rounds(process, ready, seconds=1e-9)
    assert called[:8] == names  # a warm call each
    rounds = [tuple(called[i : i + 12]) for i in range(8, len(called), 12)]
    assert len(rounds) == len(set(rounds)) == 4
    assert all(sorted(order) == sorted([*names, *(REFERENCE, TWIN) * 2]) for order in rounds)
    assert [len(r.seconds) for r in ready] == [12, 12] + [4] * 6
    assert sorted(place for r in ready for place in r.places) == list(range(48))


def test_compiled_calls_of_one_thread_are_made_on_one_core_and_what_follows_on_all(process, monkeypatch):
    if not hasattr(os, "sched_getaffinity"):
        pytest.skip("this system does not bind threads to cores")
    cores, seen = os.sched_getaffinity(0), {}
    for mode in ("eager", "graph", "xla", "predict"):
        case = CASE.with_(mode=mode)
        look = rotation.Ready(case, lambda _, m=mode: seen.setdefault(m, []).append(os.sched_getaffinity(0)))
        rotation._rounds(process, [look], seconds=1e-9)
    assert seen["graph"][1:] == seen["xla"][1:] == [{max(cores)}] * 12
    assert seen["eager"] == seen["predict"] == [cores] * 13
    assert os.sched_getaffinity(0) == cores
    monkeypatch.setattr(process.settings, "threads", 2)
    rotation._rounds(process, [rotation.Ready(CASE.with_(mode="graph"), look.run)], seconds=1e-9)
    assert seen["predict"][-1] == cores


def test_by_turns_a_case_that_fails_offers_no_calls_that_others_would_make(process):
    def fails(placed):
        raise RuntimeError("deleted")

    ready = [
        rotation.Ready(CASE.with_(strategy="fails"), fails),
        rotation.Ready(CASE.with_(strategy="way"), lambda placed: time.sleep(0.01)),
    ]
    offered = []
    turns = SimpleNamespace(play=lambda offer, visit: offered.append(offer.calls))
    rotation._rounds_in_turn(turns, process, ready, 1.0)
    (calls,) = offered
    assert {name: 1 <= count <= 6 for name, count in calls.items()} == {str(ready[1].case): True}


def test_the_order_of_a_block_follows_from_the_seed():
    cases = [CASE.with_(strategy=str(i)) for i in range(20)]
    orders = {
        (seed, block): tuple(measure.Process(block, seed, Time()).shuffled(cases, "g"))
        for seed, block in [(1, 0), (1, 0), (1, 1), (2, 0)]
    }
    assert len(set(orders.values())) == 3
    assert sorted(map(str, orders[1, 1])) == sorted(map(str, cases))
    assert orders[1, 0] == tuple(measure.Process(0, 1, Time()).shuffled(cases, "g"))


@pytest.mark.parametrize("way", ["get_layer_name", "get_layer_index", "layers_property", "dict_in_advance"])
def test_look_ups_find_the_layer_that_they_say(process, way):
    case = Case(model="lookup", strategy=way, layers=12, position=7)
    model = lookups._lookup_model(12)
    assert len(model.layers) == 12
    found = lookups.lookup_call(case)()
    assert (found[7] if way == "layers_property" else found) is model.layers[7]


def test_the_replay_gives_pytest_benchmark_the_recorded_durations():
    timer = Replay()
    call = timer.play([0.5, 0.25, 2.0])
    taken = []
    for _ in range(3):
        began = timer()
        call()
        taken.append(timer() - began)
    assert taken == [0.5, 0.25, 2.0]


def test_values_that_are_not_a_number_are_wrong(process, tiny, monkeypatch):
    def empty(model, points, wanted):
        right = strategies.functional_submodel(model, points, wanted)
        return Extraction(lambda inputs: [state * float("nan") for state in right.states(right(inputs))])

    found = group(process, added(monkeypatch, "empty", empty))
    assert found["empty", "seconds"].state == "wrong"
    assert found["empty", "seconds"].reason == "values differ by nan of the largest, more than 1e-05"


def test_a_way_that_raises_in_its_rotation_costs_itself_only(process, tiny, monkeypatch):
    def tired(model, points, wanted):
        right = strategies.functional_submodel(model, points, wanted)
        calls = itertools.count()

        def run(inputs):
            if next(calls) == 3:
                raise MemoryError("no more")
            return right(inputs)

        return Extraction(run)

    found = group(process, added(monkeypatch, "tired", tired))
    assert found["tired", "seconds"].state == "crashed"
    assert found["tired", "seconds"].reason == "MemoryError: no more"
    assert found[TWIN, "seconds"].state == "ok"
    assert len(found[TWIN, "seconds"].values) == len(found[REFERENCE, "seconds"].values)


def test_a_rotation_whose_reference_raises_gives_no_times(process, monkeypatch):
    ready = fake_group(monkeypatch, [[0.01], [0.01], [0.01]])
    calls = itertools.count()

    def run(placed):
        if next(calls) == 2:
            raise RuntimeError("gone")

    ready[0].run = run
    rotation._rounds(process, ready, seconds=1)
    assert ready[0].failed == "RuntimeError: gone"


def test_the_growth_suites_results_are_checked_too(process, tiny):
    case = CASE.with_(strategy="functional_submodel_per_call", points="middle", mode="graph")
    call, _ = growth.growth_call(process, case)
    assert growth.growth_difference(process, case, call()) <= measure.TOLERANCE["float32"]
    other, _ = growth.growth_call(process, case.with_(points="last"))
    with pytest.raises(measure.WrongValuesError):
        growth.growth_difference(process, case, other())


def test_bytes_are_stored_exactly_and_seconds_to_six_digits(process):
    assert process.measurement(CASE, "payload_bytes", [2752512]).values == (2752512.0,)
    assert process.measurement(CASE, "seconds", [0.123456789]).values == (0.123457,)


def test_a_call_that_is_made_slower_waits_for_its_share(monkeypatch):
    """The clock ticks by 1 ms at each reading, the first of which sees 10 ms gone."""
    ticks = itertools.count(10_000_000, 1_000_000)
    monkeypatch.setattr(rotation.time, "perf_counter_ns", lambda: next(ticks))
    worse = Fault(strategy="always_return_all", slower=0.5)
    assert rotation.seconds_since(0, worse) == pytest.approx(0.015)
    assert next(ticks) == 16_000_000
    ticks = itertools.count(10_000_000, 1_000_000)
    alike = msgspec.structs.replace(worse, untimed=True)
    assert rotation.seconds_since(0, alike) == pytest.approx(0.010)
    assert next(ticks) == 16_000_000  # it waited all the same
    assert rotation.seconds_since(0) == pytest.approx(0.017)
