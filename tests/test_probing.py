"""What linear probes find, from records made by hand: the answer, the plot and the table; and the example."""

import os
import re
import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat
import pytest
from test_claims import run_of

from hiddencost import keeping, store
from hiddencost.claims import sentence, sound
from hiddencost.claims.probing import BOTH_NOUNS, METRIC, accuracy, last_layer, lead, lead_of_best, probed
from hiddencost.errors import UserError
from hiddencost.page.probes import probes
from hiddencost.plots.probing import probing
from hiddencost.records import Case, Measurement
from hiddencost.stats import Table

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "intermediate_outputs.py"
STORED = ROOT / "reports" / "reference-probing"
JITTER = (-0.01, 0.0, 0.01, -0.005, 0.005)


def accuracies(task, by_point, strategy="linear_probe", jitter=JITTER, notes=None, **fields):
    """Accuracies by point, all of them higher or lower by the same in each seed."""
    return [
        Measurement(
            case=Case(model="m", strategy=strategy, points=point, task=task, **fields),
            metric="held_out_accuracy",
            values=(value + add,),
            block=seed,
            notes={"chance": "0.25", **(notes or {})},
        )
        for point, value in by_point.items()
        for seed, add in enumerate(jitter)
    ]


ORDER = {"embeddings": 0.9, "block_0": 0.95, "block_1": 0.85, "block_2": 0.7, "block_3": 0.5}
ORDER |= {"block_4": 0.4, "block_5": 0.3}
MEANING = {"embeddings": 0.5, "block_0": 0.5, "block_1": 0.5, "block_2": 0.8, "block_3": 0.9}
MEANING |= {"block_4": 0.8, "block_5": 0.7}


HELD_OUT = {"held_out": "0.5"}


def table_of(*lines):
    return Table(run_of([line for group in lines for line in group]))


def test_points_are_ordered_by_their_number_and_thirds_are_of_the_blocks():
    shuffled = {name: ORDER[name] for name in ("block_5", "embeddings", "block_3", "block_0", *ORDER)}
    (one,) = probed(table_of(accuracies("word_order", {**shuffled, "all": 0.9})))
    assert [case.points for case in one.points] == list(ORDER)
    assert one.last.points == "block_5"
    assert [[case.points for case in one.third(k)] for k in range(3)] == [
        ["block_0", "block_1"], ["block_2", "block_3"], ["block_4", "block_5"]
    ]  # fmt: skip
    assert [case.points for case in one.together] == ["all"]


def test_more_than_nine_blocks_are_counted_not_spelt():
    (one,) = probed(table_of(accuracies("word_order", {f"block_{n}": 0.5 for n in (10, 9, 2)})))
    assert one.last.points == "block_10"


def test_a_lead_is_taken_seed_by_seed():
    table = table_of(accuracies("word_order", ORDER))
    (one,) = probed(table)
    assert lead(table, one.third(0), one.last) == pytest.approx((0.6, 0.6, 0.6))


def test_the_best_is_chosen_by_the_other_seeds():
    """Two points, each ahead by chance in some seeds: what is picked after the fact would always be ahead."""
    a = [0.6, 0.4, 0.6, 0.4, 0.6, 0.4]
    lines = [
        *accuracies("t", {"block_0": 0.0}, jitter=a),
        *accuracies("t", {"block_1": 0.0}, jitter=[1 - x for x in a]),
        *accuracies("t", {"block_2": 0.5}, jitter=[0.0] * 6),
    ]
    table = table_of(lines)
    (one,) = probed(table)
    value, _, _ = lead_of_best(table, one)
    assert value == pytest.approx(-0.1)  # each time the other one was ahead in the rest


def test_seeds_that_share_what_they_learn_from_are_worth_less():
    """Five of them, tested on half as much as they learn from: 1/5 of the variance and 1/2 of it beside."""
    plain, shared = (
        table_of(accuracies("word_order", {"block_0": 0.5}, notes=notes)) for notes in (None, HELD_OUT)
    )
    (one,) = probed(plain)
    alone, corrected = (accuracy(table, one.last) for table in (plain, shared))
    assert alone[0] == corrected[0] == pytest.approx(0.5)
    assert (corrected[2] - corrected[1]) / (alone[2] - alone[1]) == pytest.approx((1 + 5 * 0.5) ** 0.5)


@pytest.mark.parametrize(
    ("order", "meaning", "word"),
    [
        (ORDER, MEANING, "holds"),
        (dict.fromkeys(ORDER, 0.5), dict.fromkeys(MEANING, 0.5), "does not hold"),
        (ORDER, dict.fromkeys(MEANING, 0.5), "depends"),
        (ORDER, {**MEANING, "block_2": 0.3, "block_3": 0.9}, "depends"),
    ],
)
def test_last_layer(order, meaning, word):
    table = table_of(accuracies("word_order", order), accuracies("semantic_class", meaning))
    assert last_layer(table).word == word


def test_a_lead_of_less_than_one_point_is_none():
    meaning = {**dict.fromkeys(MEANING, 0.5), "block_2": 0.509, "block_3": 0.509}
    answer = last_layer(table_of(accuracies("semantic_class", meaning)))
    assert answer.word == "does not hold"
    assert answer.facts["rule"] == "better is a lead of more than 1 percentage point over the last block"
    assert answer.facts["missing"] == "first third at word order"


def test_last_layer_in_words():
    table = table_of(accuracies("word_order", ORDER), accuracies("semantic_class", MEANING))
    assert sentence(last_layer(table)) == (
        "Linear probes of the first third of the blocks are ahead of one of the last block by 60.0 "
        "percentage points at word order; those of the middle third by 15.0 percentage points at semantic "
        "class; the hidden state that other seeds found best is ahead of the last by 65.0 percentage points "
        "at word order and 20.0 percentage points at semantic class."
    )


def test_fewer_seeds_than_make_an_interval_do_not_tell():
    answer = last_layer(table_of(accuracies("word_order", ORDER, jitter=(0.0, 0.01))))
    assert (answer.word, answer.conditions.count("fewer than 5 blocks")) == ("not measured", 2)


def test_a_run_that_does_not_probe_is_answered_from_the_shipped_one():
    answer = last_layer(Table(run_of([])))
    assert answer.facts["measured in"] == "reports/reference-probing"
    assert answer.word != "not measured"


def test_the_table_has_the_control_task_and_the_lead():
    section = probes(
        table_of(
            accuracies("word_order", ORDER),
            accuracies("word_order", {"block_0": 0.4}, "random_labels"),
            accuracies("word_order", {"all": 0.9}, reduction="scalar_mix"),
            accuracies("word_order", {"block_3": 0.99}, "trained", jitter=(0.0,)),
        )
    )
    probe, trained = section.grids
    assert probe.title == "m: word order"
    assert probe.rows[1] == (
        "block_0", "none", "tensorflow", "95.0 % [94.0, 96.0]", "40.0 % [39.0, 41.0]",
        "65.0 percentage points",
    )  # fmt: skip
    assert probe.rows[6][-1] == "–"
    assert probe.rows[7][:2] == ("all", "scalar_mix")
    assert trained.rows == (("word_order", "trained", "block_3", "tensorflow", "99.0 %"),)


def test_the_plot_draws_a_curve_a_control_and_what_guessing_has():
    figure = probing(
        table_of(
            accuracies("word_order", ORDER),
            accuracies("word_order", {**ORDER, "block_5": 0.2}, "random_labels"),
            accuracies("word_order", {"all": 0.9}, reduction="scalar_mix"),
            accuracies("semantic_class", dict.fromkeys(MEANING, 0.5)),
        )
    )
    assert figure.get_suptitle().replace("\n", " ") == (
        "The last block is not the best place to read word order; at semantic class no better one is "
        "told apart"
    )
    first, second = figure.axes
    curves = {line.get_label(): list(line.get_ydata()) for line in first.lines}
    assert curves["linear probe"] == pytest.approx([100 * value for value in ORDER.values()])
    assert curves["random labels"][-1] == pytest.approx(20)
    assert [25.0, 25.0] in [list(line.get_ydata()) for line in first.lines]
    assert [text.get_text() for text in first.texts] == ["random labels", "linear probe", "scalar mix"]
    assert (first.get_title(loc="left"), second.get_title(loc="left")) == ("word order", "semantic class")
    assert probing(table_of(accuracies("word_order", {"block_0": 0.5}))) is None


# -- keeping --


def test_what_is_kept_is_read_back_as_a_run(tmp_path):
    lines = accuracies("word_order", ORDER)
    run = keeping.keep(tmp_path / "run", "tried", lines, 12.5, seed=3, command="make it")
    assert run == store.read(tmp_path / "run")
    assert run.measurements == tuple(lines)
    assert (run.header.grid_name, run.header.seed, run.header.command) == ("tried", 3, "make it")
    assert (run.ending.how, run.ending.seconds) == ("complete", 12.5)
    assert len(run.environments) == 1
    with pytest.raises(UserError, match="holds another run"):
        keeping.keep(tmp_path / "run", "tried", lines, 1.0, seed=3, command="")
    with pytest.raises(ValueError, match="nothing to keep"):
        keeping.keep(tmp_path / "other", "tried", [], 1.0, seed=3, command="")
    assert not (tmp_path / "other").exists()


# -- the example --


def test_the_notebook_is_the_script_run_from_top_to_bottom():
    notebook = nbformat.read(EXAMPLE.with_suffix(".ipynb"), as_version=4)
    nbformat.validate(notebook)
    script = jupytext.read(EXAMPLE)
    assert [(cell.cell_type, cell.source) for cell in notebook.cells] == [
        (cell.cell_type, cell.source) for cell in script.cells
    ], "run `make example`"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert any("image/png" in output.get("data", {}) for output in outputs)


def printed(notebook):
    """All that the cells of a notebook print."""
    return "".join(
        output["text"] for cell in notebook.cells for output in cell.get("outputs", ()) if "text" in output
    )


def test_the_notebook_prints_what_is_stored():
    text = " ".join(printed(nbformat.read(EXAMPLE.with_suffix(".ipynb"), as_version=4)).split())
    assert sentence(last_layer(Table(sound(store.read(STORED))))) in text


def test_the_text_of_the_example_is_true_of_what_is_stored():
    """Its sentences without figures, which no one generates."""
    table = Table(sound(store.read(STORED)))
    tasks = {one.task: one for one in probed(table)}

    def means(task, strategy="linear_probe"):
        return [accuracy(table, case.with_(strategy=strategy))[0] for case in tasks[task].points]

    order, control = means("word_order"), means("word_order", "random_labels")
    assert order[1:] == sorted(order[1:], reverse=True)  # from there on the blocks lose it
    assert order[1] > 0.95
    assert [mine < theirs for mine, theirs in zip(order, control, strict=True)][-4:] == [True] * 4
    assert control == sorted(control, reverse=True)  # falls from block to block
    for task in ("subject_number", "semantic_class"):
        found = means(task)
        nouns = float(table.note(tasks[task].last, METRIC, BOTH_NOUNS))
        assert abs(found[0] - nouns) < 0.05  # rise from what the two nouns tell
        assert max(found[3:]) > nouns + 0.05
        for case in tasks[task].points[4:-1]:  # level from the fourth block on
            _, low, high = lead(table, [case], tasks[task].last)
            assert low < 0.01
            assert high > 0
    trained = {case.points: accuracy(table, case)[0] for case in table.cases(METRIC, strategy="trained")}
    probes = means("subject_number")
    assert trained["block_3"] > max(probes)  # beats every probe
    assert trained["block_*"] > trained["block_3"] - 0.02  # come as far or further


def test_the_text_of_the_example_is_true_of_what_it_prints():
    told = printed(nbformat.read(EXAMPLE.with_suffix(".ipynb"), as_version=4))
    costs = told[told.index("seconds in graph mode") :]
    times, seconds, heaps = (part for part in re.split(r"\n\n", costs.strip()))

    def ratio(part, name):
        return float(re.search(name + r"\s+([\d.]+)", part)[1])

    assert ratio(times, "the middle block, sub-model") < 0.6
    assert ratio(times, "all hidden states, sub-model") < 1.05
    assert abs(ratio(times, "all, layers found by name at each call") - 1) < 0.02  # next to nothing
    every, pooled = "all hidden states, of every token", "all, pooled inside the model"
    assert ratio(seconds, every) < 1.25  # little time
    extra = ratio(heaps, every) - 1
    assert ratio(heaps, pooled) - 1 < 0.5 * extra  # most of that memory is saved
    below, above = (
        float(re.search(rf"{what}: .*?([\d.]+) s an epoch", told)[1])
        for what in ("block_3, on the states below it", "all blocks, from the text on")
    )
    reading = float(re.search(r"reading the states below block_3, once: ([\d.]+) s", told)[1])
    assert 5 * (above - below) > reading > 0  # it pays after a few epochs


@pytest.mark.slow
def test_the_example_runs_and_answers_as_the_stored_one(tmp_path):
    """Its word, and its largest leads: other machines round otherwise."""
    environment = {**os.environ, "HIDDENCOST_KEEP": str(tmp_path / "kept"), "KERAS_BACKEND": "tensorflow"}
    done = subprocess.run(
        [sys.executable, EXAMPLE], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    difference = re.search(r"largest difference of the upper part to the whole: (\S+)", done.stdout)
    assert float(difference[1]) < 1e-5
    found, stored = (Table(sound(store.read(folder))) for folder in (tmp_path / "kept", STORED))
    assert {one.task for one in probed(found)} == {"word_order", "subject_number", "semantic_class"}
    for mine, theirs in zip(probed(found), probed(stored), strict=True):
        assert [case.points for case in mine.points] == [case.points for case in theirs.points]
        for case in mine.points:
            ahead, before = (lead(table, [case], mine.last)[0] for table in (found, stored))
            assert ahead == pytest.approx(before, abs=0.05), case
    assert last_layer(found).word == last_layer(stored).word
