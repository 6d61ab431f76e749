"""Run folders: an append-only writer, a reader, and schema migrations. The only place that touches
result files.

A run folder holds `results.jsonl` (one record a line: header, environments, measurements, ending),
`pytest-benchmark/` (what the runner itself wrote, block by block), `logs/`, and what `report` made.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

import msgspec
import numpy as np

from hiddencost.columns import Columns
from hiddencost.errors import SchemaError, UserError
from hiddencost.records import (
    SCHEMA_VERSION,
    Ending,
    Environment,
    Header,
    Line,
    Lost,
    Measurement,
    Run,
)

RESULTS = "results.jsonl"
CHUNK = 2**20
_T = TypeVar("_T")

MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""version -> a function that turns a line of that version, as a dict, into one of the next version."""

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Line)


def encode(line: Line) -> bytes:
    """One line of a results file, newline and all."""
    return _encoder.encode(line) + b"\n"


class Writer:
    """Appends lines to a run folder, each on the disk before `write` returns. The folder is locked until
    `close` or the end of this process.

    With a header a new run begins; without one the run in the folder goes on, after a last line that a
    kill cut short is removed. Raises UserError when the folder holds another run, or none to go on with,
    when another process is writing to it, or when it is not writable.
    """

    def __init__(self, folder: Path, header: Header | None) -> None:
        self.folder = folder
        self.path = folder / RESULTS
        try:
            self._file: IO[bytes] = self._opened(new=header is not None)
            if header is not None:
                self._begin(header)
        except FileExistsError:
            what = "holds another run" if self.path.exists() else "is a file, not a folder"
            raise UserError(f"output folder {folder} {what}: choose another with --out") from None
        except OSError as error:
            raise UserError(f"output folder {folder}: not writable ({error.strerror})") from None

    def _begin(self, header: Header) -> None:
        try:
            self.write(header)
        except OSError:
            self.close()
            self.path.unlink()  # or the folder would be taken for that of another run
            raise

    def _opened(self, new: bool) -> IO[bytes]:
        if new:
            self.folder.mkdir(parents=True, exist_ok=True)
        file = open(self.path, "xb" if new else "r+b", buffering=0)  # noqa: SIM115 (closed by close)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise UserError(f"{self.folder}: another hiddencost is writing to this run") from None
        if not new:
            file.truncate(_end_of_last_line(file))
            file.seek(0, os.SEEK_END)
        return file

    def write(self, line: Line) -> None:
        """Raises OSError where it cannot be written; then nothing of it is there."""
        end, left = self._file.tell(), memoryview(encode(line))
        try:
            while left:
                left = left[self._file.write(left) :]
            os.fsync(self._file.fileno())
        except OSError:
            self._file.truncate(end)  # or the next line would be written behind half of this one
            self._file.seek(end)
            raise

    def close(self) -> None:
        self._file.close()


def _end_of_last_line(file: IO[bytes]) -> int:
    """Where the last line ends that is whole, 0 where none is; looked for from the end."""
    end = file.seek(0, os.SEEK_END)
    while end:
        begin = max(0, end - CHUNK)
        file.seek(begin)
        place = file.read(end - begin).rfind(b"\n")
        if place >= 0:
            return begin + place + 1
        end = begin
    return 0


def results_path(run: Path) -> Path:
    """The results file of a run folder (or the file itself). Raises UserError when there is none."""
    path = run / RESULTS if os.path.isdir(run) else run
    if not os.path.isfile(path):
        raise UserError(f"no run at {run}: expected a folder with {RESULTS}, as `hiddencost run` writes it")
    return path


def read(run: Path) -> Run:
    """A run folder, read back. A last line cut short by a kill is left out; any other damage raises
    UserError with the line's number."""
    return _taken(run, _assembled)


def header(run: Path) -> Header:
    """The header of a run folder alone, without what was measured. Raises UserError as `read` does."""
    return _taken(run, _header)


def _taken(run: Path, take: Callable[[Iterator[Line], Path], _T]) -> _T:
    """What `take` makes of the records of a run's file."""
    path = results_path(run)
    try:
        with open(path, "rb") as file:
            return take(_lines(file, path), path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def _header(records: Iterator[Line], path: Path) -> Header:
    header = next(records)
    if not isinstance(header, Header):
        raise UserError(f"{path}: damaged: the first line is not the header of a hiddencost run")
    return header


def _lines(file: IO[bytes], path: Path) -> Iterator[Line]:
    """The records, one after the other. A last one that is not ended by a newline was cut short."""
    first = file.readline()
    if not first.endswith(b"\n"):
        raise UserError(f"{path}: damaged: no complete first line")
    version, number, lines = _schema_version(first, path), 1, [first]
    while lines:
        if not lines[-1].endswith(b"\n"):
            lines.pop()
        try:
            yield from _decoded(lines, version)
        except (msgspec.DecodeError, UnicodeDecodeError):
            yield from _up_to_the_damaged(lines, version, number, path)
        number += len(lines)
        lines = file.readlines(CHUNK)


def _up_to_the_damaged(lines: Sequence[bytes], version: int, number: int, path: Path) -> Iterator[Line]:
    """Names the first of the lines that is damaged; `number` is that of the first one."""
    for place, line in enumerate(lines):
        try:
            yield from _decoded([line], version)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: damaged at line {number + place}: {error}") from None


class _Versioned(msgspec.Struct):
    """What is read first of a header, whatever else is in it."""

    schema_version: int


def _schema_version(first: bytes, path: Path) -> int:
    try:
        version = msgspec.json.decode(first, type=_Versioned).schema_version
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise UserError(f"{path}: damaged: the first line is not the header of a hiddencost run") from None
    if version > SCHEMA_VERSION:
        raise SchemaError(
            f"{path}: written by a newer hiddencost (schema {version}, this one reads up to "
            f"{SCHEMA_VERSION}): upgrade with `pip install -U hiddencost`"
        )
    if version < SCHEMA_VERSION and version not in MIGRATIONS:
        raise SchemaError(
            f"{path}: schema {version} is not known to this hiddencost (schema {SCHEMA_VERSION})"
        )
    return version


def _decoded(lines: Sequence[bytes], version: int) -> list[Line]:
    if version == SCHEMA_VERSION:
        return _decoder.decode_lines(b"".join(lines))
    return [_migrated(msgspec.json.decode(line), version) for line in lines]


def _migrated(raw: Any, version: int) -> Line:
    for old in range(version, SCHEMA_VERSION):
        raw = MIGRATIONS[old](raw)
    line_now: Line = msgspec.convert(raw, Line)
    return line_now


def _assembled(records: Iterator[Line], path: Path) -> Run:
    header = _header(records, path)
    header = msgspec.structs.replace(header, planned=tuple(case.slim for case in header.planned))
    endings: list[Ending] = []
    environments: list[Environment | None] = []
    lost: list[tuple[Lost, int, int]] = []  # with how much stood before it
    arrived = 0

    def measurements() -> Iterator[Measurement]:
        nonlocal arrived
        for record in records:
            match record:
                case Measurement():
                    arrived += 1
                    yield record
                case Environment():
                    environments.append(record)
                case Lost():
                    lost.append((record, arrived, len(environments)))
                case Ending():
                    endings.append(record)

    try:
        found = Columns(measurements())
    except OverflowError as error:
        raise UserError(f"{path}: damaged: a block, a place or a count is too large: {error}") from None
    counts = np.ones(len(found), bool)
    for gone, rows, processes in lost:
        counts[:rows] &= ~found.from_origins({gone.origin})[:rows]
        environments[:processes] = [
            one if one and one.origin != gone.origin else None for one in environments[:processes]
        ]
    spent = sum(ending.seconds for ending in endings)  # of a run that was resumed: of all its parts
    return Run(
        header=header,
        environments=tuple(filter(None, environments)),
        measurements=found.only(counts),
        ending=msgspec.structs.replace(endings[-1], seconds=spent) if endings else None,
    )


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
