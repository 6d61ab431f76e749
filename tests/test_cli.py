"""The command line as a person meets it: one clear line for bad input, exit code 2, nothing harmed."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests_data import small_run

from hiddencost import backends, cli, models, store


def call(*arguments):
    return CliRunner().invoke(cli.main, list(arguments))


def refused(*arguments):
    """The one line on stderr of a command that is refused."""
    result = call(*arguments)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    assert result.stderr.count("\n") == 1, result.stderr
    assert result.stderr.startswith("hiddencost: ")
    return result.stderr.removeprefix("hiddencost: ").strip()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--grid", "smoek"], "unknown grid 'smoek'; did you mean 'smoke'?, or a TOML file"),
        (
            ["--model", "minlm"],
            "unknown model 'minlm'; did you mean 'minilm'? "
            "(any KerasHub preset or folder: preset:NAME_OR_FOLDER; your own: package.module:function)",
        ),
        (
            ["--strategy", "always"],
            "command line: unknown strategy 'always' in [[forward]]; did you mean 'always_return_all'?",
        ),
        (["--mode", "grahp"], "command line: unknown mode 'grahp' in [[forward]]; did you mean 'graph'?"),
        (
            ["--points", "block1"],
            "command line: unknown point 'block1' in [[forward]]; did you mean 'block_0'?",
        ),
        (["--batch", "0"], "command line: [forward] batch 0: must be at least 1"),
        (["--seq", "1024"], "command line: [forward] length 1024: minilm takes at most 512 tokens"),
        (["--seq", "many"], "--seq 'many': expected numbers joined by commas, as 64,128"),
        (["--blocks", "0"], "command line: [time] blocks = 0: must be at least 1"),
        (["--seconds", "-1"], "command line: [time] seconds = -1.0: must be above 0 and below 3600"),
        (
            ["--model", "vgg16", "--points", "last"],
            "command line: [[forward]] points 'last' needs 1 block: vgg16 has 0",
        ),
        (["--model", "preset:/no/such/folder"], "preset folder /no/such/folder does not exist"),
    ],
)
def test_bad_input_to_run_is_one_line(tmp_path, arguments, line):
    grid = [] if "--grid" in arguments else ["--grid", "smoke"]
    found = refused("run", *grid, "--out", str(tmp_path / "run"), *arguments)
    assert found == line
    assert not (tmp_path / "run").exists()


def test_a_gpu_that_is_not_there_is_told_before_anything_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(backends, "FIRST_GPU", tmp_path / "nvidia0")
    out = ("--out", str(tmp_path / "run"))
    line = (
        f"device 'gpu': this machine shows no NVIDIA GPU ({tmp_path}/nvidia0); leave it out, or --device cpu"
    )
    assert refused("run", "--grid", "smoke", "--device", "gpu", *out) == line
    assert not (tmp_path / "run").exists()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text('name = "mine"\ndevice = ["gpu"]')
    assert refused("run", "--grid", "mine.toml", *out) == line


def test_an_unknown_option_is_told_with_the_nearest_one():
    line = refused("run", "--gird", "smoke")
    assert line.startswith("No such option '--gird'.")
    assert "'--grid'" in line
    assert line.endswith(" run --help`)")


def test_a_preset_folder_without_weights_is_told(tmp_path):
    folder = tmp_path / "preset"
    folder.mkdir()
    line = refused("run", "--grid", "smoke", "--model", f"preset:{folder}", "--out", str(tmp_path / "run"))
    assert line == f"preset folder {folder} has no config.json: not a KerasHub or Hugging Face preset"
    shutil.copy(models.minilm_folder() / "config.json", folder)
    line = refused("run", "--grid", "smoke", "--model", f"preset:{folder}", "--out", str(tmp_path / "run"))
    assert line == f"preset folder {folder} has no weights (*.weights.h5 or *.safetensors)"


def test_a_preset_folder_tells_its_longest_sequence(tmp_path):
    folder = models.minilm_folder()
    line = refused("run", "--grid", "smoke", "--model", f"preset:{folder}", "--seq", "600")
    assert line.endswith(f"length 600: preset:{folder} takes at most 512 tokens")


def test_a_folder_that_holds_a_run_is_refused_and_left_as_it_was(tmp_path):
    run = small_run(tmp_path / "run")
    before = (run / store.RESULTS).read_bytes()
    line = refused("run", "--grid", "smoke", "--out", str(run))
    assert line == f"output folder {run} holds another run: choose another with --out"
    assert (run / store.RESULTS).read_bytes() == before
    assert [path.name for path in run.iterdir()] == [store.RESULTS]


def test_a_folder_that_is_not_writable_is_refused():
    """A folder in which nobody can make another, not even root."""
    line = refused("run", "--grid", "smoke", "--out", "/proc/nowhere/run")
    assert line.startswith("output folder /proc/nowhere/run: not writable (")


def test_a_damaged_and_a_newer_results_file_are_told_and_left_as_they_were(tmp_path):
    run = small_run(tmp_path / "run")
    path = run / store.RESULTS
    header, *rest = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([header, b'{"type":"measur', *rest]) + b"\n")
    before = path.read_bytes()
    assert refused("report", str(run)).startswith(f"{path}: damaged at line 2: ")
    newer = {**json.loads(header), "schema_version": 99}
    path.write_bytes(json.dumps(newer).encode() + b"\n")
    assert refused("report", str(run)) == (
        f"{path}: written by a newer hiddencost (schema 99, this one reads up to 1): "
        "upgrade with `pip install -U hiddencost`"
    )
    path.write_bytes(before)
    assert sorted(p.name for p in run.iterdir()) == [store.RESULTS]


def test_a_report_of_nothing_is_told(tmp_path):
    line = refused("report", str(tmp_path))
    assert (
        line == f"no run at {tmp_path}: expected a folder with results.jsonl, as `hiddencost run` writes it"
    )


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "name a MODEL (see `hiddencost models`), or give --all-backbones"),
        (["minilm", "--all-backbones"], "--all-backbones looks at every model: leave out minilm"),
        (
            ["--all-backbones", "--stack", "encoder"],
            "--all-backbones looks at every model: leave out --stack encoder",
        ),
        (["minilm", "--out", "folder"], "--out folder: only --all-backbones writes a run folder"),
        (
            ["--all-backbones", "--backend", "tensorflw"],
            "unknown backend 'tensorflw'; did you mean 'tensorflow'?",
        ),
    ],
)
def test_bad_input_to_points_is_one_line(arguments, line):
    assert line in refused("points", *arguments)


def test_debug_shows_where(tmp_path):
    result = call("--debug", "report", str(tmp_path))
    assert type(result.exception).__name__ == "UserError"


def test_the_lists_name_everything():
    from hiddencost.strategies import STRATEGIES

    listed = call("strategies").output
    assert all(strategy.name in listed for strategy in STRATEGIES)
    listed = call("models").output
    assert all(spec.name in listed for spec in models.MODELS)
    assert "preset:NAME_OR_FOLDER" in listed


def test_help_teaches_the_first_commands():
    found = call("--help").output
    assert "hiddencost run --grid smoke" in found
    assert "hiddencost report" in found


def test_a_report_command_starts_in_well_under_a_second(tmp_path):
    """Its imports: nothing that needs a framework, and no scipy.stats (half a second by itself)."""
    code = "import sys; from hiddencost import cli, page; print('scipy.stats' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_the_report_is_written_from_the_results_alone(tmp_path):
    run = small_run(tmp_path / "run")
    result = call("report", str(run))
    assert result.exit_code == 0, result.output
    assert (run / "report.md").is_file()
    assert f"Report:   {run / 'report.md'}" in result.output
    assert Path(run / "plots").is_dir()


@pytest.mark.parametrize(
    ("points", "line"),
    [
        ("block_6", "point 'block_6': minilm has block_0 to block_5"),
        ("7", "point 7: minilm has points 0 (embeddings) to 6 (last block)"),
        ("-8", "point -8: minilm has points 0 (embeddings) to 6 (last block)"),
    ],
)
def test_points_that_the_model_lacks_are_told_before_anything_runs(points, line):
    assert refused("run", "--grid", "smoke", "--points", points) == f"command line: [[forward]] {line}"


def test_too_few_blocks_for_the_points_are_told():
    line = refused("run", "--grid", "smoke", "--model", "bert_tiny", "--points", "last_four")
    assert line == "command line: [[forward]] points 'last_four' needs 4 blocks: bert_tiny has 2"


def test_both_spellings_of_keras_hub_name_a_preset():
    folder = models.minilm_folder()
    for prefix in ("preset:", "keras_hub:", "keras_nlp:"):
        assert models.max_length(f"{prefix}{folder}") == 512
        assert models.blocks(f"{prefix}{folder}") == 6


def test_a_home_folder_is_expanded(monkeypatch):
    monkeypatch.setenv("HOME", str(models.minilm_folder().parent))
    models.check("preset:~/model")
    assert models.find("preset:~/model").tokenizer() == str(models.minilm_folder())


def test_a_preset_with_an_odd_configuration_is_no_traceback(tmp_path):
    folder = tmp_path / "odd"
    folder.mkdir()
    for text in ("[]", '{"config": null}', "{broken"):
        (folder / "config.json").write_text(text)
        models.find.cache_clear()
        assert models.max_length(f"preset:{folder}") is None


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--case-timeout", "0"), "--case-timeout 0: must be above 0 seconds"),
        (("--precision", "fine"), "--precision 'fine': expected a percentage, as 1%"),
        (
            ("--precision", "200%"),
            "command line: [time] precision = 2.0: must be between 0 and 1, such as 0.01 for 1 %",
        ),
        (
            ("--resume", "nowhere"),
            "no run at nowhere: expected a folder with results.jsonl, as `hiddencost run`",
        ),
        (("--address", "head:6379"), "--address head:6379: add --executor ray"),
        (
            ("--executor", "ray", "--address", "ray://head:10001"),
            "--address ray://head:10001: give HOST:PORT of the cluster's head, from one of its nodes",
        ),
    ],
)
def test_wrong_options_of_a_run_are_told(tmp_path, monkeypatch, arguments, line):
    monkeypatch.chdir(tmp_path)
    assert refused("run", *arguments).startswith(line)
    assert list(tmp_path.iterdir()) == []


def test_without_ray_the_command_that_installs_it_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)
    told = refused("run", "--grid", "smoke", "--executor", "ray")
    assert told == "--executor ray: Ray is not installed: pip install 'hiddencost[ray]'"
    assert list(tmp_path.iterdir()) == []


def test_something_else_called_latest_is_told_before_anything_is_measured(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reports" / "latest").mkdir(parents=True)
    line = refused("run", "--grid", "smoke")
    assert line == "reports/latest exists and is not a link to a run: move it away, or use --out"
    assert not (tmp_path / "reports" / "runs").exists()


def test_a_run_that_measured_nothing_is_refused_with_the_reason(tmp_path, monkeypatch):
    """As a model whose blocks are not plainly listed gives it."""
    from hiddencost.records import Case, Ending, Measurement
    from hiddencost.supervise import Supervisor

    def nothing(self, timed, memory):
        for task in timed[0].tasks:
            self.writer.write(
                Measurement(case=task.case, metric="seconds", state="crashed", reason="no blocks listed")
            )
        self.writer.write(
            Measurement(case=Case(model="import", strategy="keras"), metric="import_seconds", values=(1.0,))
        )
        loaded = Measurement(case=timed[0].tasks[0].case, metric="load_seconds", values=(1.0,))
        self.writer.write(loaded)
        self.writer.write(Ending(finished="", how="complete", seconds=1.0))
        return "complete"

    monkeypatch.setattr(Supervisor, "run", nothing)
    folder = tmp_path / "run"
    line = refused("run", "--grid", "smoke", "--out", str(folder))
    assert line == f"nothing was measured ({folder}): no blocks listed"


def test_arguments_that_pytest_refuses_are_told(tmp_path):
    folder = tmp_path / "run"
    line = refused("run", "--grid", "smoke", "--out", str(folder), "--", "--no-such-option")
    log = folder / "logs" / "block-0.log"
    told, hint = line.split(" (", 1)
    assert told == f"pytest refused its arguments ['--no-such-option']: see {log}"
    assert hint == "a plugin's own take -p and the plugin's name too)"


def test_a_grid_that_is_wrong_is_told_by_the_suites_alone_too(tmp_path):
    from hiddencost.grid import bench_folder

    done = subprocess.run(
        [sys.executable, "-m", "pytest", str(bench_folder()), "--grid", "smoek"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 4
    assert "ERROR: unknown grid 'smoek'; did you mean 'smoke'?" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
