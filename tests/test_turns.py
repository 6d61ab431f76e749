"""Workers and their conductor: who calls what, when, and what happens when one of them ends."""

import socket
import threading
from random import Random

import pytest

from hiddencost.turns import Offer, Turns, conduct, in_any_order, there_and_back


def conducted(workers, one_round, least=2):
    """Runs each function in a thread with its end of the turns, until all have ended; what they have called:
    (number of the worker, case, places), in order."""
    pairs = [socket.socketpair() for _ in workers]
    called = []

    def work(number, function):
        theirs = pairs[number][1]

        def visit(name, places):
            called.append((number, name, list(places)))

        with theirs:
            function(Turns(theirs), visit)

    threads = [threading.Thread(target=work, args=pair, daemon=True) for pair in enumerate(workers)]
    for thread in threads:
        thread.start()
    conduct([mine for mine, _ in pairs], one_round, least, "seed")
    for mine, _ in pairs:
        mine.close()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    return called


def offers(calls, seconds=0.0):
    return lambda turns, visit: turns.play(Offer(calls, seconds), visit)


def test_a_side_without_another_calls_nothing():
    assert conducted([offers({"x": 1})], there_and_back(0)) == []


@pytest.mark.parametrize("leader", [0, 1])
def test_two_sides_call_what_both_can_run_there_and_back(leader):
    other = 1 - leader
    called = conducted([offers({"x": 1, "y": 2}), offers({"y": 3, "z": 2})], there_and_back(leader))
    assert called == [
        (leader, "y", [0, 1, 2]),
        (other, "y", [3, 4, 5, 6, 7, 8]),
        (leader, "y", [9, 10, 11]),
        (leader, "y", [12, 13, 14]),
        (other, "y", [15, 16, 17, 18, 19, 20]),
        (leader, "y", [21, 22, 23]),
    ]


def test_any_number_of_workers_call_every_case_once_a_round_in_a_new_order():
    called = conducted([offers({"a": 1}), offers({"b": 2, "c": 1}), offers({"d": 1})], in_any_order, least=20)
    rounds = [[(number, name) for number, name, _ in called[i : i + 4]] for i in range(0, 80, 4)]
    assert all(sorted(one) == [(0, "a"), (1, "b"), (1, "c"), (2, "d")] for one in rounds)
    assert len({tuple(one) for one in rounds}) > 10
    assert [place for _, _, places in called for place in places] == list(range(5 * 20))


def test_the_longest_time_that_is_offered_counts():
    few = conducted([offers({"a": 1}), offers({"b": 1})], in_any_order)
    many = conducted([offers({"a": 1}, seconds=0.2), offers({"b": 1})], in_any_order)
    assert len(few) == 4
    assert len(many) > 4


def test_alone_is_one_after_the_other_and_before_what_is_called_together():
    log = []

    def worker(name):
        def work(turns, visit):
            with turns.alone():
                log.append(f"{name} begins")
                log.append(f"{name} ends")
            turns.play(Offer({"x": 1}), lambda case, places: log.append(case))

        return work

    conducted([worker("a"), worker("b"), worker("c")], in_any_order, least=1)
    assert log == ["a begins", "a ends", "b begins", "b ends", "c begins", "c ends", "x", "x", "x"]


def test_a_worker_that_ends_leaves_the_others_to_go_on():
    def ends(turns, visit):
        turns._say(Offer({"x": 1, "y": 1}))
        turns._hear()  # is given a turn, and ends

    called = conducted([ends, offers({"x": 1}), offers({"x": 1})], in_any_order, least=3)
    assert [number for number, _, _ in called].count(1) == 3
    assert [number for number, _, _ in called].count(2) == 3
    assert conducted([ends, offers({"x": 1})], there_and_back(0), least=3) in ([], [(1, "x", [1, 2])])


def test_a_worker_with_nothing_to_call_is_no_hindrance():
    assert conducted([offers({}), offers({})], there_and_back(0)) == []
    assert len(conducted([offers({}), offers({"x": 1})], in_any_order)) == 2
    assert in_any_order([{}, {}], Random(1)) == []
