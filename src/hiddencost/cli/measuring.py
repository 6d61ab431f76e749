"""What the commands that measure share: the run's header, its warnings, its progress, its supervisor."""

from __future__ import annotations

import os
import shlex
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import msgspec

from hiddencost import grid, keeping, store
from hiddencost.columns import columns_of
from hiddencost.errors import UserError
from hiddencost.grid import planning
from hiddencost.records import Header, Run
from hiddencost.supervise import CASE_TIMEOUT

REPORTS = Path("reports")


def header(
    planned: grid.Grid, text: str, jobs: Sequence[planning.Job], warnings: Sequence[str] = ()
) -> Header:
    command = shlex.join(["hiddencost", *sys.argv[1:]])
    plan = msgspec.json.encode(planned).decode()
    cases = planning.planned(jobs)
    found = keeping.header(planned.name, command, planned.seed, cases, grid=text, plan=plan)
    return msgspec.structs.replace(found, warnings=tuple(warnings))


def share(context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    """`1%` or `0.01` as a share of 1."""
    if value is None:
        return None
    try:
        return float(value.removesuffix("%")) / (100 if value.endswith("%") else 1)
    except ValueError:
        raise UserError(f"{parameter.opts[0]} '{value}': expected a percentage, as 1%") from None


def refuse_nothing(run: Run, folder: Path) -> None:
    """Raises UserError when not a single case was measured, with the reason that most of them give."""
    found = columns_of(run)
    ok = found.in_state("ok")
    reasons = Counter(m.reason for m in found.only(~ok) if m.state != "skipped")
    if reasons and not (ok & found.of(set(planning.METRIC_OF_SUITE.values()))).any():
        raise UserError(f"nothing was measured ({folder}): {reasons.most_common(1)[0][0]}")


def warn(timed: Sequence[planning.Job]) -> tuple[str, ...]:
    """Tells once what makes the timings of these jobs unreliable here, and returns it."""
    from hiddencost import environment

    found = tuple(environment.warnings(own_load=0, threads=timed[0].time.threads if timed else 1))
    for warning in found:
        click.echo(f"warning: {warning} (hiddencost doctor)")
    return found


def supervised(
    writer: store.Writer,
    timed: Sequence[planning.Job],
    memory: Sequence[planning.Job],
    pytest_arguments: Sequence[str],
    case_timeout: float = CASE_TIMEOUT,
    ray: Any = None,
) -> str:
    """Measures the jobs here, or on the nodes of the cluster that `ray` is connected to."""
    from hiddencost.supervise import Supervisor

    total = sum(len(job.tasks) for job in [*timed, *memory])
    try:
        with progress(total) as bar:
            supervisor = Supervisor(writer, bar, pytest_arguments, case_timeout)
            if ray is None:
                return supervisor.run(timed, memory)
            from hiddencost.cluster import Cluster

            return Cluster(ray, supervisor, lambda what: click.echo(f"warning: {what}")).run(timed, memory)
    finally:
        writer.close()


def measured(
    folder: Path,
    planned: grid.Grid,
    text: str,
    timed: Sequence[planning.Job],
    memory: Sequence[planning.Job],
    warnings: Sequence[str] = (),
) -> None:
    """A run of these jobs in the folder. Raises KeyboardInterrupt where it was interrupted."""
    writer = store.Writer(folder, header(planned, text, [*timed, *memory], warnings))
    if supervised(writer, timed, memory, ()) == "interrupted":
        raise KeyboardInterrupt


class Bar:
    """A progress bar on a terminal; on anything else a line for every tenth of the tasks."""

    def __init__(self, bar: Any, task: Any, total: int) -> None:
        self._bar, self._task, self._total, self._count = bar, task, total, 0

    def done(self, label: str, count: int) -> None:
        before, self._count = self._count, self._count + count
        self._bar.update(self._task, completed=self._count, case=label)
        if not self._bar.console.is_terminal and self._count * 10 // self._total > before * 10 // self._total:
            click.echo(f"{self._count} of {self._total} measured, last: {label}")


@contextmanager
def silent() -> Iterator[None]:
    """What libraries print to the error output while they are imported is dropped, C++ included."""
    kept = os.dup(2)
    with open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@contextmanager
def progress(total: int) -> Iterator[Bar]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.fields[case]}"))
    console = Console()
    bar = Progress(
        *columns,
        console=console,
        refresh_per_second=1,
        speed_estimate_period=600,
        disable=not console.is_terminal,
    )
    with bar:
        yield Bar(bar, bar.add_task("", total=total, case="starting"), total)
