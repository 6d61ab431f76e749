"""Run folders: an append-only writer, a reader, and schema migrations. The only place that touches
result files.

A run folder holds `results.jsonl` (one record a line: header, environments, measurements, ending),
`pytest-benchmark/` (what the runner itself wrote, block by block), `logs/`, and what `report` made.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import msgspec

from hiddencost.errors import UserError
from hiddencost.records import (
    SCHEMA_VERSION,
    Ending,
    Environment,
    Header,
    Line,
    Lost,
    Measurement,
    Origin,
    Run,
)

RESULTS = "results.jsonl"

MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""version -> a function that turns a line of that version, as a dict, into one of the next version."""

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Line)


def encode(line: Line) -> bytes:
    """One line of a results file, newline and all."""
    return _encoder.encode(line) + b"\n"


class Writer:
    """Appends lines to a run folder, each flushed to the disk before `write` returns. The folder is locked
    until `close` or the end of this process.

    With a header a new run begins; without one the run in the folder goes on, after a last line that a
    kill cut short is removed. Raises UserError when the folder holds another run, or none to go on with,
    when another process is writing to it, or when it is not writable.
    """

    def __init__(self, folder: Path, header: Header | None) -> None:
        self.folder = folder
        self.path = folder / RESULTS
        try:
            self._file: IO[bytes] = self._opened(new=header is not None)
        except FileExistsError:
            what = "holds another run" if self.path.exists() else "is a file, not a folder"
            raise UserError(f"output folder {folder} {what}: choose another with --out") from None
        except OSError as error:
            raise UserError(f"output folder {folder}: not writable ({error.strerror})") from None
        if header is not None:
            self.write(header)

    def _opened(self, new: bool) -> IO[bytes]:
        if new:
            self.folder.mkdir(parents=True, exist_ok=True)
        file = open(self.path, "xb" if new else "r+b")  # noqa: SIM115 (closed by close)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise UserError(f"{self.folder}: another hiddencost is writing to this run") from None
        if not new:
            file.truncate(file.read().rfind(b"\n") + 1)
            file.seek(0, os.SEEK_END)
        return file

    def write(self, line: Line) -> None:
        self._file.write(encode(line))
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def results_path(run: Path) -> Path:
    """The results file of a run folder (or the file itself). Raises UserError when there is none."""
    path = run / RESULTS if os.path.isdir(run) else run
    if not os.path.isfile(path):
        raise UserError(f"no run at {run}: expected a folder with {RESULTS}, as `hiddencost run` writes it")
    return path


def read(run: Path) -> Run:
    """A run folder, read back. A last line cut short by a kill is left out; any other damage raises
    UserError with the line's number."""
    path = results_path(run)
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    complete, tail = lines[:-1], lines[-1]
    if not complete:
        raise UserError(f"{path}: damaged: no complete first line")
    version = _schema_version(complete[0], path)
    records: list[Line] = []
    for number, line in enumerate(complete, start=1):
        try:
            records.append(_decode(line, version))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: damaged at line {number}: {error}") from None
    del tail  # written but not ended by a newline: the write was cut short
    return _assemble(records, path)


def _schema_version(first: bytes, path: Path) -> int:
    try:
        version = msgspec.json.decode(first).get("schema_version")
    except (msgspec.DecodeError, UnicodeDecodeError, AttributeError):
        version = None
    if not isinstance(version, int):
        raise UserError(f"{path}: damaged: the first line is not the header of a hiddencost run")
    if version > SCHEMA_VERSION:
        raise UserError(
            f"{path}: written by a newer hiddencost (schema {version}, this one reads up to "
            f"{SCHEMA_VERSION}): upgrade with `pip install -U hiddencost`"
        )
    if version < SCHEMA_VERSION and version not in MIGRATIONS:
        raise UserError(f"{path}: schema {version} is not known to this hiddencost (schema {SCHEMA_VERSION})")
    return version


def _decode(line: bytes, version: int) -> Line:
    if version == SCHEMA_VERSION:
        return _decoder.decode(line)
    raw = msgspec.json.decode(line)
    for old in range(version, SCHEMA_VERSION):
        raw = MIGRATIONS[old](raw)
    line_now: Line = msgspec.convert(raw, Line)
    return line_now


def _assemble(records: list[Line], path: Path) -> Run:
    header = records[0]
    if not isinstance(header, Header):
        raise UserError(f"{path}: damaged: the first line is not the header of a hiddencost run")
    endings = [record for record in records if isinstance(record, Ending)]
    spent = sum(ending.seconds for ending in endings)  # of a run that was resumed: of all its parts
    environments, measurements = _that_count(records)
    return Run(
        header=header,
        environments=environments,
        measurements=measurements,
        ending=msgspec.structs.replace(endings[-1], seconds=spent) if endings else None,
    )


def _that_count(records: list[Line]) -> tuple[tuple[Environment, ...], tuple[Measurement, ...]]:
    """The environments and measurements, without those of a block that was lost after them."""
    lost: set[Origin] = set()
    environments: list[Environment] = []
    measurements: list[Measurement] = []
    for record in reversed(records):
        if isinstance(record, Lost):
            lost.add(record.origin)
        elif isinstance(record, Environment) and record.origin not in lost:
            environments.append(record)
        elif isinstance(record, Measurement) and record.origin not in lost:
            measurements.append(record)
    return tuple(reversed(environments)), tuple(reversed(measurements))


def check_latest(latest: Path) -> None:
    """Raises UserError when `latest` is something else than a link, which is left alone."""
    if latest.exists() and not latest.is_symlink():
        raise UserError(f"{latest} exists and is not a link to a run: move it away, or use --out")


def point_latest(folder: Path, latest: Path) -> None:
    """Makes `latest` a link to the run folder (see check_latest)."""
    check_latest(latest)
    if latest.is_symlink():
        latest.unlink()
    latest.parent.mkdir(parents=True, exist_ok=True)
    latest.symlink_to(os.path.relpath(folder, latest.parent), target_is_directory=True)
