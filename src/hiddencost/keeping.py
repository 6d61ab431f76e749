"""What an experiment found, kept as a run: claims, plots and pages read it like any other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from hiddencost import __version__, environment
from hiddencost.records import SCHEMA_VERSION, Case, Ending, Header, Measurement, Run
from hiddencost.store import Writer, read
from hiddencost.trees import git_commit


def header(
    name: str, command: str, seed: int, planned: Iterable[Case], *, grid: str = "", plan: str = ""
) -> Header:
    """The first line of a run that begins now, in this checkout. name: of the grid or experiment; the others
    as `Header` has them, each planned case once."""
    return Header(
        schema_version=SCHEMA_VERSION,
        hiddencost_version=__version__,
        started=now(),
        command=command,
        grid_name=name,
        grid=grid,
        seed=seed,
        git_commit=git_commit(),
        plan=plan,
        planned=tuple(dict.fromkeys(planned)),
    )


def now() -> str:
    """The time, as runs record it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def keep(
    folder: Path, name: str, measurements: Sequence[Measurement], seconds: float, *, seed: int, command: str
) -> Run:
    """Writes a run of these measurements into `folder` and returns it. name: of the experiment; seconds:
    that it took; command: what makes it again. Raises ValueError without measurements, UserError when the
    folder holds another run."""
    if not measurements:
        raise ValueError("no measurements: nothing to keep")
    backend = measurements[0].case.backend
    threads = {"intra_op": environment.cores()}
    where = environment.capture(0, threads, own_load=environment.cores(), backend=backend)
    writer = Writer(folder, header(name, command, seed, (measurement.case for measurement in measurements)))
    try:
        writer.write(where)
        for measurement in measurements:
            writer.write(measurement)
        writer.write(Ending(finished=now(), how="complete", seconds=seconds))
    finally:
        writer.close()
    return read(folder)
