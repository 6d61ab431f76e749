"""What a worker is doing right now, in a file that worker and supervisor both map; and its lifeline.

Telling it is a write to memory, no system call, so it can be told before each timed call; when the worker
dies or hangs, the supervisor reads which case it was.
"""

from __future__ import annotations

import math
import mmap
import os
import signal
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from hiddencost.records import Case

SIZE = 4096
START_ANEW = 75
"""The exit code of a worker after whose last record a new one goes on (EX_TEMPFAIL of sysexits.h)."""
_HEAD = struct.Struct("dI")  # seconds of the machine's monotonic clock, length of the text


class Doing:
    """The file, mapped. Making it empties the file, attaching to it (`new=False`) does not."""

    def __init__(self, path: Path, new: bool = True) -> None:
        if new:
            path.write_bytes(b"\0" * SIZE)
        with open(path, "r+b") as file:
            self._map = mmap.mmap(file.fileno(), SIZE)
        self._texts: dict[Case, bytes] = {}
        if new:
            self._write(b"")

    def tell(self, case: Case) -> None:
        """The case that the next seconds go to."""
        if case not in self._texts:
            self._texts[case] = msgspec.json.encode(case)[: SIZE - _HEAD.size]
        self._write(self._texts[case])

    @contextmanager
    def resting(self) -> Iterator[None]:
        """While others work, and this process waits for them: it does not hang, however long that takes."""
        _, length = _HEAD.unpack_from(self._map, 0)
        text = self._map[_HEAD.size : _HEAD.size + length]
        self._write(text, math.inf)
        yield
        self._write(text)

    def _write(self, text: bytes, when: float | None = None) -> None:
        # not pack_into, which first fills with zeros: who reads just then sees a process that hangs for ages
        self._map[: _HEAD.size] = _HEAD.pack(time.monotonic() if when is None else when, len(text))
        self._map[_HEAD.size : _HEAD.size + len(text)] = text

    def told(self) -> tuple[Case | None, float]:
        """(the case told last, None before the first; the seconds since then, which are endlessly negative
        while the process rests)."""
        when, length = _HEAD.unpack_from(self._map, 0)
        text = self._map[_HEAD.size : _HEAD.size + length]
        try:
            case = msgspec.json.decode(text, type=Case) if text else None
        except msgspec.DecodeError:  # it died while it wrote
            case = None
        return case, time.monotonic() - when


def end_with(lifeline: int) -> None:
    """Ends this process and all that it started when its supervisor ends, however that came: `lifeline` is
    a pipe of which only the supervisor holds the other end."""

    def wait() -> None:
        os.read(lifeline, 1)
        os.killpg(os.getpgid(0), signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()
