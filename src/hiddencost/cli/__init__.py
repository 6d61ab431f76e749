"""The command line: wiring only."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from hiddencost import __version__, formatting, grid, store
from hiddencost.cli.extracting import extract
from hiddencost.cli.forecasting import forecast
from hiddencost.cli.gate import baseline, gate
from hiddencost.cli.measuring import (
    REPORTS,
    header,
    measured,
    refuse_nothing,
    share,
    silent,
    supervised,
    warn,
)
from hiddencost.cli.showing import show
from hiddencost.errors import UserError
from hiddencost.grid import checking, planning
from hiddencost.kinds import by_kind
from hiddencost.records import TWIN, Run
from hiddencost.supervise import CASE_TIMEOUT
from hiddencost.trees import git_commit

_T = TypeVar("_T")


INTERNAL = 70
"""EX_SOFTWARE of sysexits.h."""
NOBODY_READS = 128 + signal.SIGPIPE
"""What a shell gives for a program that writes to a pipe which its reader has closed."""


class _Command(click.Group):
    """A group whose commands tell bad input in one line and exit with 2 (`--debug` shows where), and exit
    with 130 when they are interrupted, with 141 when nobody reads what they write, and with 70 where they
    fail: 1 would say that the gate found a regression."""

    def invoke(self, context: click.Context) -> Any:
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # which ends what it has begun
        try:
            return super().invoke(context)
        except UserError as error:
            if context.params.get("debug"):
                raise
            click.echo(f"hiddencost: {error}", err=True)
            sys.exit(2)
        except KeyboardInterrupt:
            click.echo("\nInterrupted.", err=True)
            sys.exit(130)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is flushed at the end
            sys.exit(NOBODY_READS)
        except click.UsageError as error:  # click itself takes four lines
            command = (error.ctx or context).command_path
            told = formatting.one_line(error.format_message())
            click.echo(f"hiddencost: {told} (see `{command} --help`)", err=True)
            sys.exit(error.exit_code)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception:
            traceback.print_exc()
            sys.exit(INTERNAL)
        finally:
            signal.signal(signal.SIGTERM, before)


@click.group(cls=_Command, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__)
@click.option("--debug", is_flag=True, help="Show a traceback with an error.")
def main(debug: bool) -> None:
    """What does a hidden state cost?

    Measures what it costs to read the hidden states out of a Keras or KerasHub model: time, peak
    memory and one-off cost, way by way, against the plain forward pass.

    \b
    A first look in about a minute:   hiddencost run --grid smoke
    The full answer in 20 minutes:    hiddencost run
    Its report again:                 hiddencost report reports/latest
    One case with its raw values:     hiddencost show reports/latest middle 1x16 graph
    """


def _list_of(convert: Callable[[str], _T]) -> Callable[[click.Context, click.Parameter, str | None], Any]:
    def parse(context: click.Context, parameter: click.Parameter, value: str | None) -> list[_T] | None:
        if value is None:
            return None
        try:
            return [convert(part.strip()) for part in value.split(",")]
        except ValueError:
            raise UserError(
                f"{parameter.opts[0]} '{value}': expected numbers joined by commas, as 64,128"
            ) from None

    return parse


def _axis(
    name: str, parameter: str, text: str, kind: Callable[[str], Any] = str
) -> Callable[[click.decorators.FC], click.decorators.FC]:
    return click.option(
        name, parameter, metavar="A,B", callback=_list_of(kind), help=f"{text}, in place of the grid's."
    )


@main.command()
@click.option(
    "--grid",
    "grid_name",
    default="default",
    show_default=True,
    help="What to measure: default, smoke, full, or a TOML file.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Run folder [default: reports/runs/DATE-GRID].")
@_axis("--model", "model", "Models (see `hiddencost models`)")
@_axis("--strategy", "strategy", "Strategies (see `hiddencost strategies`)")
@_axis("--points", "points", "Hidden states: last, middle, last_four, all, block_3, -1")
@_axis(
    "--backend",
    "backend",
    "Backends: tensorflow, jax, torch; or peers: transformers, nnsight, transformer_lens",
)
@_axis("--device", "device", "Devices: cpu, gpu")
@_axis("--mode", "mode", "Modes: eager, graph, xla, jit, compile, export, predict")
@_axis("--batch", "batch", "Batch sizes", int)
@_axis("--seq", "length", "Sequence lengths", int)
@_axis("--dtype", "dtype", "Number formats: float32, bfloat16, mixed_bfloat16")
@click.option("--blocks", type=int, help="Timing processes, each measuring everything once.")
@click.option("--seconds", type=float, help="Most seconds that a group's rotation takes in a block.")
@click.option(
    "--precision", callback=share, metavar="1%", help="Wanted half-width of the intervals of ratios."
)
@click.option("--budget", type=float, help="Seconds that all timing blocks should take together.")
@click.option(
    "--case-timeout",
    type=float,
    default=CASE_TIMEOUT,
    show_default=True,
    help="Seconds after which a case that hangs is given up.",
)
@click.option("--threads", type=int, help="Threads for one operation.")
@click.option(
    "--executor",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Where blocks are measured: here, one after the other; or on the nodes of a Ray cluster.",
)
@click.option("--address", metavar="HOST:PORT", help="Head of the Ray cluster [default: the one here].")
@click.option(
    "--resume",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Go on with a run that was interrupted or killed. Its plan is in it: nothing else is given.",
)
@click.argument("pytest_arguments", nargs=-1, type=click.UNPROCESSED)
def run(
    grid_name: str,
    out: Path | None,
    resume: Path | None,
    case_timeout: float,
    executor: str,
    address: str | None,
    pytest_arguments: tuple[str, ...],
    **overrides: Any,
) -> None:
    """Measure a grid into a run folder, and write its report.

    An axis given here replaces that axis in every [[forward]] and [[memory]] section of the
    grid. Arguments after `--` go to pytest, so that its selection works:
    hiddencost run --grid smoke -- -k middle
    (Plugins that are installed are not loaded, unless one is named there: -p MODULE.)

    Ctrl-C keeps what was measured.
    """
    if not case_timeout > 0:
        raise UserError(f"--case-timeout {case_timeout:g}: must be above 0 seconds")
    if address and executor != "ray":
        raise UserError(f"--address {address}: add --executor ray")
    if resume is not None:
        _go_on(resume, case_timeout, _given(click.get_current_context()), executor, address)
        return
    from hiddencost.suites import CATALOGUE

    source = grid.grid_path(grid_name)
    planned, text = grid.read(source)
    axes = {
        name: overrides[name] for name in ("backend", "device", *grid.AXES) if overrides[name] is not None
    }
    names = ("blocks", "precision", "seconds", "budget", "threads")
    time = {name: overrides[name] for name in names if overrides[name] is not None}
    replaced = "backend" in axes or "device" in axes
    catalogue = CATALOGUE if executor == "local" else checking.any_device(CATALOGUE)  # nodes have their own
    checking.check(planned, checking.anywhere(CATALOGUE) if replaced else catalogue, f"grid {source}")
    planned = grid.override(planned, axes, time)
    checking.check(planned, catalogue, "command line")
    timed, memory = planning.timed_jobs(planned), planning.memory_jobs(planned)
    if not timed and not memory:
        raise UserError(f"grid {source}: plans no case: give it a [[forward]] or a [[memory]] section")
    folder = out or REPORTS / "runs" / f"{datetime.now(UTC):%Y-%m-%d-%H%M%S}-{planned.name}"
    if out is None:
        store.check_latest(REPORTS / "latest")
    ray = _connected(executor, address)
    warnings = warn(timed) if ray is None else ()
    writer = store.Writer(folder, header(planned, text, [*timed, *memory], warnings))
    how = supervised(writer, timed, memory, pytest_arguments, case_timeout, ray)
    if out is None:
        store.point_latest(folder, REPORTS / "latest")
    _finish(folder, how, executor)


def _given(context: click.Context) -> list[str]:
    """What the command line gives besides --resume that would change the plan."""
    from click.core import ParameterSource

    return [
        parameter.opts[0] if isinstance(parameter, click.Option) else "what follows --"
        for parameter in context.command.params
        if parameter.name not in ("resume", "case_timeout", "executor", "address")
        and context.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE
    ]


def _connected(executor: str, address: str | None) -> Any:
    """Ray, where it is to measure."""
    if executor != "ray":
        return None
    from hiddencost.cluster import connect

    return connect(address or "auto")


def _go_on(
    folder: Path, case_timeout: float, given: Sequence[str], executor: str, address: str | None
) -> None:
    """Measures what a run lacks, where it can be compared with what it has."""
    from hiddencost import environment
    from hiddencost.cluster import anew
    from hiddencost.supervise import remaining

    if given:
        raise UserError(f"--resume takes the plan from the run: leave out {', '.join(given)}")
    found = store.read(folder)
    planned = grid.planned_in(found.header, str(folder))
    if found.environments and bool(found.environments[0].node) != (executor == "ray"):
        where, to_do = ("on a cluster", "add") if executor == "local" else ("on one machine", "leave out")
        raise UserError(f"{folder}: was measured {where}: {to_do} --executor ray")
    # Machines of a cluster may differ: their seconds are never pooled.
    compared = environment.changes if executor == "local" else environment.changed_versions
    changes = [
        change
        for before in found.environments[:1]
        for change in compared(
            before, environment.capture(0, {}, own_load=0, backend=before.backend, device=before.device)
        )
    ]
    if found.header.git_commit != (commit := git_commit()):
        changes.append(f"hiddencost's commit was {found.header.git_commit} and is {commit}")
    if changes:
        raise UserError(f"{folder}: cannot be resumed: {'; '.join(changes)}. Start a new run")
    every = planning.timed_jobs(planned), planning.memory_jobs(planned)
    timed, memory = (remaining(jobs, found) for jobs in every)
    if not timed and not memory:
        click.echo(f"{folder}: nothing is missing")
        if found.ending is None or found.ending.how != "complete":  # but for the last line
            supervised(store.Writer(folder, None), (), (), ())
        del found
        _finish(folder, "complete")
        return
    ray = _connected(executor, address)
    writer = store.Writer(folder, None)
    if ray is None:
        warn(timed)
    else:
        timed, memory = (
            anew(writer, jobs, left, found) for jobs, left in zip(every, (timed, memory), strict=True)
        )
    del found  # of a large run it is large, and is read again in the end
    how = supervised(writer, timed, memory, (), case_timeout, ray)
    if folder.parent == REPORTS / "runs":
        store.point_latest(folder, REPORTS / "latest")
    _finish(folder, how, executor)


def _finish(folder: Path, how: str, executor: str = "local") -> None:
    """The last words of a run."""
    if how == "interrupted":
        there = f" --executor {executor}" * (executor != "local")
        click.echo(
            f"\nInterrupted. What was measured is kept: hiddencost report {folder}\n"
            f"Go on:                                   hiddencost run --resume {folder}{there}"
        )
        sys.exit(130)
    found = store.read(folder)
    refuse_nothing(found, folder)
    _report(found, folder)


@main.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="On the page also what moved since another run, with the gate's verdicts.",
)
def report(run_folder: Path, against: Path | None) -> None:
    """Write the page, the report and the plots of a finished or interrupted RUN, from its results alone."""
    _report(store.read(run_folder), run_folder, against)


def _report(found: Run, folder: Path, against: Path | None = None) -> None:
    from hiddencost import page, plots
    from hiddencost.page.compared import compare
    from hiddencost.page.html import write_page
    from hiddencost.page.kinds import kinds, page_of

    compared = compare(found, store.read(against), str(against)) if against else None
    into = folder if folder.is_dir() else folder.parent
    parts = by_kind(found)
    beside = kinds(found, parts)
    also = [beside] if beside.full else []
    made = []
    try:
        for number, part in enumerate(parts.values()):
            place = into / page_of(number)
            drawn = plots.render(part, place / "plots")
            written = page.write_report(part, place, drawn, also)
            made.append((part, write_page(part, place, drawn, compared, also), written))
    except OSError as error:
        raise UserError(
            f"report of {folder}: cannot be written ({error.strerror}: {error.filename})"
        ) from None
    part, shown, written = made[0]
    click.echo("\n".join([*page.summary_lines(part), *page.together_lines(part)]))
    click.echo(f"\nRun:      {folder}\nPage:     {shown}\nReport:   {written}")
    click.echo(f"One case: hiddencost show {folder} CASE\nAgain:    hiddencost report {folder}")


@main.command()
@click.option("--look-only", is_flag=True, help="Leave out the A/A run (a minute or two).")
def doctor(look_only: bool) -> None:
    """Tell what on this machine makes timings unreliable; nothing is changed.

    Then the plain forward pass is timed against itself in five processes: how far the two seem
    apart is the machine's noise floor, and the smallest slowdown what a gate here can hold.
    """
    from hiddencost import environment

    for check in (*environment.checks(own_load=0), environment.steadiness()):
        sign = "ok" if not check.trouble else "!!" if check.serious else "--"
        click.echo(f"{sign}  {check.what}: {check.figure}" + f": {check.trouble}" * bool(check.trouble))
        if check.trouble:
            click.echo(f"      {check.mend}")
    if look_only:
        return
    with tempfile.TemporaryDirectory() as folder:
        _noise_floor(Path(folder) / "noise")


def _noise_floor(folder: Path) -> None:
    """Measures the grid `noise` into the folder and tells what its twins say."""
    from hiddencost.suites import CATALOGUE

    source = grid.grid_path("noise")
    planned, text = grid.read(source)
    checking.check(planned, CATALOGUE, f"grid {source}")
    timed = planning.timed_jobs(planned)
    click.echo("\nThe plain forward pass against itself:")
    measured(folder, planned, text, timed, ())
    run = store.read(folder)
    refuse_nothing(run, folder)
    from hiddencost.gate.judging import SURE, Evidence, judge
    from hiddencost.stats import Table

    table = Table(run)
    for twin in table.cases("seconds", strategy=TWIN):
        band, (shifts, _) = table.center(twin.group, "seconds"), table.log_ratios(twin, twin.group)
        if band is None or not shifts:
            continue
        (found,) = judge([Evidence(twin, "seconds", 1.0, 1.0, shifts)], grid.GATED, SURE)
        told = f"{twin.group.mode}, {twin.batch} x {twin.length}, {formatting.quantity(*band, unit='s')}: "
        if found.ratio is None or found.smallest_detectable is None:
            click.echo(told + found.reason)
            continue
        click.echo(
            f"{told}ratio {formatting.quantity(found.ratio, found.low, found.high)}; "
            f"smallest slowdown that a gate of one case would find here: {found.smallest_detectable:.1%}"
        )


@main.command()
def models() -> None:
    """List the models that can be named."""
    from hiddencost.models import MODELS, PRESET

    _table([(spec.name, spec.summary) for spec in MODELS])
    click.echo(
        f"\nAny KerasHub preset or local preset folder: {PRESET}NAME_OR_FOLDER\n"
        "Your own: package.module:function, which returns a model, or a model and its inputs\n"
        "One stack of a model that has several: MODEL#STACK (see `hiddencost points MODEL`)"
    )


@main.command()
@click.argument("model", required=False)
@click.option("--stack", help="Only this stack, where the model has several.")
@click.option(
    "--all-backbones",
    is_flag=True,
    help="Instead: are those of every KerasHub backbone, of models in use and of handwritten graphs found? "
    "The same as `run --grid points`.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Run folder of --all-backbones.")
@click.option("--backend", help="tensorflow, jax or torch  [default: tensorflow; --all-backbones: all three]")
@click.pass_context
def points(
    context: click.Context,
    model: str | None,
    stack: str | None,
    all_backbones: bool,
    out: Path | None,
    backend: str | None,
) -> None:
    """List the hidden states of MODEL, with the layer that makes each (see `hiddencost models`)."""
    if all_backbones:
        if model or stack:
            raise UserError(f"--all-backbones looks at every model: leave out {model or f'--stack {stack}'}")
        context.invoke(run, grid_name="points", out=out, backend=backend.split(",") if backend else None)
        return
    if model is None:
        raise UserError("name a MODEL (see `hiddencost models`), or give --all-backbones")
    if out:
        raise UserError(f"--out {out}: only --all-backbones writes a run folder")
    _list_points(model, stack, backend or "tensorflow")


def _list_points(model: str, stack: str | None, backend: str) -> None:
    from hiddencost import backends, models
    from hiddencost.points import all_stacks, hidden_states

    models.check(model)
    backends.check(grid.known_backend(backend))
    with silent():
        backends.start(backend, 1)
    loaded = models.LoadedModel(model).model
    stack = stack or models.stack_of(model)
    found = all_stacks(loaded)
    if stack is not None or not found:  # the right words for a wrong name, and for a model without any
        found = {stack or "": hidden_states(loaded, stack)}
    rows = [("stack", "point", "layer", "call", "shape", "dtype", "inside")]
    for name, states in found.items():
        for point in states.named:
            inside = " > ".join(call.operation.name for call in point.outer) or formatting.NONE
            shape = " x ".join("?" if size is None else str(size) for size in point.tensor.shape)
            kind = f"{type(point.layer).__name__} {point.layer.name}"
            rows.append((name, point.name, kind, str(point.call), shape, str(point.tensor.dtype), inside))
    click.echo("\n".join(formatting.aligned(rows)))


@main.command()
def strategies() -> None:
    """List the ways to read hidden states."""
    from hiddencost.peers import PEERS
    from hiddencost.strategies import STRATEGIES

    _table([(strategy.name, strategy.summary) for strategy in STRATEGIES])
    click.echo("\nYour own: package.module:function, with the signature of these (model, points, wanted)")
    for name, peer in PEERS.items():
        click.echo(f"\nOf {name}, with --backend {name}:")
        _table([(strategy.name, strategy.summary) for strategy in peer.ways])


def _table(rows: Sequence[tuple[str, str]]) -> None:
    click.echo("\n".join(formatting.aligned(rows)))


for command in (baseline, extract, forecast, gate, show):
    main.add_command(command)
