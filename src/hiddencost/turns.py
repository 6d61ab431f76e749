"""Two workers that call the same cases by turns, so that what the machine does hits both alike.

One call after the other in the order before, after, after, before (ABBA): a machine that gets steadily
slower or faster favours neither. Each worker sleeps in a read of a pipe while the other one calls.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import msgspec

GO, STOP = b"g", b"s"


class OtherSideEndedError(Exception):
    """The worker of the other side has ended."""


@dataclass(frozen=True)
class Turns:
    """One worker's ends of the two pipes. leads: this one calls first, and says when it is enough."""

    receive: int
    send: int
    leads: bool

    def agree(self, calls: Mapping[str, int]) -> dict[str, int]:
        """Of what both sides name, the larger of their numbers. Raises OtherSideEndedError."""
        self._write(msgspec.json.encode(calls) + b"\n")
        line = b""
        while not line.endswith(b"\n"):
            line += self._read()
        theirs = msgspec.json.decode(line, type=dict[str, int])
        return {name: max(number, theirs[name]) for name, number in calls.items() if name in theirs}

    def go_on(self, wanted: bool) -> bool:
        """Whether another round begins: what the leading side wants."""
        if self.leads:
            self._write(GO if wanted else STOP)
            return wanted
        return self._read() == GO

    def await_turn(self) -> None:
        """Returns when the other side has passed the turn."""
        self._read()

    def pass_turn(self) -> None:
        self._write(GO)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """What is done in it is done by one side after the other."""
        if not self.leads:
            self.await_turn()
        try:
            yield
        finally:
            self.pass_turn()
            if self.leads:
                self.await_turn()

    def _read(self) -> bytes:
        found = os.read(self.receive, 1)
        if not found:
            raise OtherSideEndedError("the worker of the other side has ended")
        return found

    def _write(self, data: bytes) -> None:
        try:
            os.write(self.send, data)
        except BrokenPipeError:
            raise OtherSideEndedError("the worker of the other side has ended") from None
