"""Run folders: nothing that is stored is ever harmed, and damage is told with its place."""

import msgspec
import pytest

from hiddencost import store
from hiddencost.errors import UserError
from hiddencost.records import SCHEMA_VERSION, Case, Ending, Environment, Header, Lost, Measurement

CASE = Case(model="m", strategy="final_only", mode="graph", batch=1, length=16)
MEASUREMENT = Measurement(case=CASE, metric="seconds", values=(0.1, 0.2), block=3, notes={"capped": "yes"})
HEADER = Header(
    schema_version=SCHEMA_VERSION,
    hiddencost_version="0",
    started="2026-01-01T00:00:00+00:00",
    command="hiddencost run",
    grid_name="g",
    grid='name = "g"',
    seed=1,
    git_commit="",
    planned=(CASE,),
)


@pytest.fixture
def run(tmp_path):
    """A run folder with one measurement, not ended."""
    writer = store.Writer(tmp_path / "run", HEADER)
    writer.write(MEASUREMENT)
    writer.close()
    return tmp_path / "run"


def test_what_is_written_is_read_back(run):
    found = store.read(run)
    assert found.header == HEADER
    assert found.measurements == (MEASUREMENT,)
    assert found.ending is None


def test_a_header_is_read_alone_whatever_comes_after_it(run):
    with open(run / store.RESULTS, "a") as file:
        file.write("damaged\n")
    assert store.header(run) == HEADER
    (run / store.RESULTS).write_text('{"schema_version": 1}\n')
    with pytest.raises(UserError, match="damaged"):
        store.header(run)


def test_the_ending_is_read_back(tmp_path):
    writer = store.Writer(tmp_path, HEADER)
    writer.write(Ending(finished="now", how="interrupted", seconds=1.5))
    writer.close()
    assert store.read(tmp_path).ending == Ending(finished="now", how="interrupted", seconds=1.5)


def test_a_folder_with_a_run_is_refused_and_left_as_it_was(run):
    before = (run / store.RESULTS).read_bytes()
    with pytest.raises(UserError, match=r"output folder .* holds another run: choose another with --out"):
        store.Writer(run, HEADER)
    assert (run / store.RESULTS).read_bytes() == before


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"output folder .*file is a file, not a folder"):
        store.Writer(tmp_path / "file", HEADER)
    with pytest.raises(UserError, match=r"output folder .*below: not writable \(Not a directory\)"):
        store.Writer(tmp_path / "file" / "below", HEADER)


def test_a_last_line_cut_short_by_a_kill_is_left_out(run):
    path = run / store.RESULTS
    whole = path.read_bytes()
    for cut in range(1, 40):
        path.write_bytes(whole + store.encode(MEASUREMENT)[:-cut])
        assert store.read(run).measurements == (MEASUREMENT,)


def test_a_run_that_goes_on_loses_the_line_that_was_cut_short_and_nothing_else(run):
    path = run / store.RESULTS
    whole = path.read_bytes()
    path.write_bytes(whole + store.encode(MEASUREMENT)[:-5])
    writer = store.Writer(run, None)
    ending = Ending(finished="now", how="interrupted", seconds=1.5)
    writer.write(ending)
    with pytest.raises(UserError, match="another hiddencost is writing to this run"):
        store.Writer(run, None)
    writer.close()
    assert path.read_bytes() == whole + store.encode(ending)
    later = store.Writer(run, None)
    later.write(Ending(finished="later", how="complete", seconds=2.0))
    later.close()
    assert store.read(run).ending == Ending(finished="later", how="complete", seconds=3.5)


def test_there_is_no_run_to_go_on_with(tmp_path):
    with pytest.raises(UserError, match=r"not writable \(No such file or directory\)"):
        store.Writer(tmp_path / "none", None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (lambda lines: [lines[0], b"{broken", lines[1]], "damaged at line 2: "),
        (lambda lines: [lines[0], lines[1].replace(b"0.1", b'"x"')], "damaged at line 2: Expected `float`"),
        (lambda lines: [lines[1]], "damaged: the first line is not the header of a hiddencost run"),
        (lambda lines: [b"\xff\xfe"], "damaged: the first line is not the header of a hiddencost run"),
        (lambda lines: [b"[]"], "damaged: the first line is not the header of a hiddencost run"),
        (
            lambda lines: [lines[0].replace(b'"schema_version":1', b'"schema_version":99')],
            "written by a newer hiddencost (schema 99, this one reads up to 1)",
        ),
        (
            lambda lines: [lines[0].replace(b'"schema_version":1', b'"schema_version":0')],
            "schema 0 is not known to this hiddencost (schema 1)",
        ),
    ],
)
def test_damage_is_told_with_its_place_and_nothing_is_changed(run, damage, line):
    path = run / store.RESULTS
    path.write_bytes(b"\n".join(damage(path.read_bytes().splitlines())) + b"\n")
    before = path.read_bytes()
    with pytest.raises(UserError) as caught:
        store.read(run)
    assert str(caught.value).startswith(f"{path}: {line}")
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before


def test_an_empty_file_and_a_missing_run_are_told(tmp_path):
    (tmp_path / store.RESULTS).write_bytes(b"")
    with pytest.raises(UserError, match="damaged: no complete first line"):
        store.read(tmp_path)
    with pytest.raises(UserError, match=r"no run at .*nowhere: expected a folder with results\.jsonl"):
        store.read(tmp_path / "nowhere")


def test_an_old_schema_is_migrated_step_by_step(run, monkeypatch):
    monkeypatch.setattr(store, "SCHEMA_VERSION", 3)
    monkeypatch.setattr(
        store,
        "MIGRATIONS",
        {1: lambda raw: {**raw, "block": 7} if "block" in raw else raw, 2: lambda raw: raw},
    )
    assert store.read(run).measurements[0].block == 7


def test_latest_points_to_the_newest_run_and_harms_nothing_else(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        store.point_latest(tmp_path / "runs" / name, tmp_path / "latest")
        assert (tmp_path / "latest").resolve() == tmp_path / "runs" / name
    (tmp_path / "taken").mkdir()
    with pytest.raises(UserError, match="exists and is not a link"):
        store.point_latest(tmp_path / "runs" / "a", tmp_path / "taken")
    assert (tmp_path / "taken").is_dir()


@pytest.mark.parametrize(
    ("values", "places", "told"),
    [
        ((0.0,), (), r"seconds of m-graph-1x16-final_only cannot be \[0\.0\]"),
        ((-1.0, 1.0), (), r"cannot be \[-1\.0, 1\.0\]"),
        ((1.0, 2.0), (1,), "1 places for 2 values of m-graph-1x16-final_only"),
    ],
)
def test_what_cannot_have_been_measured_is_damage(tmp_path, values, places, told):
    line = store.encode(HEADER) + store.encode(MEASUREMENT)
    raw = msgspec.json.decode(store.encode(MEASUREMENT))
    raw.update(values=values, places=places)
    (tmp_path / store.RESULTS).write_bytes(line + msgspec.json.encode(raw) + b"\n")
    with pytest.raises(UserError, match=f"damaged at line 3: .*{told}"):
        store.read(tmp_path)


def test_what_a_block_measured_before_it_was_lost_does_not_count(tmp_path):
    """Of that block, backend and device alone."""

    def environment(node, block=0, backend="tensorflow"):
        return Environment(
            block=block,
            backend=backend,
            node=node,
            versions={},
            python="3",
            system="Linux",
            processor="p",
            cores=1,
            memory_bytes=1,
            threads={},
            load=(0.0, 0.0, 0.0),
        )

    def measured(seconds, block=0, backend="tensorflow", device="cpu"):
        case = CASE.with_(backend=backend, device=device)
        return Measurement(case=case, metric="seconds", values=(seconds,), block=block)

    writer = store.Writer(tmp_path / "run", HEADER)
    for line in (
        environment("a"),
        measured(1.0),
        environment("b", backend="jax"),
        measured(2.0, backend="jax"),
        measured(3.0, device="gpu"),
        environment("c", block=1),
        measured(4.0, block=1),
        Lost(block=0, backend="tensorflow", device="cpu", reason="lost with a"),
        environment("b"),
        measured(5.0),
    ):
        writer.write(line)
    writer.close()
    found = store.read(tmp_path / "run")
    assert [m.values[0] for m in found.measurements] == [2.0, 3.0, 4.0, 5.0]
    assert [(one.block, one.node) for one in found.environments] == [(0, "b"), (1, "c"), (0, "b")]
