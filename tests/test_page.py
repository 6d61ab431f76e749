"""The page: what a reader sees, from records made by hand, and from full, small and empty runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from synthetic import synthetic_run
from test_claims import ALWAYS, MIB, case, group, heap, run_of, value

from hiddencost import page
from hiddencost.claims import CLAIMS, table_of
from hiddencost.page import escaped, large, markdown, questions, summary_lines, write_report
from hiddencost.page.costs import break_even
from hiddencost.page.html import html
from hiddencost.plots import PLOTS
from hiddencost.records import Case, Ending, Environment, Measurement, Run
from hiddencost.stats import Table


def with_environment(run: Run, **fields: object) -> Run:
    known = {
        "block": 0,
        "versions": {"keras": "3.15.1"},
        "python": "3.11.9",
        "system": "Linux",
        "processor": "a processor",
        "cores": 2,
        "memory_bytes": 8 * 2**30,
        "threads": {"intra_op": 2},
        "load": (0.0, 0.0, 0.0),
    }
    environment = Environment(**{**known, **fields})  # type: ignore[arg-type]
    return Run(header=run.header, environments=(environment,), measurements=run.measurements)


def section(text: str, title: str) -> str:
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_write_report_writes_one_file_and_says_where(tmp_path: Path) -> None:
    path = write_report(run_of([]), tmp_path / "new", [])
    assert path == tmp_path / "new" / "report.md"
    assert path.read_text(encoding="utf-8").startswith("# What does a hidden state cost?\n")


def test_all_that_is_written_of_a_run_reads_one_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    init = Table.__init__

    def counted(self: Table, run: Run) -> None:
        made.append(run.header)
        init(self, run)

    monkeypatch.setattr(Table, "__init__", counted)
    run = synthetic_run(blocks=2)
    write_report(run, tmp_path, ["overhead"])
    summary_lines(run)
    html(run, [])
    assert made.count(run.header) == 1


def test_the_opening_names_models_machine_grid_and_blocks() -> None:
    text = markdown(with_environment(run_of(group({ALWAYS: 1.02}), planned=[case()])), [])
    assert "- **models:** m\n" in text
    assert "- **backend:** tensorflow on cpu (float32)\n" in text
    assert "- **machine:** a processor, 2 cores, 8.000 GiB, Linux, Python 3.11.9\n" in text
    assert "- **when:** now (no ending: killed, or not over)\n" in text
    assert "- **grid:** hand-made, 1 planned cases\n" in text
    assert "- **blocks:** 5 timing blocks, 0 memory processes\n" in text


def test_a_question_carries_its_word_sentence_conditions_and_plot() -> None:
    text = markdown(run_of(group({ALWAYS: 1.02})), ["overhead_shapes"])
    question = section(text, "The questions of the issue").split('<a id="always_return"></a>')[1]
    question = question.split("<a id=")[0]
    assert "### jbischof: “Wouldn't it be pretty heavyweight to always add this to the output?”" in question
    assert (
        "**does not hold.** Always returning every hidden state multiplies the time by 1.020 [1.010, 1.030]"
        in (question)
    )
    assert "- Where: time: not heavy in graph\n" in question
    assert "- Not measured: peak heap and peak heap of a data set\n" in question
    assert "![overhead_shapes](plots/overhead_shapes.png)" in question
    assert "| time | m 4x128 | in graph | 1.020 [1.010, 1.030] | slower |" in question


def test_only_plots_that_were_drawn_are_linked() -> None:
    assert "plots/" not in markdown(synthetic_run(blocks=2), [])
    text = markdown(synthetic_run(blocks=2), ["lookup", "growth"])
    assert set(re.findall(r"plots/(\w+)\.png", text)) == {"lookup", "growth"}
    assert "![growth](plots/growth.png)" in section(text, "All plots")


def test_ratios_stand_with_interval_verdict_and_time() -> None:
    text = section(markdown(run_of(group({ALWAYS: 1.02})), []), "Time against the plain forward pass")
    assert "<summary>m 4x128, in graph</summary>" in text
    assert "| final_only | – | reference | – | 10.0 ms |" in text
    assert (
        "| always_return_all all | 1.020 [1.010, 1.030] | slower | 1.3 % | 10.20 ms [10.10, 10.30] |" in text
    )


def test_bringing_states_to_numpy_has_a_column_of_its_own() -> None:
    copies = [line for block in range(5) for line in value(case(*ALWAYS), "host_copy_seconds", 0.0004, block)]
    text = section(
        markdown(run_of(group({ALWAYS: 1.02}) + copies), []), "Time against the plain forward pass"
    )
    assert "| time | then to NumPy |" in text
    assert "bringing it to NumPy comes on top" in text
    assert "| 10.20 ms [10.10, 10.30] | 400 us |\n" in text
    assert re.search(r"\| final_only \| .* \| – \|\n", text)


def test_what_a_gpu_returned_has_the_way_to_the_host_in_passes() -> None:
    """10.2 ms for the call, 40 ms to NumPy, 5 ms to page-locked memory; a pass takes 10 ms."""
    copies = [
        line
        for block in range(5)
        for metric, number in (
            ("host_copy_seconds", 0.04),
            ("host_copy_pinned_seconds", 0.005),
            ("output_bytes", 20 * MIB),
        )
        for line in value(case(*ALWAYS), metric, number, block)
    ]
    lines = group({ALWAYS: 1.02}) + copies
    heading = "From the device to the host"
    assert f"## {heading}" not in markdown(run_of(lines), [])
    on_gpu = [msgspec.structs.replace(line, case=line.case.with_(device="gpu")) for line in lines]
    text = section(markdown(run_of(on_gpu), []), heading)
    assert "<summary>m 4x128, in graph (gpu)</summary>" in text
    assert (
        "| always_return_all all | 20.00 MiB | 1.020 [1.010, 1.030] | 4.00 | 40.0 ms | 500.0 MiB/s | 5.00 ms "
        "| 0.500 |" in text
    )


def test_twins_have_a_line_that_sums_them_up() -> None:
    text = section(markdown(run_of(group({}) + group({}, "eager")), []), "A/A twins")
    assert "2 of 2 intervals contain 1; the worst offset is" in text
    assert "the median half-width is 0.10 %." in text
    assert "| m 4x128, in graph | 1.0000 [0.9990, 1.0010] | 0.10 % | -0.00 % | 15 | 5 |" in text


def test_twins_of_one_block_have_no_interval() -> None:
    text = section(markdown(run_of(group({}, jitter=(1.1,))), []), "A/A twins")
    assert (
        "With fewer than 5 blocks there are no intervals; the worst offset is +1.0 % (m 4x128, in graph)."
        in text
    )


@pytest.mark.parametrize(
    ("first", "steady", "calls"),
    [
        (0.1, 0.01, "6"),
        (0.01, 0.01, "1"),
        (0.01, 0.03, "1"),
        (0.1, 0.03, "never"),
        (0.1, 0.04, "never"),
        (0.01, 0.04, "at first"),
    ],
)
def test_break_even_is_the_call_from_which_building_once_is_ahead(
    first: float, steady: float, calls: str
) -> None:
    """Built anew, the first call takes 0.02 s, each other 0.03: at call 6 that exceeds 0.1 + 5 x 0.01."""
    lines = []
    ways = {"functional_submodel": (first, steady), "functional_submodel_per_call": (0.02, 0.03)}
    for strategy, (at_first, each) in ways.items():
        one = case(strategy, "middle", "eager")
        lines += value(one, "build_seconds", 0.001) + value(one, "first_call_seconds", at_first)
        lines += value(one, "seconds", each)
    assert break_even(Table(run_of(lines)), case("functional_submodel", "middle", "eager")) == calls


def test_memory_stands_over_its_floor_with_both_readings_of_the_resident_set() -> None:
    lines = [
        *heap({("final_only", "output"): 30, ("single_block", "output"): 8}),
        *value(case(), "output_bytes", 2 * MIB),
        *value(case(), "payload_bytes", 0),
        *value(case(), "peak_rss_bytes", 40 * MIB, 101),
        *value(case(), "peak_rss_sampled_bytes", 38 * MIB, 101),
    ]
    text = section(markdown(run_of(lines), []), "Memory")
    row = "| final_only | 30.00 MiB | 0 B | 10.00 MiB | 3.00 | 40.00 MiB | 38.00 MiB | -5.0 % |"
    assert row in text
    assert "| single_block | 8.000 MiB | – | – | – | – | – | – |" in text


def test_data_sets_stand_apart_from_the_forward_passes() -> None:
    lines = [
        line
        for examples in (64, 128)
        for line in heap({ALWAYS: 40, ("final_only", "output"): 10}, "predict", examples=examples)
    ]
    text = markdown(run_of(lines), [])
    assert "| m 4x128 of 64 examples | always_return_all all |" in section(text, "Data sets")
    assert "40.00 MiB | 4.00 |" in section(text, "Data sets")
    assert "## Memory" not in text


def test_reasons_are_grouped_and_planned_cases_without_measurements_are_listed() -> None:
    lost, skipped = case("on_request", "all"), [case("x", mode=mode) for mode in ("eager", "graph")]
    lines = [Measurement(case=c, metric="seconds", state="skipped", reason="no sense") for c in skipped]
    notes = {"xla": "False", "rounds_wanted": "40"}
    lines += [
        Measurement(case=case(), metric="seconds", values=(1.0,), notes=notes),
        Measurement(case=case(), metric="seconds", values=(1.0,) * 3, block=1),
    ]
    text = section(
        markdown(run_of(lines, planned=[case(), *skipped, lost]), []), "Skipped, failed, capped, missing"
    )
    assert "| skipped | no sense | 2 | m-eager-4x128-x, m-graph-4x128-x |" in text
    assert "| note: xla | False | 1 | m-graph-4x128-final_only |" in text
    assert "Groups that time cut short (1)" in text
    assert "| 1 of 2 | 1, 3 | 40 |" in text
    assert "| no measurement | planned, and nothing was recorded | 1 | m-graph-4x128-on_request-all |" in text


def test_times_of_a_wrong_case_are_not_printed() -> None:
    wrong = Measurement(case=case(*ALWAYS), metric="seconds", state="wrong", reason="differs by 1", block=9)
    text = markdown(run_of([*group({ALWAYS: 1.02}), wrong]), [])
    assert "always_return_all" not in section(text, "Time against the plain forward pass")
    assert "| wrong | differs by 1 | 1 | m-graph-4x128-always_return_all-all |" in text


def test_the_environment_says_how_to_run_it_again() -> None:
    run = with_environment(run_of([]), warnings=("load was high",), settings={"A": "1"})
    before = msgspec.structs.replace(run.header, warnings=("it swapped",))
    text = section(markdown(msgspec.structs.replace(run, header=before), []), "Environment")
    assert "| warned of at the start | it swapped |" in text
    assert "| seed | 7 |" in text
    assert "| git commit | abc |" in text
    assert "| 0 | keras 3.15.1 | intra_op 2 | A 1 | load was high |" in text


def test_text_from_records_is_shown_as_it_is() -> None:
    assert escaped("a|b <i>&\n`c` *d* [e](f) \\g") == ("a\\|b &lt;i&gt;&amp; \\`c\\` \\*d\\* [e]\\(f) \\\\g")
    model = "evil|<script>alert(1)</script>"
    failed = Measurement(
        case=case("x", model=model), metric="seconds", state="crashed", reason="<b>|\n# no title"
    )
    timed = [
        Measurement(case=line.case.with_(model=model), metric="seconds", values=line.values, block=line.block)
        for line in group({ALWAYS: 1.02})
    ]
    text = markdown(with_environment(run_of([*timed, failed]), processor="<img src=x>|"), [])
    assert "<script>" not in text
    assert "<img" not in text
    assert "\n# no title" not in text
    assert "evil\\|&lt;script&gt;" in text
    assert "| crashed | &lt;b&gt;\\| # no title | 1 |" in text


@pytest.mark.parametrize("blocks", [0, 1, 2, 5])
def test_every_table_is_rectangular(blocks: int) -> None:
    width = 0
    for line in markdown(synthetic_run(blocks=blocks), []).splitlines():
        bars = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0
        assert not (bars and width) or bars == width, line
        width = bars


def test_an_empty_run_has_a_page_that_says_so() -> None:
    text = markdown(run_of([]), [])
    assert "- **models:** no models\n" in text
    assert "- **machine:** not recorded\n" in text
    assert "This run has nothing for: Time against the plain forward pass; Data sets" in text
    assert "## Time against" not in text
    assert section(text, "A/A twins").startswith("\nNo A/A twin was measured, so no ratio can be judged.")
    # index_hard alone has an answer: from the survey of all models, which ships with the package.
    assert text.count("**not measured.**") == 8
    assert text.count(" | **not measured** | This run does not measure: ") == 8
    assert "reports/reference-points" in text


def test_a_complete_run_says_how_it_ended() -> None:
    run = synthetic_run(blocks=2)
    assert isinstance(run.ending, Ending)
    assert "(complete, 3,600 s)" in markdown(run, [])


def test_the_last_screen_has_a_sentence_for_each_question_that_is_answered() -> None:
    lines = summary_lines(run_of(group({ALWAYS: 1.02}), planned=[Case(model="other", strategy="final_only")]))
    assert len(lines) == 8
    assert lines[0] == "m, tensorflow on cpu (float32), 5 timing blocks, 0 memory processes"
    assert lines[1] == (
        "always_return: does not hold. Always returning every hidden state multiplies the time by 1.020 "
        "[1.010, 1.030] in graph; this run does not measure: peak heap and peak heap of a data set."
    )
    assert [line.partition(":")[0] for line in lines[2:4]] == [
        "index_hard",
        "last_layer",
    ]  # from shipped runs
    assert lines[4] == (
        "not measured here: references, payload, on_request, index_in_advance, name_scan, index_fast, "
        "slice_and_dice"
    )
    assert lines[-3:-1] == [
        "Fastest at m 4x128, in graph:",
        "  `always_return_all` reads all hidden states in 1.020 [1.010, 1.030] of a full forward pass; "
        "no other way was measured.",
    ]
    assert lines[-1] == "planned cases without any measurement: 1 (the report lists them)"
    assert len(summary_lines(synthetic_run())) <= 21
    assert not any("\n" in line for line in summary_lines(synthetic_run()))


def test_the_last_screen_says_why_cases_failed_each_reason_once() -> None:
    failed = [
        Measurement(case=case(name, "all"), metric="seconds", state="crashed", reason=f"a line\nof {what}")
        for name, what in [("one", "theirs"), ("two", "theirs"), *((str(i), str(i)) for i in range(9))]
    ]
    lines = summary_lines(run_of(failed))
    assert lines[-7:] == [
        "cases that failed: 11 (the report says which, and why)",
        "  crashed: a line of theirs",
        *(f"  crashed: a line of {number}" for number in range(4)),
        "  ...",
    ]


def test_the_page_is_imported_without_anything_heavy() -> None:
    heavy = ["keras", "tensorflow", "jax", "torch", "matplotlib", "pandas", "jinja2", "scipy.stats"]
    code = f"import sys, hiddencost.page; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_plot_that_a_claim_names_exists() -> None:
    assert {claim.plot for claim in CLAIMS if claim.plot} <= {plot.name for plot in PLOTS}


def test_of_a_large_run_some_groups_of_each_place_are_listed_and_all_are_answered_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines = [
        msgspec.structs.replace(line, case=line.case.with_(length=length))
        for mode in ("graph", "eager")
        for line in group({ALWAYS: 1.02}, mode)
        for length in (16, 32, 64, 128, 256)
    ]
    run = run_of(lines)
    whole, told = large.shown(table_of(run))
    assert (whole, told) == (table_of(run), "")

    monkeypatch.setattr(large, "ALL_OF", 20)
    monkeypatch.setattr(large, "LISTED", 15)
    part, told = large.shown(table_of(run))
    listed = part.cases("seconds", strategy="always_return_all")
    assert {(case.mode, case.length) for case in listed} == {
        (mode, length) for mode in ("graph", "eager") for length in (16, 256)
    }
    assert len(part.cases("seconds")) == 3 * len(listed)
    assert told.startswith(
        "4 of 10 groups are listed and offered by the chooser: up to 2 of each model and mode"
    )
    text = markdown(run, [])
    assert told in text
    assert section(text, "Time against the plain forward pass").count("always_return_all all") == 4
    (asked,) = (q for q in questions(table_of(run)) if q.claim.id == "always_return")
    assert len(asked.answer.figures) == 10

    monkeypatch.setattr(page, "MOST_FIGURES", 3)
    (asked,) = (q for q in questions(table_of(run)) if q.claim.id == "always_return")
    assert asked.figures.title == "3 figures of 10"
    assert len(asked.figures.rows) == len(asked.listed) == 3
