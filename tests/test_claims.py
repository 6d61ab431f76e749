"""Every claim, with every word that it can give, from records of a few values made by hand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
import pytest
from synthetic import synthetic_run

from hiddencost.claims import CLAIMS, answers, sentence
from hiddencost.claims.evidence import (
    BIG,
    FEW_BLOCKS,
    NO_TWIN,
    Finding,
    finding,
    fold,
    over,
    overall,
    reach,
    scaled,
    settle,
)
from hiddencost.claims.sentences import SENTENCES, plain
from hiddencost.formatting import decimals, listed, percent, quantity, some
from hiddencost.records import SCHEMA_VERSION, Answer, Case, Figure, Header, Measurement, Run

MIB = 2**20
JITTER = (0.99, 0.995, 1.0, 1.005, 1.01)
"""What the blocks of a ratio are multiplied with; the interval's half-width is then 0.98 %."""

Lines = list[Measurement]


def run_of(lines: Iterable[Measurement], planned: Sequence[Case] = ()) -> Run:
    header = Header(
        schema_version=SCHEMA_VERSION,
        hiddencost_version="0",
        started="now",
        command="hiddencost run",
        grid_name="hand-made",
        grid="",
        seed=7,
        git_commit="abc",
        planned=tuple(planned),
    )
    return Run(header=header, environments=(), measurements=tuple(lines))


def answer_of(id: str, lines: Iterable[Measurement]) -> Answer:
    return next(answer for answer in answers(run_of(lines)) if answer.id == id)


def case(strategy: str = "final_only", points: str = "output", mode: str = "graph", **fields: object) -> Case:
    return Case(model="m", batch=4, length=128, strategy=strategy, points=points, mode=mode).with_(**fields)


def value(one: Case, metric: str, number: float, block: int = 0) -> Lines:
    return [Measurement(case=one, metric=metric, values=(number,), block=block)]


def group(
    ratios: dict[tuple[str, str], float], mode: str = "graph", jitter: Sequence[float] = JITTER
) -> Lines:
    """Times of 3 rounds a block: the reference 10 ms, a twin within 0.1 % of it, and ways at these ratios."""
    lines = []
    for block, factor in enumerate(jitter):
        twin = 1 + (factor - 1) / 10
        for (strategy, points), ratio in {
            ("final_only", "output"): 1.0,
            ("reference_again", "output"): twin,
            **{key: number * factor for key, number in ratios.items()},
        }.items():
            one = case(strategy, points, mode)
            lines.append(Measurement(case=one, metric="seconds", values=(0.01 * ratio,) * 3, block=block))
    return lines


def heap(mib: dict[tuple[str, str], float], mode: str = "graph", **fields: object) -> Lines:
    """Peaks in MiB by (strategy, points), one reading each."""
    return [
        line
        for (strategy, points), number in mib.items()
        for line in value(case(strategy, points, mode, **fields), "peak_heap_bytes", number * MIB, 100)
    ]


# -- references --


def plain_pass(mode: str, peak: float) -> Lines:
    """A floor of 10 MiB (8 of a block, 2 of output) and a plain pass at `peak` MiB."""
    return [
        *heap({("final_only", "output"): peak, ("single_block", "output"): 8}, mode),
        *value(case(mode=mode), "output_bytes", 2 * MIB, 100),
    ]


@pytest.mark.parametrize(
    ("peaks", "word", "conditions"),
    [
        ({"graph": 12.4}, "holds", ""),
        ({"graph": 12.6}, "does not hold", ""),
        ({"eager": 30, "graph": 11, "xla": 12}, "depends", "holds in graph and xla, not in eager"),
        ({}, "not measured", ""),
    ],
)
def test_references(peaks: dict[str, float], word: str, conditions: str) -> None:
    answer = answer_of("references", [line for mode, mib in peaks.items() for line in plain_pass(mode, mib)])
    assert answer.word == word
    assert conditions in answer.conditions


def test_references_in_words() -> None:
    answer = answer_of("references", plain_pass("eager", 30) + plain_pass("graph", 10.4))
    assert sentence(answer) == (
        "The peak heap of the plain forward pass divided by its live-set floor is 3.00 in eager and 1.04 "
        "in graph."
    )


def test_no_floor_is_told_for_a_whole_model_of_several_stacks() -> None:
    """The block is of the stack that is named, and the run goes through the others' blocks too."""
    lines = [
        msgspec.structs.replace(line, case=line.case.with_(model="t5_small#encoder"))
        for line in plain_pass("eager", 30)
    ]
    assert answer_of("references", lines).word == "not measured"


def test_references_are_not_asked_for_where_gradients_are_recorded() -> None:
    """What they need must be held; the floor counts one block."""
    answer = answer_of("references", plain_pass("eager", 11) + plain_pass("eager_grad", 90))
    assert (answer.word, [figure.where for figure in answer.figures]) == ("holds", ["in eager"])


def test_references_without_a_single_block_say_so() -> None:
    answer = answer_of("references", heap({("final_only", "output"): 30}))
    assert answer.word == "not measured"
    assert sentence(answer) == "This run does not measure: peak heap / live-set floor."


def test_references_take_the_largest_shape() -> None:
    small = [
        *heap({("final_only", "output"): 90, ("single_block", "output"): 8}, length=16),
        *value(case(length=16), "output_bytes", 2 * MIB),
    ]
    assert answer_of("references", plain_pass("graph", 10) + small).word == "holds"


# -- payload --


def states(mib: float, weights: float | None, model: str = "m", returned: float | None = None) -> Lines:
    """All hidden states of a batch of 4 take `mib`, the weights `weights` MiB."""
    one = case("functional_submodel", "all", model=model)
    lines = value(one, "payload_bytes", mib * MIB)
    lines += value(one, "output_bytes", (mib if returned is None else returned) * MIB)
    if weights is not None:
        lines += value(Case(model=model, strategy="final_only"), "weights_bytes", weights * MIB)
    return lines


@pytest.mark.parametrize(
    ("lines", "word"),
    [
        (states(8, 60), "holds"),
        (states(8, 70), "does not hold"),
        (states(8, 60) + states(8, 70, "n"), "depends"),
        (states(8, None), "not measured"),
        ([], "not measured"),
    ],
)
def test_payload(lines: Lines, word: str) -> None:
    assert answer_of("payload", lines).word == word


def test_payload_is_held_against_weights_of_the_same_number_format() -> None:
    narrow = [msgspec.structs.replace(line, case=line.case.with_(dtype="bfloat16")) for line in states(4, 40)]
    answer = answer_of("payload", states(8, 60) + narrow)
    assert [(f.value, f.where) for f in answer.figures if f.name == "payload of a batch / weights"] == [
        (pytest.approx(32 * 1 / 40), "for m in bfloat16 at length 128"),
        (pytest.approx(32 * 2 / 60), "for m at length 128"),
    ]


def test_payload_in_words() -> None:
    assert sentence(answer_of("payload", states(8, 40))) == (
        "All hidden states of one example take 2.000 MiB for m at length 128; those of 32 examples weigh "
        "1.60 for m at length 128 times as much as the model's weights; the bytes returned equal the formula "
        "exactly in 1 of 1 cases of the functional sub-model."
    )


def test_what_is_the_same_everywhere_is_told_once() -> None:
    one = Figure(name="payload of one example", value=2 * MIB, unit="B", where="for m")
    other = msgspec.structs.replace(one, where="for n")
    answer = Answer(id="payload", word="holds", figures=(one, other))
    assert sentence(answer) == "All hidden states of one example take 2.000 MiB."
    answer = msgspec.structs.replace(answer, figures=(one, msgspec.structs.replace(other, value=3 * MIB)))
    assert sentence(answer) == "All hidden states of one example take 2.000 MiB for m and 3.000 MiB for n."


def test_payload_tells_bytes_that_differ_from_the_formula_and_missing_weights() -> None:
    answer = answer_of("payload", states(8, None, returned=9))
    assert answer.facts["formula"] == "exactly in 0 of 1 cases of the functional sub-model"
    assert sentence(answer).endswith("sub-model; this run does not measure: payload / weights.")


# -- always_return --

ALWAYS = ("always_return_all", "all")


@pytest.mark.parametrize(
    ("lines", "word"),
    [
        (group({ALWAYS: 1.2}), "holds"),
        (group({ALWAYS: 1.02}), "does not hold"),
        (group({ALWAYS: 1.2}) + group({ALWAYS: 1.0}, "eager"), "depends"),
        (group({ALWAYS: 1.0}) + heap({ALWAYS: 20, ("final_only", "output"): 10}), "depends"),
        (group({ALWAYS: 1.05}), "not measured"),
        (group({ALWAYS: 1.2}, jitter=(1.0,)), "not measured"),
        ([], "not measured"),
    ],
)
def test_always_return(lines: Lines, word: str) -> None:
    assert answer_of("always_return", lines).word == word


def test_always_return_in_words() -> None:
    lines = [
        *group({ALWAYS: 1.02}),
        *group({ALWAYS: 1.2}, "xla"),
        *heap({ALWAYS: 20, ("final_only", "output"): 10}),
        *heap({ALWAYS: 40, ("final_only", "output"): 10}, "predict", examples=64),
    ]
    answer = answer_of("always_return", lines)
    assert sentence(answer) == (
        "Always returning every hidden state multiplies the time by 1.020 [1.010, 1.030] in graph and "
        "1.200 [1.188, 1.212] in xla; it multiplies the peak heap by 2.00 in graph; it multiplies the "
        "peak heap of a whole data set by 4.00 in predict."
    )
    assert sentence(answer, short=True).startswith(
        "Always returning every hidden state multiplies the time by between 1.020 [1.010, 1.030] in "
        "graph and 1.200 [1.188, 1.212] in xla; it"
    )
    assert answer.conditions == (
        "time: heavy in xla, not heavy in graph; peak heap: heavy in graph; peak heap of a data set: heavy "
        "in predict"
    )
    assert [figure.word for figure in answer.figures] == ["slower", "slower", None, None]


def on_a_gpu(
    lines: Lines, copies: dict[tuple[str, str], float], peaks: dict[tuple[str, str], float]
) -> Lines:
    """The lines as if of a GPU, with seconds of copying to NumPy and peaks in MiB."""
    more = [
        line
        for block in range(5)
        for (strategy, points), seconds in copies.items()
        for line in value(case(strategy, points), "host_copy_seconds", seconds, block)
    ]
    held = [
        line
        for (strategy, points), mib in peaks.items()
        for line in value(case(strategy, points), "peak_device_bytes", mib * MIB, 100)
    ]
    return [
        msgspec.structs.replace(line, case=line.case.with_(device="gpu")) for line in (*lines, *more, *held)
    ]


def test_on_a_device_what_it_holds_and_the_way_to_numpy_count_too() -> None:
    plain = ("final_only", "output")
    lines = on_a_gpu(group({ALWAYS: 1.02}), {ALWAYS: 0.0898, plain: 0.01}, {ALWAYS: 30, plain: 10})
    answer = answer_of("always_return", lines)
    assert sentence(answer) == (
        "Always returning every hidden state multiplies the time by 1.020 [1.010, 1.030] in graph (gpu); it "
        "multiplies the peak of a device's memory by 3.00 in graph (gpu); it multiplies the time to have "
        "everything in NumPy by 5.000 [4.995, 5.005] in graph (gpu); this run does not measure: peak heap "
        "and peak heap of a data set."
    )
    assert answer.conditions == (
        "time: not heavy in graph (gpu); peak device memory: heavy in graph (gpu); time to have everything "
        "in NumPy: heavy in graph (gpu)"
    )


def test_the_way_to_numpy_of_few_blocks_does_not_tell() -> None:
    plain = ("final_only", "output")
    lines = on_a_gpu(group({ALWAYS: 1.02}), {ALWAYS: 0.0898, plain: 0.01}, {})
    answer = answer_of("always_return", [line for line in lines if line.block < 2])
    assert answer.word == "not measured"
    assert (
        "time to have everything in NumPy: unclear in graph (gpu) (fewer than 5 blocks)" in answer.conditions
    )


def test_one_block_is_told_as_the_reason() -> None:
    answer = answer_of("always_return", group({ALWAYS: 1.2}, jitter=(1.0,)))
    assert answer.conditions == "time: unclear in graph (fewer than 5 blocks)"
    assert answer.facts["missing"] == "peak heap and peak heap of a data set"


def test_a_group_without_a_twin_is_not_judged() -> None:
    lines = [line for line in group({ALWAYS: 1.2}) if line.case.strategy != "reference_again"]
    answer = answer_of("always_return", lines)
    assert (answer.word, answer.conditions) == ("not measured", f"time: unclear in graph ({NO_TWIN})")


def test_two_noisy_blocks_settle_nothing() -> None:
    answer = answer_of("always_return", group({ALWAYS: 1.2}, jitter=(0.9, 1.1)))
    assert answer.word == "not measured"


def test_a_case_that_was_wrong_in_any_block_does_not_count() -> None:
    wrong = Measurement(case=case(*ALWAYS), metric="seconds", state="wrong", reason="differs", block=9)
    assert answer_of("always_return", [*group({ALWAYS: 1.2}), wrong]).word == "not measured"


# -- on_request --

OFF, ON, SUBMODEL = ("on_request", "output"), ("on_request", "all"), ("functional_submodel", "all")


@pytest.mark.parametrize(
    ("lines", "word"),
    [
        (group({OFF: 1.0, ON: 1.2, SUBMODEL: 1.2}), "holds"),
        (group({OFF: 1.2, ON: 1.5, SUBMODEL: 1.2}), "does not hold"),
        (group({OFF: 1.0, ON: 1.5, SUBMODEL: 1.2}), "depends"),
        (group({ALWAYS: 1.0}), "not measured"),
    ],
)
def test_on_request(lines: Lines, word: str) -> None:
    assert answer_of("on_request", lines).word == word


def test_on_request_in_words() -> None:
    traces = value(case("on_request", "all", "graph"), "growth_traces", 2)
    lines = group({OFF: 1.0, ON: 1.3, SUBMODEL: 1.3}) + traces
    assert sentence(answer_of("on_request", lines)) == (
        "An argument to call that is off multiplies the time of the plain forward pass by 1.000 [0.990, "
        "1.010] in graph; one that is on multiplies the time of the sub-model that is built once by 1.00 "
        "in graph; switched on and off by turns, the call is traced 2 times in all."
    )


# -- layers --

NAME, INDEX = ("get_layer_name", "all"), ("get_layer_index", "all")
ADVANCE = ("indexed_in_advance", "all")


@pytest.mark.parametrize(
    ("lines", "word"),
    [
        (group({NAME: 1.2, INDEX: 1.3, ADVANCE: 1.0}), "holds"),
        (group({NAME: 1.0, INDEX: 1.01, ADVANCE: 1.0}), "does not hold"),
        (group({NAME: 1.0, INDEX: 1.3, ADVANCE: 1.0}), "depends"),
        (group({NAME: 1.0}), "not measured"),
    ],
)
def test_index_in_advance(lines: Lines, word: str) -> None:
    assert answer_of("index_in_advance", lines).word == word


def lookup(
    way: str, layers: int, seconds: float, jitter: Sequence[float] = JITTER, position: int = -1
) -> Lines:
    one = Case(model="lookup", strategy=way, layers=layers, position=position % layers)
    return [
        Measurement(case=one, metric="lookup_seconds", values=(seconds * factor,), block=block)
        for block, factor in enumerate(jitter)
    ]


def scan(way: str, start: float, each: float, jitter: Sequence[float] = JITTER) -> Lines:
    """Look-ups of the last of 20, 100 and 1000 layers that take start + each x layers."""
    return [line for n in (20, 100, 1000) for line in lookup(way, n, start + each * n, jitter)]


def test_index_in_advance_in_words() -> None:
    eager = group({NAME: 1.1, INDEX: 1.2, ADVANCE: 1.0}, "eager")
    payloads = value(case("functional_submodel", "all", "eager"), "payload_bytes", 7 * MIB)
    payloads += value(case("functional_submodel", "last", "eager"), "payload_bytes", MIB)
    one_lookup = lookup("get_layer_name", 12, 9.0) + lookup("get_layer_name", 20, 5e-6, JITTER[2:3])
    answer = answer_of("index_in_advance", eager + payloads + one_lookup)
    assert sentence(answer) == (
        "Pulling the layers by name at each call multiplies the time of having them in advance by 1.10 "
        "in eager; pulling them by index multiplies it by 1.20 in eager; of a plain forward pass, "
        "looking up every layer by name takes at most 1.00 % in eager."
    )
    assert answer.facts["share of a forward pass"] == (
        "one look-up by name among 20 layers x 20 look-ups / seconds of the plain pass"
    )


@pytest.mark.parametrize(
    ("lines", "word"),
    [
        (scan("get_layer_name", 1e-6, 1e-7), "holds"),
        (scan("get_layer_name", 1e-6, 0.0), "does not hold"),
        (scan("get_layer_name", 1e-6, 1e-7, (1.0,)), "not measured"),
        (lookup("get_layer_name", 20, 1e-6), "not measured"),
        ([], "not measured"),
    ],
)
def test_name_scan(lines: Lines, word: str) -> None:
    assert answer_of("name_scan", lines).word == word


def test_name_scan_in_words() -> None:
    lines = scan("get_layer_name", 1e-6, 1e-7) + scan("layers_property", 5e-7, 5e-8)
    assert sentence(answer_of("name_scan", lines)) == (
        "Each further layer of the model adds 100.0 ns [99.0, 101.0] to a look-up by name; reading "
        "model.layers, a list that Keras makes anew each time, takes up to 0.500 times as long as one; a "
        "straight line explains 100 % of the variance."
    )


def test_the_position_is_fitted_where_several_were_looked_up() -> None:
    lines = scan("get_layer_name", 1e-6, 1e-7) + lookup("get_layer_name", 1000, 1e-6, position=0)
    found = {figure.name: figure.value for figure in answer_of("name_scan", lines).figures}
    assert found["growth with each position"] == pytest.approx(1e-4 / 999, rel=1e-9)


@pytest.mark.parametrize(
    ("index", "word"),
    [
        (scan("get_layer_index", 1e-6, 0.0), "holds"),
        (scan("get_layer_index", 1e-6, 3e-7), "does not hold"),
        (scan("get_layer_index", 1e-6, 1e-7), "depends"),
        (scan("get_layer_index", 1e-6, 3e-7, (1.0,)), "not measured"),
        ([], "not measured"),
    ],
)
def test_index_fast(index: Lines, word: str) -> None:
    assert answer_of("index_fast", index + scan("get_layer_name", 1e-6, 1e-7)).word == word


def test_index_fast_in_words() -> None:
    by_name, by_dict = scan("get_layer_name", 0, 1e-7), scan("dict_in_advance", 4e-8, 0)
    layers = scan("layers_property", 0, 9e-8)
    answer = answer_of("index_fast", scan("get_layer_index", 0, 2e-7) + by_name + by_dict + layers)
    assert sentence(answer) == (
        "A look-up by index takes 4.00 us [3.96, 4.04] with 20 layers, 20.00 us [19.80, 20.20] with 100 "
        "layers and 200.0 us [198.0, 202.0] with 1,000 layers; it takes up to 2.00 times as long as one by "
        "name; and up to 5,000 times as long as one in a dict; and reading model.layers, a list that Keras "
        "makes anew each time, up to 0.450 times as long as one by index; each further layer of the model "
        "adds 200.0 ns [198.0, 202.0]."
    )
    assert answer.conditions == "time of index / name: does not hold; growth with each layer: does not hold"


# -- the others --


def survey_of(*found: tuple[str, str, str, int, int, int]) -> Lines:
    """(model, kind, way, stacks, right, wrong) on TensorFlow, three blocks each."""
    return [
        Measurement(
            case=Case(model=model, strategy=way, points="all", layers=3),
            metric=metric,
            values=(float(value),),
            block=100,
            notes={"kind": kind},
        )
        for model, kind, way, *values in found
        for metric, value in zip(("stacks", "stacks_right", "stacks_wrong"), values, strict=True)
    ]


def test_indices_are_hard_where_a_way_fails_for_more_than_one_in_twenty() -> None:
    graph = [(f"m{i}", "text", "hidden_states", 1, 1, 0) for i in range(19)]
    for last, word in ((1, "does not hold"), (0, "holds")):
        lines = survey_of(*graph[:-1], ("image", "image", "hidden_states", 1, last, 0))
        assert answer_of("index_hard", lines).word == word
    wrong = survey_of(*graph[:-1], ("image", "image", "hidden_states", 0, 0, 1))
    assert answer_of("index_hard", wrong).word == "holds"
    rule = survey_of(
        *graph, ("m0", "text", "listed_attribute", 2, 1, 0), ("m1", "text", "listed_attribute", 1, 1, 0)
    )
    answer = answer_of("index_hard", rule)
    assert answer.word == "depends"
    assert sentence(answer) == (
        "From the graph, without a table for each model, the hidden states of 100 % on tensorflow of "
        "the KerasHub backbones that run are found whole; the attribute that lists the blocks gives those of "
        "50.0 % on tensorflow of the text backbones; this run does not measure: models in use found from the "
        "graph and graphs written by hand found from the graph."
    )
    assert answer.facts["counted"].startswith("of 19 KerasHub backbones; one counts where every stack")
    assert "measured in" not in answer.facts


def test_a_model_counts_where_it_is_found_in_every_depth() -> None:
    found = survey_of(("a", "text", "hidden_states", 1, 1, 0), ("b", "text", "hidden_states", 1, 1, 0))
    deeper = [
        msgspec.structs.replace(
            m, case=m.case.with_(layers=6), values=(1.0,) if m.metric == "stacks" else (0.0,)
        )
        for m in found[:3]
    ]
    (figure,) = answer_of("index_hard", found + deeper).figures
    assert (figure.value, figure.where) == (0.5, "on tensorflow")


def test_a_run_that_looked_for_no_hidden_states_is_answered_from_the_shipped_survey() -> None:
    answer = answer_of("index_hard", [])
    assert answer.facts["measured in"] == "reports/reference-points"
    assert answer.word == "depends"
    assert {figure.where for figure in answer.figures} == {"on tensorflow", "on jax", "on torch"}


MIDDLE = ("functional_submodel", "middle")


def read_right(*right: bool) -> Lines:
    """Cases of the sub-model whose values were compared, and were right or wrong."""
    lines: Lines = []
    for number, one in enumerate(right):
        tried = case(*MIDDLE, model=f"model_{number}")
        if one:
            lines += value(tried, "max_abs_difference", 1e-6)
        else:
            lines.append(Measurement(case=tried, metric="seconds", state="wrong", reason="differs"))
    return lines


@pytest.mark.parametrize(
    ("lines", "word"),
    [
        (read_right(True, True), "holds"),
        (read_right(True, True) + group({MIDDLE: 1.2}), "holds"),  # at what price is another matter
        (read_right(True, False), "does not hold"),
        (read_right(False), "does not hold"),
        (group({MIDDLE: 0.5}), "not measured"),
        ([], "not measured"),
    ],
)
def test_slice_and_dice(lines: Lines, word: str) -> None:
    assert answer_of("slice_and_dice", lines).word == word


def test_slice_and_dice_in_words() -> None:
    lines = read_right(True, True) + group({MIDDLE: 0.5})
    lines += heap({MIDDLE: 7.5, ("final_only", "output"): 10})
    assert sentence(answer_of("slice_and_dice", lines)) == (
        "A functional sub-model gave the right values in 100 % of its cases (2 of 2); one that ends at the "
        "middle multiplies the time of the plain forward pass by 0.500 [0.495, 0.505] in graph; it "
        "multiplies the peak heap by 0.750 in graph."
    )


# -- all claims --


def test_every_claim_has_its_own_id_and_a_sentence_where_a_run_can_answer_it() -> None:
    ids = [claim.id for claim in CLAIMS]
    assert len(set(ids)) == len(ids) == 10
    assert set(ids) == set(SENTENCES)
    assert [answer.id for answer in answers(run_of([]))] == ids


def test_every_answer_has_plain_words_for_each_verdict_and_none_where_nothing_was_measured() -> None:
    for claim in CLAIMS:
        words = [plain(Answer(id=claim.id, word=word)) for word in ("holds", "does not hold", "depends")]
        assert len(set(words)) == 3
        assert words[0].startswith("Yes")
        assert words[1].startswith("No")
        assert plain(Answer(id=claim.id, word="not measured")) == ""
        for part in ("missing", "unresolved"):
            in_part = [
                plain(Answer(id=claim.id, word=word, facts={part: "time"}))
                for word in ("holds", "does not hold", "depends", "not measured")
            ]
            assert in_part == [
                "Yes, as far as it was measured.",
                "No, as far as it was measured.",
                words[2],
                "",
            ]


def test_a_full_run_answers_every_claim_with_every_clause() -> None:
    for answer in answers(synthetic_run()):
        assert answer.word != "not measured"
        of_a_gpu = 2 * (answer.id == "always_return")
        assert len(sentence(answer).split("; ")) == len(SENTENCES[answer.id]) - of_a_gpu, answer.id
        if answer.id != "index_hard":  # whose figures are shares of many models
            assert all(figure.scope or not figure.where for figure in answer.figures)


@pytest.mark.parametrize("blocks", [0, 1, 2])
def test_few_blocks_give_cautious_words(blocks: int) -> None:
    told = {answer.id: answer for answer in answers(synthetic_run(blocks=blocks))}
    assert all(sentence(answer) for answer in told.values())
    if blocks < 2:
        timed = ("on_request", "index_in_advance", "name_scan", "index_fast")
        assert {told[id].word for id in timed} == {"not measured"}
    if blocks == 1:
        assert FEW_BLOCKS in told["on_request"].conditions


# -- the parts --


def test_a_figure_beyond_the_limit_but_inside_the_noise_band_does_not_tell() -> None:
    figure = Figure(name="", value=1.07, low=1.06, high=1.08)
    assert finding(figure, 1 + BIG, "above").holds is True
    noisy = finding(figure, 1 + BIG, "above", band=(0.9, 1.1))
    assert (noisy.holds, noisy.why) == (None, "it lies in the noise band")
    within = Figure(name="", value=0.93, low=0.92, high=0.94)
    assert finding(within, 1 - BIG, "below").holds is True
    assert finding(within, 1 - BIG, "below", band=(0.9, 1.1)).holds is None


def test_a_figure_that_spans_the_limit_does_not_tell() -> None:
    spans = finding(Figure(name="", value=1.05, low=1.0, high=1.1), 1 + BIG, "below")
    assert (spans.holds, spans.why) == (None, "the interval spans 1.05")
    assert finding(Figure(name="", value=1.0, low=0.9, high=1.04), 1 + BIG, "below").holds is True


def found(holds: bool | None, where: str = "in graph", at: str = "m", why: str = "") -> Finding:
    scope = case(mode=where.removeprefix("in "), model=at)
    return Finding(Figure(name="", value=1, where=where, scope=scope), holds, why)


def test_findings_that_do_not_tell_decide_nothing_unless_they_are_the_most() -> None:
    assert fold([found(True), found(None)]) == "holds"
    assert fold([found(False), found(None)]) == "does not hold"
    assert fold([found(True), found(False), found(None)]) == "depends"
    assert fold([found(True), found(None), found(None)]) == "not measured"


def test_aspects_that_disagree_depend() -> None:
    assert overall(["holds", "does not hold"]) == "depends"
    assert overall(["holds", "not measured"]) == "holds"
    assert overall(["holds", "not measured", "does not hold"]) == "depends"
    assert overall(["not measured"]) == "not measured"
    assert overall(["does not hold", "does not hold"]) == "does not hold"
    assert overall([]) == "not measured"


def test_a_mode_that_is_not_of_one_mind_names_its_shapes() -> None:
    mixed = [
        found(True, at="a"),
        found(False, at="b"),
        found(None, at="c", why="too few"),
        found(False, "in xla"),
    ]
    assert (
        reach(mixed) == "not in xla, in part in graph (holds at a 4x128; not at b 4x128; unclear at c 4x128)"
    )


def test_ratios_of_unpaired_figures_reach_as_far_as_both_intervals() -> None:
    assert over((6, 5, 8), (2, 1, 4)) == (3, 5 / 4, 8)
    assert over((6, None, None), (2, 1, 4)) == (3, 1.5, 6)
    assert over((6, None, None), (2, None, None)) == (3, None, None)
    assert scaled((2, 1, None), 10) == (20, 10, None)


def test_aspects_that_do_not_tell_are_facts() -> None:
    answer = settle("always_return", {"time": [found(None)], "peak heap": [found(False)]})
    assert (answer.word, answer.facts) == ("does not hold", {"unresolved": "time"})
    assert answer.conditions == "time: unclear in graph; peak heap: not in graph"
    assert settle("always_return", {"time": [found(None)], "peak heap": [found(None)]}).word == "not measured"


def test_missing_aspects_are_facts() -> None:
    answer = settle("x", {"time": [found(True)], "memory": []}, rule="a rule")
    assert (answer.word, answer.facts) == ("holds", {"rule": "a rule", "missing": "memory"})
    assert (answer.figures[0].name, answer.conditions) == ("time", "time: holds in graph")


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ((1.0523, 1.0311, 1.0741), "1.05 [1.03, 1.07]"),
        ((1.0523, 1.0505, 1.0541), "1.0523 [1.0505, 1.0541]"),
        ((0.0123, 0.0121, 0.0125, "s"), "12.3 ms [12.1, 12.5]"),
        ((4.37e-6, None, None, "s"), "4.37 us"),
        ((0.0, -1e-9, 1e-9, "s"), "0.0 ns [-1.0, 1.0]"),
        ((193 * MIB, None, None, "B"), "193.0 MiB"),
        ((0, None, None, "B"), "0 B"),
        ((0.0586, None, None, "%"), "5.86 %"),
        ((50.0, 50.0, 50.00000001, "count"), "50"),
        ((1.2, 0.1, 14.0), "1.20 [0.10, 14.00]"),
        ((6526.2, 6399.3, 6655.6), "6,526 [6,399, 6,656]"),
        ((1.5, 1.0, float("inf")), "1.50 [1.00, inf]"),
    ],
)
def test_numbers_carry_the_digits_that_their_interval_supports(given: tuple[float, ...], text: str) -> None:
    assert quantity(*given) == text  # type: ignore[arg-type]


def test_words_and_shares() -> None:
    assert (listed([]), listed("a"), listed("abc")) == ("", "a", "a, b and c")
    assert some("abcdefg") == "a, b, c, d and 3 more"
    assert (percent(0.0138), percent(-0.0027, signed=True), percent(0.5)) == ("1.4 %", "-0.27 %", "50.0 %")
    assert decimals(float("nan"), 0.0) == 0
