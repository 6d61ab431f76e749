"""The fastest way to read each kind of points: who wins, what it is not told apart from, in words."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from synthetic import synthetic_run
from test_claims import JITTER, Lines, case, group, heap, run_of

from hiddencost.claims import sound
from hiddencost.claims.fastest import fastest, of_run
from hiddencost.page.choosing import places
from hiddencost.page.fastest import fastest_lines
from hiddencost.records import Case, Measurement
from hiddencost.stats import Table

SUBMODEL, ADVANCE, NAME = (
    (strategy, "middle") for strategy in ("functional_submodel", "indexed_in_advance", "get_layer_name")
)


def of(one: Case, seconds: Sequence[float]) -> Lines:
    """A value for each block."""
    return [
        Measurement(case=one, metric="seconds", values=(value,) * 3, block=block)
        for block, value in enumerate(seconds)
    ]


def told(lines: Lines) -> list[str]:
    return fastest_lines(Table(sound(run_of(lines))))


def test_a_tie_names_the_ways_that_are_not_told_apart() -> None:
    """The second is slower in three of five blocks, faster in two: their interval contains 1."""
    wavering = [0.0053 * one for one in (1.02, 0.985, 1.01, 0.99, 1.02)]
    lines = group({SUBMODEL: 0.53, NAME: 0.60}) + of(case(*ADVANCE), wavering)
    assert told(lines) == [
        "Fastest at m 4x128, in graph:",
        "  `functional_submodel` reads the middle hidden state in 0.530 [0.525, 0.535] of a full forward pass"
        "; no difference resolved to `indexed_in_advance`.",
    ]
    (found,) = of_run(Table(run_of(lines)))
    assert [one.strategy for one in found.rivals] == ["indexed_in_advance"]
    assert [one.strategy for one in found.slower] == ["get_layer_name"]


def test_ways_whose_intervals_overlap_are_told_apart_in_pairs() -> None:
    """Against the reference both spread by 1 %; against each other they differ by 0.5 % in each block."""
    assert told(group({SUBMODEL: 0.53, ADVANCE: 0.53265}))[1:] == [
        "  `functional_submodel` reads the middle hidden state in 0.530 [0.525, 0.535] of a full forward pass"
        "; `indexed_in_advance` is slower."
    ]


def test_a_difference_within_the_noise_is_none() -> None:
    """The twin is within 0.1 %: 0.05 % in each block lies inside of that."""
    assert told(group({SUBMODEL: 0.53, ADVANCE: 0.530265}))[1].endswith(
        "; no difference resolved to `indexed_in_advance`."
    )


def test_slower_ways_are_counted() -> None:
    assert told(group({SUBMODEL: 0.53, ADVANCE: 0.6, NAME: 0.7}))[1].endswith(
        "; the other 2 ways are slower."
    )


def test_a_single_way_has_nothing_beside_it() -> None:
    assert told(group({SUBMODEL: 0.53}))[1] == (
        "  `functional_submodel` reads the middle hidden state in 0.530 [0.525, 0.535] of a full forward pass"
        "; no other way was measured."
    )


def test_fewer_than_five_blocks_resolve_nothing() -> None:
    assert told(group({SUBMODEL: 0.53, ADVANCE: 0.9}, jitter=JITTER[:3]))[1] == (
        "  `functional_submodel` reads the middle hidden state in 0.527 of a full forward pass (fewer than 5 "
        "blocks: no interval); no difference resolved to `indexed_in_advance`."
    )


def test_without_a_twin_nothing_is_resolved() -> None:
    lines = [
        line for line in group({SUBMODEL: 0.53, ADVANCE: 0.9}) if line.case.strategy != "reference_again"
    ]
    assert told(lines)[1].endswith(
        "; no difference resolved to `indexed_in_advance` (no interval of an A/A twin)."
    )


def test_a_way_that_has_one_block_only_does_not_win() -> None:
    lines = group({SUBMODEL: 0.53}) + of(case(*ADVANCE), [0.001])
    assert told(lines)[1].endswith("; no difference resolved to `indexed_in_advance` (fewer than 5 blocks).")


def test_without_its_reference_a_way_is_told_without_a_share() -> None:
    lines = [line for line in group({SUBMODEL: 0.53}) if line.case.strategy != "final_only"]
    assert told(lines)[1] == (
        "  `functional_submodel` reads the middle hidden state fastest (a full forward pass was not measured)"
        "; no other way was measured."
    )


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"points": "last_four"}, "the last four hidden states in"),
        ({"points": "block_3"}, "block_3 in"),
        ({"points": "all", "reduction": "mean"}, "the mean over tokens of all hidden states in"),
        ({"points": "all", "reduction": "odd"}, "all hidden states (odd) in"),
    ],
)
def test_what_is_read_is_told_in_words(fields: dict[str, str], words: str) -> None:
    one = case("functional_submodel").with_(**fields)
    assert words in told(group({}) + of(one, [0.005] * 5))[1]


def test_what_is_no_way_to_read_hidden_states_does_not_count() -> None:
    lines = group({("on_request", "output"): 0.9, ("single_block", "output"): 0.1})
    lines += of(case("functional_submodel", "all", "predict", examples=8), [0.1] * 5)
    lines += of(case("functional_submodel", "all", "predict", examples=16), [0.2] * 5)
    assert told(lines) == []


def test_a_way_that_was_wrong_does_not_win() -> None:
    wrong = Measurement(case=case(*ADVANCE), metric="seconds", state="wrong", reason="differs", block=9)
    assert "`functional_submodel` reads" in told([*group({SUBMODEL: 0.53, ADVANCE: 0.4}), wrong])[1]


def test_every_scene_and_kind_has_one_and_the_screen_one_of_each_kind() -> None:
    table = Table(synthetic_run())
    every = fastest(table)
    assert len({(one.scene, one.kind) for one in every}) == len(every) > 60
    shown = of_run(table)
    assert [one.kind[0] for one in shown] == ["last", "middle", "last_four", "all"]
    assert {one.scene for one in shown} == {case(model="minilm", batch=1, length=16)}
    assert all(one in every for one in shown)
    assert fastest(Table(run_of([]))) == of_run(Table(run_of([]))) == []


def chosen(*lines: Lines) -> list[tuple[str, tuple[str, ...]]]:
    """The ways of the one place of a run as the page's chooser ranks them, each with those level with it."""
    (place,) = places(Table(sound(run_of([line for some in lines for line in some]))))
    return [(way.strategy, way.level) for way in place.ways]


def test_the_chooser_ranks_as_the_screen_does() -> None:
    assert chosen(group({SUBMODEL: 0.53, ADVANCE: 0.53265, NAME: 0.60})) == [
        ("functional_submodel", ()),
        ("indexed_in_advance", ()),
        ("get_layer_name", ()),
    ]


def test_of_ways_not_told_apart_the_chooser_takes_the_leaner_then_the_simplest() -> None:
    tie = group({ADVANCE: 0.53, SUBMODEL: 0.530265, NAME: 0.60})
    level = [
        ("functional_submodel", ("indexed_in_advance",)),
        ("indexed_in_advance", ("functional_submodel",)),
    ]
    assert chosen(tie)[:2] == level
    assert chosen(tie, heap({ADVANCE: 10, SUBMODEL: 10.4}))[:2] == level  # 4 % is not clearly less
    assert chosen(tie, heap({ADVANCE: 10, SUBMODEL: 11}))[:2] == level[::-1]
    assert chosen(tie, heap({ADVANCE: 10, SUBMODEL: 11, NAME: 1}))[2][0] == "get_layer_name"


def test_the_chooser_leaves_out_training_and_reductions() -> None:
    lines = of(case("functional_submodel", "all", reduction="mean"), [0.005] * 5)
    assert places(Table(run_of([*group({}), *lines]))) == []
    assert places(Table(run_of(group({SUBMODEL: 0.5}, mode="train")))) == []
