"""A run of several kinds of machine: seconds are never pooled, ratios only where the kinds agree."""

import msgspec
import pytest
import synthetic
from click.testing import CliRunner

from hiddencost import store
from hiddencost.claims import sound
from hiddencost.cli import main
from hiddencost.errors import NotComparableError, UserError
from hiddencost.gate.baseline import against_baseline, keep
from hiddencost.kinds import by_kind
from hiddencost.page.kinds import kinds
from hiddencost.records import REFERENCE, Case
from hiddencost.stats import Table

MIDDLE = Case(
    model="minilm", strategy="functional_submodel", points="middle", mode="graph", batch=1, length=16
)
ALL = MIDDLE.with_(points="all")


@pytest.fixture(scope="module")
def run():
    """Ten blocks, those from the fifth on by a machine that is twice as slow, on which the middle costs a
    third more."""
    made = synthetic.synthetic_run(blocks=10)

    def elsewhere(one):
        if isinstance(one, store.Environment) and 5 <= one.block < 10:
            return msgspec.structs.replace(one, processor="Slow 1", node=f"slow/{one.block % 2}")
        if isinstance(one, store.Environment):
            return msgspec.structs.replace(one, node="fast/0")
        if isinstance(one, store.Measurement) and 5 <= one.block < 10 and one.metric == "seconds":
            slower = 2 * (4 / 3 if one.case == MIDDLE else 1)
            return msgspec.structs.replace(one, values=tuple(value * slower for value in one.values))
        return one

    return msgspec.structs.replace(
        made,
        environments=tuple(map(elsewhere, made.environments)),
        measurements=tuple(map(elsewhere, made.measurements)),
    )


def test_a_run_of_one_kind_is_left_as_it_is():
    made = synthetic.synthetic_run()
    ((kind, part),) = by_kind(made).items()
    assert part is made
    assert kind == "a synthetic processor, 2 cores"
    assert not kinds(made, by_kind(made)).full


def test_a_machine_and_its_gpu_are_one_kind(run):
    """Without a cluster, and on one: the processes of a device tell its name, the others do not."""
    for node in ("", "n/1"):
        made = synthetic.synthetic_run()
        environments = tuple(
            msgspec.structs.replace(one, node=node, gpu="H200, 140 GiB, 570" * (one.block == 1))
            for one in made.environments
        )
        made = msgspec.structs.replace(made, environments=environments)
        ((kind, part),) = by_kind(made).items()
        assert part is made
        assert kind == "a synthetic processor, 2 cores, H200"


def test_seconds_belong_to_the_kind_that_measured_them_and_bytes_to_all(run):
    fast, slow = by_kind(run).values()
    reference = MIDDLE.with_(strategy=REFERENCE, points="output")
    tables = [Table(sound(part)) for part in (fast, slow)]
    assert [sorted(table.blocks(reference, "seconds")) for table in tables] == [
        [0, 1, 2, 3, 4],
        [5, 6, 7, 8, 9],
    ]
    first, second = (table.center(reference, "seconds")[0] for table in tables)
    assert second / first == pytest.approx(2, rel=0.03)
    heap = [[m for m in part.measurements if m.metric == "peak_heap_bytes"] for part in (fast, slow)]
    assert heap[0] == heap[1] == [m for m in run.measurements if m.metric == "peak_heap_bytes"] != []
    assert list(by_kind(run)) == ["a synthetic processor, 2 cores", "Slow 1, 2 cores"]
    assert {one.processor for one in slow.environments if one.block < 100} == {"Slow 1"}


def test_ratios_are_pooled_where_the_kinds_agree_and_only_there(run):
    section = kinds(run, by_kind(run))
    machines, *tables = section.grids
    assert [row[:1] + row[2:] for row in machines.rows] == [
        ("kind 1", "1", "5", "index.html"),
        ("kind 2", "2", "5", "kinds/1/index.html"),
    ]
    (table,) = [one for one in tables if one.title == "minilm 1x16, in graph"]
    assert table.header == ("way", "kind 1", "kind 2", "pooled")
    rows = {row[0]: row for row in table.rows}
    *_, first, second, pooled = rows["functional_submodel middle"]
    assert float(second.split()[0]) / float(first.split()[0]) == pytest.approx(4 / 3, rel=0.03)
    assert pooled == "they differ"
    *_, first, second, pooled = rows["functional_submodel all"]
    assert float(pooled.split()[0]) == pytest.approx(
        (float(first.split()[0]) + float(second.split()[0])) / 2, abs=0.01
    )


def test_too_few_blocks_of_a_kind_are_not_pooled():
    made = synthetic.synthetic_run(blocks=6)
    few = msgspec.structs.replace(
        made,
        environments=tuple(
            msgspec.structs.replace(one, node="n/1", processor="Other" if one.block == 5 else one.processor)
            for one in made.environments
        ),
    )
    _, *tables = kinds(few, by_kind(few)).grids
    assert {row[-1] for table in tables for row in table.rows} == {"–"}


def test_the_gate_refuses_it(run):
    with pytest.raises(
        UserError, match="RUN: was measured on several kinds of machine, and the gate compares one"
    ):
        keep(run, "RUN")
    good = synthetic.synthetic_run()
    good = msgspec.structs.replace(
        good, measurements=tuple(m for m in good.measurements if m.state in ("ok", "skipped"))
    )
    with pytest.raises(NotComparableError, match="this run was measured on several kinds of machine"):
        against_baseline(keep(good, "BEFORE"), run, {}, 0.05)


def test_each_kind_gets_a_page_of_its_own(run, tmp_path):
    writer = store.Writer(tmp_path / "run", run.header)
    for line in (*run.environments, *run.measurements, run.ending):
        writer.write(line)
    writer.close()
    told = CliRunner().invoke(main, ["report", str(tmp_path / "run")])
    assert told.exit_code == 0, told.output
    main_page = (tmp_path / "run" / "index.html").read_text()
    assert "Kinds of machine" in main_page
    assert "they differ" in main_page
    other = tmp_path / "run" / "kinds" / "1"
    assert (other / "report.md").read_text().count("Slow 1") >= 1
    assert (other / "index.html").exists()
    shown = CliRunner().invoke(main, ["show", str(tmp_path / "run"), str(MIDDLE)])
    assert shown.output.count("On ") == 2
    assert "On Slow 1, 2 cores:" in shown.output
