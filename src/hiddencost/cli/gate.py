"""`hiddencost baseline` and `hiddencost gate`: measure, judge, measure what is suspected again, tell."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from hiddencost import gate as gating
from hiddencost import grid, store
from hiddencost.cli.measuring import REPORTS, header, measured, progress, share, warn
from hiddencost.errors import NotComparableError, SchemaError, UserError
from hiddencost.gate import Outcome
from hiddencost.gate.baseline import changed_versions
from hiddencost.gate.outcome import NOT_COMPARABLE
from hiddencost.grid import checking, planning
from hiddencost.records import TWIN, Change, Environment, Header, Run

if TYPE_CHECKING:
    from hiddencost.trees import Side

BASELINE = REPORTS / "baseline.json"


@click.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), default=BASELINE, show_default=True)
def baseline(run_folder: Path, out: Path) -> None:
    """Keep what a finished RUN measured as the baseline that `gate` compares with.

    It holds what travels from machine to machine: ratios within the run, bytes and counts.
    """
    kept = gating.keep(store.read(run_folder), str(run_folder))
    gating.write(kept, out)
    click.echo(f"{out}: {len(kept.kept)} figures of {run_folder}")


@click.command()
@click.argument("run_folder", metavar="[RUN]", type=click.Path(path_type=Path), required=False)
@click.option(
    "--baseline",
    "baseline_file",
    type=click.Path(path_type=Path),
    help=f"Compare with this file [default: {BASELINE}].",
)
@click.option(
    "--against",
    metavar="REF_OR_PYTHON",
    help="Measure side by side with a git commit of this checkout, or with another interpreter.",
)
@click.option("--grid", "grid_name", help="What to measure with --against [default: gate].")
@click.option("--out", type=click.Path(path_type=Path), help="Run folder [default: reports/runs/DATE-gate].")
@click.option(
    "--threshold",
    callback=share,
    metavar="1%",
    help="Slowdown that counts, in place of the grid's for times.",
)
@click.option("--strict", is_flag=True, help="What is unclear fails too.")
@click.option("--timings-advisory", is_flag=True, help="Times are told, and only bytes and counts can fail.")
@click.option("--markdown", type=click.Path(path_type=Path), help="Also write the table as Markdown.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Also write every change as JSON.")
def gate(
    run_folder: Path | None,
    baseline_file: Path | None,
    against: str | None,
    grid_name: str | None,
    out: Path | None,
    threshold: float | None,
    strict: bool,
    timings_advisory: bool,
    markdown: Path | None,
    json_file: Path | None,
) -> None:
    """Did reading hidden states get slower or larger?

    \b
    Side by side, absolute times too:      hiddencost gate --against main
    Another Keras on the same source:      hiddencost gate --against /path/to/python
    Measure, against the stored baseline:  hiddencost gate
    A finished run against it:             hiddencost gate RUN

    Where the gate measures, what seems worse is measured again before it is reported.

    Exit codes: 0 no regression, 1 regression, 2 wrong usage, 3 cases missing or failed,
    4 not comparable, 5 nothing measured.
    """
    if against is not None and (run_folder or baseline_file):
        given = "a finished RUN" if run_folder else "--baseline"
        raise UserError(f"--against measures both sides itself: leave out {given}")
    if against is None and grid_name:
        raise UserError("--grid needs --against: without it the baseline's own grid is measured")
    if threshold is not None and not 0 <= threshold < 1:
        raise UserError(f"--threshold {threshold:g}: must be at least 0 and below 1, such as 1% or 0.01")
    for file in (markdown, json_file):
        if file and not file.parent.is_dir():
            raise UserError(f"{file}: its folder does not exist")
        if file and (file.is_dir() or not os.access(file if file.exists() else file.parent, os.W_OK)):
            raise UserError(f"{file}: cannot be written: it is a folder, or not yours to write")
    try:
        if against is not None:
            changes, notes = _side_by_side(against, grid_name or "gate", _folder(out), threshold)
        else:
            changes, notes = _with_baseline(run_folder, baseline_file or BASELINE, out, threshold)
    except (NotComparableError, SchemaError) as error:
        click.echo(f"hiddencost: not comparable: {error}", err=True)
        sys.exit(NOT_COMPARABLE)
    outcome = Outcome(changes, notes, timings_advisory, strict)
    unwritten = []
    written = (markdown, gating.as_markdown(outcome).encode()), (json_file, gating.as_json(outcome))
    for file, text in written:
        try:
            if file:
                file.write_bytes(text)
        except OSError as error:
            unwritten.append(f"{file}: cannot be written ({error.strerror}); the verdict: see above")
    click.echo("\n".join(gating.as_lines(outcome)))
    if unwritten:
        raise UserError("; ".join(unwritten))
    sys.exit(outcome.exit_code)


def _folder(out: Path | None) -> Path:
    return out or REPORTS / "runs" / f"{datetime.now(UTC):%Y-%m-%d-%H%M%S}-gate"


def _thresholds(planned: grid.Grid, threshold: float | None) -> Mapping[str, float]:
    """By metric: the grid's, or for times the one that the command line gives."""
    found = planned.thresholds
    if threshold is not None:
        found.update(seconds=threshold, overhead_ratio=threshold)
    return found


def _with_baseline(
    run_folder: Path | None, file: Path, out: Path | None, threshold: float | None
) -> tuple[Sequence[Change], Sequence[str]]:
    """A finished run against the baseline; or a new one of its grid, with suspicions measured again."""
    known = gating.read(file)
    planned = msgspec.json.decode(known.plan, type=grid.Grid)
    thresholds = _thresholds(planned, threshold)
    if run_folder is not None:
        found = store.read(run_folder)
        gating.refuse_incomplete(found, str(run_folder))
        return gating.against_baseline(known, found, thresholds, gating.SURE), _notes(known, found)
    folder = _folder(out)

    def measure(
        into: Path, timed: Sequence[planning.Job], memory: Sequence[planning.Job], warnings: Sequence[str]
    ) -> None:
        measured(into, planned, "", timed, memory, warnings)

    def judge(where: Path, alpha: float, part: bool) -> Sequence[Change]:
        return gating.against_baseline(known, store.read(where), thresholds, alpha, part)

    changes = _judged_twice(
        folder, planning.timed_jobs(planned), planning.memory_jobs(planned), measure, judge, gating.SURE
    )
    return changes, _notes(known, store.read(folder))


def _notes(known: gating.Baseline, found: Run) -> Sequence[str]:
    return [*found.header.warnings, *changed_versions(known, found)]


def _judged_twice(
    folder: Path,
    timed: Sequence[planning.Job],
    memory: Sequence[planning.Job],
    measure: Callable[[Path, Sequence[planning.Job], Sequence[planning.Job], Sequence[str]], None],
    judge: Callable[[Path, float, bool], Sequence[Change]],
    confirmed: float,
) -> Sequence[Change]:
    """What `judge` says of what `measure` measures in the folder; what is suspected there is measured again,
    by itself, and only what is found again is told. `judge` is given a folder, the chance of a false alarm,
    and whether only a part was measured there. confirmed: that chance the second time."""
    measure(folder, timed, memory, warn(timed))
    changes = judge(folder, gating.SUSPECT, False)
    suspected = gating.suspects(changes)
    if not suspected:
        return changes
    click.echo(f"{len(suspected)} suspected: measured again")
    again = folder / "again"
    measure(again, planning.only(timed, suspected), planning.only(memory, suspected), ())
    return gating.confirmed(changes, judge(again, confirmed, True))


def _side_by_side(
    against: str, grid_name: str, folder: Path, threshold: float | None
) -> tuple[Sequence[Change], Sequence[str]]:
    from hiddencost import trees
    from hiddencost.suites import CATALOGUE

    source = grid.grid_path(grid_name)
    planned, text = grid.read(source)
    checking.check(planned, CATALOGUE, f"grid {source}")
    sides = trees.other(against, REPORTS / "trees"), trees.current()
    changes = decide(sides, planned, text, folder, _thresholds(planned, threshold))
    runs = [store.read(folder / name) for name in ("before", "after")]
    before, after = (run.environments[:1] for run in runs)
    return changes, [
        f"before: {sides[0].name}, after: {sides[1].name}; runs in {folder}",
        *runs[0].header.warnings,
        *(_changed(before[0], after[0]) if before and after else ()),
    ]


def _changed(before: Environment, after: Environment) -> list[str]:
    from hiddencost import environment

    return list(environment.changes(before, after))


def decide(
    sides: tuple[Side, Side],
    planned: grid.Grid,
    text: str,
    folder: Path,
    thresholds: Mapping[str, float],
    fault: planning.Fault | None = None,
) -> Sequence[Change]:
    """One decision: both sides measured in turns, what is suspected measured again. fault: what the side
    after is made worse by, to measure the gate itself. A grid's budget does not count: each side would leave
    out what it has no time for, by a clock of its own."""
    time = msgspec.structs.replace(planned.time, budget=None)
    timed = [
        msgspec.structs.replace(job, tasks=tuple(task for task in job.tasks if task.case.strategy != TWIN))
        for job in planning.timed_jobs(msgspec.structs.replace(planned, time=time))
    ]

    def measure(
        into: Path, timed: Sequence[planning.Job], memory: Sequence[planning.Job], warnings: Sequence[str]
    ) -> None:
        head = header(planned, text, [*timed, *memory], warnings)
        _run_sides(sides, planned, head, into, timed, memory, fault)

    def judge(where: Path, alpha: float, part: bool) -> Sequence[Change]:
        return gating.between_sides(
            store.read(where / "before"), store.read(where / "after"), thresholds, alpha
        )

    memory = planning.memory_jobs(planned)
    return _judged_twice(folder, timed, memory, measure, judge, gating.CONFIRMED)


def _run_sides(
    sides: tuple[Side, Side],
    planned: grid.Grid,
    head: Header,
    folder: Path,
    timed: Sequence[planning.Job],
    memory: Sequence[planning.Job],
    fault: planning.Fault | None,
) -> None:
    from hiddencost import backends
    from hiddencost.nursery import Nursery
    from hiddencost.supervise import Supervisor, in_folder, side_by_side, temporary_folder

    programs = str((folder / "programs").resolve())  # for both: code that is the same runs the same kernels
    with ExitStack() as stack:
        bar = stack.enter_context(progress(2 * sum(len(job.tasks) for job in [*timed, *memory])))
        temporary = in_folder(stack.enter_context(temporary_folder()))
        supervisors: list[Supervisor] = []
        for name, side in zip(("before", "after"), sides, strict=True):
            writer = store.Writer(folder / name, msgspec.structs.replace(head, git_commit=side.name))
            stack.callback(writer.close)
            mine: dict[tuple[str, str], Nursery] = {}
            for ground in dict.fromkeys(job.ground for job in [*timed, *memory]):
                log = stack.enter_context(open(folder / name / f"nursery-{'-'.join(ground)}.log", "wb"))
                backend = backends.find(ground[0])
                settings = backend.settings(planned.time.threads, ground[1])
                kept = backend.keeping(programs) if planned.time.keep_programs else {}
                own = {**side.environment, **settings, **kept, **temporary}
                mine[ground] = Nursery(side.python, own, log)
                stack.callback(mine[ground].close)
            supervisors.append(Supervisor(writer, bar, nurseries=mine, bench=side.bench))
        for supervisor in supervisors:
            for nursery in supervisor.nurseries.values():
                nursery.await_ready()
        before, after = supervisors
        how = side_by_side(before, after, timed, memory, fault)
    if how == "interrupted":
        raise KeyboardInterrupt
