"""`hiddencost show`: a case found by words of its id, and what is told of it, from records made by hand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from test_claims import Lines, case, group, run_of, value
from test_page import with_environment

from hiddencost import cli, store
from hiddencost.formatting import readable
from hiddencost.page.one_case import COLUMNS, histogram, lines
from hiddencost.records import Case, Measurement

SUBMODEL = ("functional_submodel", "middle")
ONE = case(*SUBMODEL)
BLOCKS = (0.99, 0.9951, 1.0001, 1.0051, 1.01)
"""None lies on an edge between two columns of a histogram."""


def written(folder: Path, measured: Lines, planned: tuple[Case, ...] = ()) -> str:
    run = with_environment(run_of(measured, planned), warnings=("load was high",))
    writer = store.Writer(folder, msgspec.structs.replace(run.header, warnings=("it swapped",)))
    for line in (*run.environments, *run.measurements):
        writer.write(line)
    writer.close()
    return str(folder)


def shown(*arguments: str, exit_code: int = 0) -> str:
    result = CliRunner().invoke(cli.main, ["show", *arguments])
    assert result.exit_code == exit_code, result.output
    return result.output if exit_code == 0 else result.stderr


def refused(*arguments: str) -> str:
    line = shown(*arguments, exit_code=2)
    assert line.count("\n") == 1
    return line.removeprefix("hiddencost: ").strip()


@pytest.fixture
def folder(tmp_path: Path) -> str:
    per_call = ("functional_submodel_per_call", "middle")
    return written(
        tmp_path / "run",
        group({SUBMODEL: 0.53, per_call: 0.9}, jitter=BLOCKS) + group({SUBMODEL: 0.5}, "eager"),
    )


def test_all_of_a_case_is_told(folder: str) -> None:
    text = shown(folder, "functional_submodel middle", "graph", "4x128")
    assert text.splitlines() == [
        "m-graph-4x128-functional_submodel-middle",
        "",
        "model      m",
        "strategy   functional_submodel",
        "points     middle",
        "mode       graph",
        "batch      4",
        "length     128",
        "backend    tensorflow",
        "device     cpu",
        "dtype      float32",
        "reduction  none",
        "",
        "time against the reference: 0.530 [0.525, 0.535], 15 pairs, 5 blocks, "
        "smallest detectable effect 1.3 %",
        "verdict: faster",
        "A/A twin of its group: 1.0000 [0.9990, 1.0010], 15 pairs, 5 blocks, "
        "smallest detectable effect 0.13 %",
        "noise band: 0.9990 to 1.0010",
        "",
        "seconds: one steady call, in rotation with the reference of its group",
        "  ok in blocks 0-4",
        "  3 values in each block",
        "  centre of the blocks' medians 5.30 ms [5.25, 5.35]",
        "  min 5.25 ms, median 5.30 ms, max 5.35 ms",
        "  block 0 |█" + " " * 59 + "|",
        "  block 1 |" + " " * 15 + "█" + " " * 44 + "|",
        "  block 2 |" + " " * 30 + "█" + " " * 29 + "|",
        "  block 3 |" + " " * 45 + "█" + " " * 14 + "|",
        "  block 4 |" + " " * 59 + "█|",
        "          5.25 ms" + " " * 48 + "5.35 ms",
        "",
        "warnings:",
        "  before the run began: it swapped",
        "  block 0: load was high",
    ]


@pytest.mark.parametrize(
    "words",
    [
        ["m-graph-4x128-functional_submodel-middle"],
        ["graph", "functional_submodel"],
        ["tensorflow middle functional_submodel graph"],
        ["middle", "4x128", "graph", "m", "functional_submodel"],
    ],
)
def test_a_case_is_found_by_its_id_or_by_words(folder: str, words: list[str]) -> None:
    """A word that is a part of one id and only the beginning of another's means the first."""
    assert shown(folder, *words).startswith("m-graph-4x128-functional_submodel-middle\n")


def test_a_part_of_a_word_is_enough_where_it_tells(folder: str) -> None:
    assert shown(folder, "per_c").startswith("m-graph-4x128-functional_submodel_per_call-middle\n")


def test_words_that_fit_no_case_or_several_are_told(folder: str, tmp_path: Path) -> None:
    assert refused(folder, "middle") == (
        f"'middle' fits 3 cases of {folder}: m-eager-4x128-functional_submodel-middle, "
        "m-graph-4x128-functional_submodel-middle and m-graph-4x128-functional_submodel_per_call-middle; "
        "add words, or give a whole id"
    )
    assert refused(folder, "functonal_submodel graph") == (
        f"no case of {folder} fits 'functonal_submodel graph'; did you mean 'functional_submodel'?"
    )
    assert refused(folder, "xyzzy") == (
        f"no case of {folder} fits 'xyzzy': none has 'xyzzy' (the report names them all)"
    )
    assert refused(folder, "per_call", "eager") == (
        f"no case of {folder} fits 'per_call eager': no case has all of these words; nearest: "
        "m-eager-4x128-final_only, m-eager-4x128-functional_submodel-middle, "
        "m-eager-4x128-reference_again and m-graph-4x128-functional_submodel_per_call-middle"
    )
    assert refused(folder) == "name a CASE: its id as the report prints it, or words of it"
    assert refused(str(tmp_path), "x") == (
        f"no run at {tmp_path}: expected a folder with results.jsonl, as `hiddencost run` writes it"
    )


def test_single_values_are_printed_equal_ones_once() -> None:
    measured = [
        line
        for block, seconds in enumerate((1.0, 2.0))
        for line in value(ONE, "build_seconds", seconds, block) + value(ONE, "output_bytes", 2048, block)
    ]
    text = "\n".join(lines(run_of(measured), ONE))
    assert "  by block: 1.00 s, 2.00 s\n" in text
    assert "  2.000 KiB in each of 2 blocks\n" in text
    assert "time against" not in text


def test_a_peak_stands_over_that_of_its_reference() -> None:
    measured = value(ONE, "peak_heap_bytes", 3.0, 100) + value(case(), "peak_heap_bytes", 2.0, 100)
    assert "  ratio to the reference's: 1.50" in lines(run_of(measured), ONE)


def test_states_reasons_notes_and_plans_are_told() -> None:
    failed = [
        Measurement(case=ONE, metric="seconds", state="crashed", reason="signal 11", block=block)
        for block in (0, 1, 3)
    ]
    noted = Measurement(case=ONE, metric="seconds", values=(1.0, 2.0), block=2, notes={"together": "all"})
    text = lines(run_of([*failed, noted]), ONE)
    assert "  crashed in blocks 0-1 and 3: signal 11" in text
    assert "  note, block 2: together: all" in text
    assert lines(run_of([], [ONE]), ONE)[-1] == "planned, and nothing was recorded"


def test_a_wrong_case_is_told_so_and_not_judged() -> None:
    wrong = Measurement(case=ONE, metric="seconds", state="wrong", reason="differs by 1", block=9)
    text = lines(run_of([*group({SUBMODEL: 0.53}), wrong]), ONE)
    assert "WRONG in block 9: no report or verdict uses its values" in text
    assert not any(line.startswith("verdict") for line in text)


def test_too_few_blocks_have_a_reason() -> None:
    text = lines(run_of(group({SUBMODEL: 0.53}, jitter=(1.0, 1.01))), ONE)
    assert "verdict: unclear (fewer than 5 blocks: no interval)" in text
    assert any(line.endswith("2 blocks, smallest detectable effect –") for line in text)


def test_far_values_are_counted_beside_the_histogram_and_bars_count_alike() -> None:
    body = tuple(1 + i / 100 for i in range(10))
    told = histogram({0: (*body, 50.0, 60.0), 12: (*body, 1.0, 1.0, 1.0)}, "s")
    assert told[0].startswith("block 0  |▂")
    assert told[0].endswith("| 2 above")
    assert told[1].startswith("block 12 |█")
    assert told[2] == "         1.00 s" + " " * (COLUMNS + 2 - 12) + "1.09 s"
    assert max(map(len, told)) <= 100
    assert histogram({0: (2.0, 2.0)}, "s") == ["block 0 |█|", "        2.00 s"]
    assert histogram({0: (0.0, 0.0)}, "B") == ["block 0 |█|", "        0 B"]


def test_names_and_reasons_cannot_move_the_terminal(tmp_path: Path) -> None:
    evil = ONE.with_(model="m\x1b[2J\u202e\nx")
    failed = Measurement(case=evil, metric="seconds", state="crashed", reason="\x1b]0;title\x07\r\nsecond")
    text = shown(written(tmp_path / "run", [failed]), "graph")
    assert not {"\x1b", "\x07", "\r", "\u202e"} & set(text)
    assert "\n  crashed in block 0:  ]0;title   second\n" in text
    with_two = written(tmp_path / "two", [failed, msgspec.structs.replace(failed, case=evil.with_(batch=9))])
    assert not {"\x1b", "\u202e"} & set(refused(with_two, "graph"))


def test_an_encoding_without_bars_gets_plainer_signs() -> None:
    assert readable("▁▂█ – é", "utf-8") == "▁▂█ – é"
    assert readable("▁▂█ – é", "ascii") == ".:# - ?"


def test_show_starts_without_anything_heavy(folder: str) -> None:
    heavy = ["keras", "tensorflow", "jax", "torch", "matplotlib", "pandas", "jinja2", "scipy.stats"]
    code = (
        "import sys; from hiddencost import cli\n"
        f"try: cli.main(['show', {folder!r}, 'graph', 'functional_submodel'])\n"
        f"except SystemExit: print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("\n[]\n")
