"""What an experiment found, kept as a run: claims, plots and pages read it like any other."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from hiddencost import __version__, environment
from hiddencost.records import SCHEMA_VERSION, Ending, Header, Measurement, Run
from hiddencost.store import Writer, read
from hiddencost.trees import git_commit


def keep(
    folder: Path, name: str, measurements: Sequence[Measurement], seconds: float, *, seed: int, command: str
) -> Run:
    """Writes a run of these measurements into `folder` and returns it. name: of the experiment; seconds:
    that it took; command: what makes it again. Raises ValueError without measurements, UserError when the
    folder holds another run."""
    if not measurements:
        raise ValueError("no measurements: nothing to keep")
    case = measurements[0].case
    header = Header(
        schema_version=SCHEMA_VERSION,
        hiddencost_version=__version__,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command,
        grid_name=name,
        grid="",
        seed=seed,
        git_commit=git_commit(),
        planned=tuple(dict.fromkeys(measurement.case for measurement in measurements)),
    )
    threads = {"intra_op": environment.cores()}
    where = environment.capture(0, threads, own_load=environment.cores(), backend=case.backend)
    finished = datetime.now(UTC).isoformat(timespec="seconds")
    writer = Writer(folder, header)
    try:
        writer.write(where)
        for measurement in measurements:
            writer.write(measurement)
        writer.write(Ending(finished=finished, how="complete", seconds=seconds))
    finally:
        writer.close()
    return read(folder)
