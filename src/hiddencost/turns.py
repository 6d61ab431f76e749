"""Workers that call their cases by turns, so that what the machine does hits all alike.

A conductor lets one of them at a time call, for a while; the others sleep in a read of their socket. All
calls are one sequence, in which each has its place, whoever makes it.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from random import Random
from typing import IO

import msgspec

PROTOCOL = 2
"""Of what is said between a worker and its conductor: both are to speak the same."""


class Offer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a worker says when it waits. calls: of each of its cases, by name, how many calls are a turn; None
    where it only wants to be the one that works. seconds: for how long the cases should be called."""

    calls: dict[str, int] | None = None
    seconds: float = 0.0


class Turn(msgspec.Struct, frozen=True, omit_defaults=True):
    """What it is answered: to call a case so often, from this place on; or, without a case, to go on."""

    case: str = ""
    first: int = 0
    calls: int = 0


Visit = tuple[int, str, int]
"""The number of a worker, a case of it, and how many calls it makes."""
Round = Callable[[Sequence[Mapping[str, int]], Random], list[Visit]]
"""What the workers offer -> the visits of one round; none where there is nothing to call."""


def _lines(connection: socket.socket) -> IO[bytes]:
    """What comes by a socket, to be read by lines. Closing the socket is up to who has opened it."""
    return open(connection.fileno(), "rb", closefd=False)


class Turns:
    """A worker's end. resting: entered while it waits for the others."""

    def __init__(
        self, connection: socket.socket, resting: Callable[[], AbstractContextManager[None]] = nullcontext
    ) -> None:
        self._socket = connection
        self._lines = _lines(connection)
        self._resting = resting

    def play(self, offer: Offer, visit: Callable[[str, range], None]) -> None:
        """Has the cases called: `visit` is given a name and the places of its calls, until all had enough."""
        self._say(offer)
        while (turn := self._hear()).case:
            visit(turn.case, range(turn.first, turn.first + turn.calls))
            self._say(Offer())

    @contextmanager
    def alone(self) -> Iterator[None]:
        """What is done in it is done by one worker after the other."""
        self._say(Offer())
        self._hear()
        try:
            yield
        finally:
            self._say(Offer())

    def _say(self, offer: Offer) -> None:
        self._socket.sendall(msgspec.json.encode(offer) + b"\n")

    def _hear(self) -> Turn:
        with self._resting():
            return msgspec.json.decode(self._lines.readline(), type=Turn)


class _Side:
    """The conductor's end of one worker. offer: what it waits with; None while it works, or has ended."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._lines = _lines(connection)
        self.offer: Offer | None = None
        self.ended = False

    @property
    def calls(self) -> Mapping[str, int]:
        return (self.offer and self.offer.calls) or {}

    def hear(self) -> None:
        """Returns when the worker waits, or has ended."""
        line = b""
        with suppress(ConnectionError):
            line = self._lines.readline()
        self.offer = msgspec.json.decode(line, type=Offer) if line.endswith(b"\n") else None
        self.ended = self.offer is None

    def release(self, turn: Turn) -> None:
        with suppress(ConnectionError):
            self._socket.sendall(msgspec.json.encode(turn) + b"\n")

    def visit(self, turn: Turn) -> None:
        """Returns when the worker has made the calls, or has ended."""
        offer = self.offer
        self.release(turn)
        self.hear()
        self.offer = None if self.ended else offer


def conduct(connections: Sequence[socket.socket], one_round: Round, least: int, seed: str) -> None:
    """Answers the workers until all have ended. Whenever all of them wait, those that want to work alone do
    so, one after the other; else their cases are called, round by round: `least` rounds, and until the
    longest time that one of them has offered is over."""
    sides = [_Side(connection) for connection in connections]
    generator = Random(seed)
    while True:
        for side in sides:
            if not side.ended and side.offer is None:
                side.hear()
        waiting = [side for side in sides if side.offer]
        if not waiting:
            return
        apart = [side for side in waiting if side.offer and side.offer.calls is None]
        for side in apart:
            side.visit(Turn())
            side.offer = None
        if apart:
            continue
        _play(sides, one_round, least, generator)
        for side in waiting:
            side.release(Turn())
            side.offer = None


def _play(sides: Sequence[_Side], one_round: Round, least: int, generator: Random) -> None:
    seconds = max(side.offer.seconds for side in sides if side.offer)
    began, done, place = time.perf_counter(), 0, 0
    while done < least or time.perf_counter() - began < seconds:
        visits = one_round([side.calls for side in sides], generator)
        if not visits:
            return
        for number, case, calls in visits:
            if sides[number].offer:
                sides[number].visit(Turn(case, place, calls))
                place += calls
        done += 1


def there_and_back(leader: int) -> Round:
    """Of two workers: each case that both offer in the order leader, other, other, leader, which favours
    neither on a machine that gets steadily slower or faster."""

    def one_round(offers: Sequence[Mapping[str, int]], generator: Random) -> list[Visit]:
        if len(offers) < 2:
            return []
        shared = {name: max(offer[name] for offer in offers) for name in offers[0] if name in offers[1]}
        visits = []
        for name in generator.sample(sorted(shared), len(shared)):
            calls = shared[name]
            visits += [(leader, name, calls), (1 - leader, name, 2 * calls), (leader, name, calls)]
        return visits

    return one_round


def in_any_order(offers: Sequence[Mapping[str, int]], generator: Random) -> list[Visit]:
    """Every case of every worker once, shuffled."""
    visits = [(number, name, calls) for number, offer in enumerate(offers) for name, calls in offer.items()]
    return generator.sample(visits, len(visits))
