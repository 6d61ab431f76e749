"""Hidden states of a corpus, in memory that does not grow with it: part after part into a folder.

A part holds successive lines of the text and is one safetensors file, which any framework maps without a
copy, in every dtype that models have (NumPy's own formats lack bfloat16); it is written whole, then renamed.
So a run that was killed goes on after the last part, without a line missing or doubled.

    from safetensors.numpy import load_file
    part = load_file("states/part-000000.safetensors")
    part["block_5"]     reduced: (lines, width); else (tokens, width), line i at offsets[i]:offsets[i+1]
    part["rows"]        (lines,): their places in the text, from 0
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from hiddencost.errors import UserError
from hiddencost.extracting import Extractor
from hiddencost.models import LoadedModel

SHORTEST = 16
EDGE = 1024
WINDOW = 256
"""Lines that are tokenized together."""
PART = "part-{:06d}.safetensors"
INDEX = "index.json"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What decides which numbers a folder holds. part_bytes: a part is closed before its hidden states
    would take more. text, weights: `text_digest` and `weights_digest` (folders of before they were kept have
    none, and are not gone on with)."""

    model: str
    stack: str | None
    points: str
    reduce: str | None
    dtype: str | None
    max_length: int
    part_bytes: int
    source: str
    source_bytes: int
    hiddencost: str
    backend: str = ""
    text: str = ""
    weights: str = ""


class Index(msgspec.Struct, kw_only=True):
    """`index.json`: the settings, the names and widths of the points, and what was done so far. cut: lines
    that were longer than max_length. damaged: lines that are no UTF-8 (each wrong byte is read as U+FFFD)."""

    settings: Settings
    points: dict[str, int]
    parts: int = 0
    rows: int = 0
    tokens: int = 0
    bytes_read: int = 0
    cut: int = 0
    damaged: int = 0
    complete: bool = False


@dataclass(frozen=True)
class Line:
    """A line of the text. end: the bytes of the text up to and with it."""

    number: int
    text: str
    damaged: bool
    end: int


def lines(path: Path, number: int, begin: int) -> Iterator[Line]:
    """The lines of a file from a byte on, the first of them being the one of this number. Empty ones too: a
    line of the text is a row of the result."""
    with open(path, "rb") as file:
        file.seek(begin)
        end = begin
        for offset, raw in enumerate(file):
            end += len(raw)
            content = raw.rstrip(b"\r\n")
            try:
                yield Line(number + offset, content.decode("utf-8"), False, end)
            except UnicodeDecodeError:
                yield Line(number + offset, content.decode("utf-8", "replace"), True, end)


def text_digest(path: Path) -> str:
    """Of a whole file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weights_digest(model: Any) -> str:
    """Of the first EDGE values of each weight: whichever way a model was trained further, they moved."""
    import keras

    digest = hashlib.sha256()
    for weight in model.weights:
        values = keras.ops.convert_to_numpy(keras.ops.reshape(weight.value, (-1,))[:EDGE])
        digest.update(f"{weight.path} {weight.shape} {weight.dtype} ".encode())
        digest.update(values.astype("float32").tobytes())
    return digest.hexdigest()


def padded(length: int, longest: int) -> int:
    """The length that a row is padded to: a power of two from SHORTEST on, so that a compiled mode sees few
    shapes, and at most the longest."""
    return min(longest, max(SHORTEST, 1 << (length - 1).bit_length()))


class Stream:
    """Reads the hidden states of a text into a folder. Raises UserError where that holds other things."""

    def __init__(
        self,
        loaded: LoadedModel,
        reader: Extractor,
        settings: Settings,
        source: Path,
        folder: Path,
        batch: int,
    ) -> None:
        self.loaded = loaded
        self.reader = reader
        self.settings = settings
        self.source = source
        self.folder = folder
        self.batch = batch
        widths = {name: point.width for name, point in zip(reader.names, reader.points, strict=False)}
        self.index = self._resumed() or Index(settings=settings, points=widths)

    def _resumed(self) -> Index | None:
        """What an earlier run has left in the folder. Raises UserError where it was another one's."""
        path = self.folder / INDEX
        if not path.exists():
            if self.folder.exists() and any(self.folder.iterdir()):
                raise UserError(f"{self.folder}: is not empty, and holds no {INDEX}: choose another folder")
            return None
        try:
            found = msgspec.json.decode(path.read_bytes(), type=Index)
        except msgspec.MsgspecError as error:
            raise UserError(f"{path}: is damaged ({error}): choose another folder") from None
        now, then = msgspec.structs.asdict(self.settings), msgspec.structs.asdict(found.settings)
        changed = [
            f"{name} was {then[name]!r} and is {now[name]!r}" for name in now if now[name] != then[name]
        ]
        if changed:
            raise UserError(f"{self.folder}: holds other states: {'; '.join(changed)}: choose another folder")
        return found

    def parts(self) -> Iterator[Index]:
        """Writes what is missing, part by part; gives the index after each."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for left in self.folder.glob("*.unfinished"):
            left.unlink()
        while not self.index.complete:
            self._write(self._next())
            yield self.index

    def _next(self) -> list[tuple[Line, list[int]]]:
        """The lines of the next part, with their tokens."""
        part: list[tuple[Line, list[int]]] = []
        room = self.settings.part_bytes // (self._bytes_each() or 1)
        taken = 0
        source = lines(self.source, self.index.rows, self.index.bytes_read)
        while window := list(islice(source, WINDOW)):
            for line, tokens in zip(
                window, self.loaded.text.tokens([line.text for line in window]), strict=True
            ):
                size = 1 if self.settings.reduce else self._length(tokens)
                if part and taken + size > room:
                    return part
                part.append((line, tokens))
                taken += size
        self.index.complete = True
        return part

    def _bytes_each(self) -> int:
        """Bytes of one row of a part (a token's states, or a line's where they are reduced)."""
        return sum(self.index.points.values()) * 4

    def _length(self, tokens: Sequence[int]) -> int:
        return min(len(tokens) + self.loaded.text.around, self.settings.max_length)

    def _write(self, part: Sequence[tuple[Line, list[int]]]) -> None:
        index = self.index
        if part:
            arrays = self._states(part)
            self._replace(PART.format(index.parts), lambda path: _save(arrays, path))
            index.parts += 1
            index.rows += len(part)
            index.tokens += sum(self._length(tokens) for _, tokens in part)
            index.bytes_read = part[-1][0].end
            room = self.settings.max_length - self.loaded.text.around
            index.cut += sum(len(tokens) > room for _, tokens in part)
            index.damaged += sum(line.damaged for line, _ in part)
        self._replace(INDEX, lambda path: path.write_bytes(msgspec.json.format(msgspec.json.encode(index))))

    def _replace(self, name: str, write: Any) -> None:
        """A file appears whole or not at all, also when the machine goes down."""
        unfinished = self.folder / f"{name}.unfinished"
        write(unfinished)
        with open(unfinished, "rb") as file:
            os.fsync(file.fileno())
        unfinished.rename(self.folder / name)

    def _states(self, part: Sequence[tuple[Line, list[int]]]) -> dict[str, np.ndarray]:
        """The arrays of a part: its lines in batches of like length, put back in their order."""
        order = sorted(range(len(part)), key=lambda i: len(part[i][1]))
        found: list[dict[str, np.ndarray]] = [{} for _ in part]
        for first in range(0, len(order), self.batch):
            chosen = order[first : first + self.batch]
            tokens = [part[i][1] for i in chosen]
            length = padded(self._length(tokens[-1]), self.settings.max_length)
            rows = [
                *tokens,
                *([[]] * (self.batch - len(tokens))),
            ]  # one shape: a compiled mode traces it once
            states = self.reader(self.loaded.taken(self.loaded.text.batch(rows, length)))
            for name, tensor in states.items():
                values = self.reader.to_numpy(tensor)
                for row, i in enumerate(chosen):
                    kept = values[row] if self.settings.reduce else values[row, : self._length(part[i][1])]
                    found[i][name] = kept
        join = np.stack if self.settings.reduce else np.concatenate
        arrays = {name: join([one[name] for one in found]) for name in self.index.points}
        arrays["rows"] = np.array([line.number for line, _ in part], "int64")
        if not self.settings.reduce:
            lengths = [self._length(tokens) for _, tokens in part]
            arrays["offsets"] = np.concatenate([[0], np.cumsum(lengths)]).astype("int64")
        return arrays


def _save(arrays: dict[str, np.ndarray], path: Path) -> None:
    from safetensors.numpy import save_file

    save_file(arrays, path)


def rate(index: Index, began: float, before: Index) -> tuple[float, float]:
    """Tokens per second since `began`, and the seconds that are left at that rate of the text's bytes."""
    seconds = max(time.monotonic() - began, 1e-9)
    done = index.bytes_read - before.bytes_read
    left = index.settings.source_bytes - index.bytes_read
    return (index.tokens - before.tokens) / seconds, left * seconds / done if done else float("inf")
