"""The measurements of a run, kept in columns. A run of 100,000 cases has four million of them: as objects
they would take gigabytes, as columns they take 30 bytes each. Their values, which are seldom read but for the
median, are in a file where they are many."""

from __future__ import annotations

import math
import operator
import statistics
import tempfile
from array import array
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import IO, Any, overload

import msgspec
import numpy as np

from hiddencost.records import Case, Measurement, Origin, Run, State

NOWHERE = -1
"""In place of a place: of a value that was not taken in a rotation."""
IN_MEMORY = 2**20
"""As many values are kept in memory; where there are more all go to a temporary file, which is read where one
is asked for."""

Mask = np.ndarray
"""True for the rows that are meant."""


class Columns(Sequence[Measurement]):
    """Measurements, one a row. Each is made anew when it is asked for; what concerns many is read from the
    columns: `case`, `metric` and `origin` are places in `cases`, `metrics` and `origins`; `counts` are the
    numbers of values, `medians` NaN where there is none. Raises OverflowError for a number that is too large
    for its column.
    """

    def __init__(self, measurements: Iterable[Measurement] = ()) -> None:
        cases: dict[Case, int] = {}
        metrics: dict[str, int] = {}
        origins: dict[Origin, int] = {}
        kinds: dict[tuple[State, str, tuple[tuple[str, str], ...]], int] = {("ok", "", ()): 0}
        case, kind, origin, count = (array("i") for _ in range(4))
        metric, first, effect_at = array("h"), array("I"), array("I")
        median, effects = array("d"), array("d")
        before = 0  # values that are in the file
        with _Long("d") as values, _Long("i") as places:
            here, placed = values.here, places.here
            for m in measurements:  # millions of them: a microsecond each is seconds
                one, taken = m.case, m.values
                number = cases.get(one)
                if number is None:
                    number = cases[one.slim] = len(cases)
                case.append(number)
                metric.append(metrics.setdefault(m.metric, len(metrics)))
                process = m.block, one.backend, one.device
                if process not in origins:
                    array("i", [m.block])  # or there is no place for it
                    origins[process] = len(origins)
                origin.append(origins[process])
                if m.state != "ok" or m.reason or m.notes:
                    told = m.state, m.reason, tuple(m.notes.items())
                    kind.append(kinds.setdefault(told, len(kinds)))
                else:
                    kind.append(0)
                first.append(before + len(here))
                count.append(len(taken))
                if m.effect is not None:
                    effect_at.append(first[-1])
                    effects.append(m.effect)
                if len(taken) == 1 and not m.places:
                    median.append(taken[0])
                    here.append(taken[0])
                    placed.append(NOWHERE)
                    continue
                median.append(statistics.median(taken) if taken else math.nan)
                here.extend(taken)
                placed.extend(m.places or (NOWHERE,) * len(taken))
                if len(here) > IN_MEMORY:
                    before += len(here)
                    values.spill()
                    places.spill()
            self._values, self._places = values.column(), places.column()
        self.cases = tuple(cases)
        self.metrics = tuple(metrics)
        self.origins = tuple(origins)
        self._kinds = tuple((state, reason, dict(notes)) for state, reason, notes in kinds)
        self.case, self.metric, self.origin = _column(case), _column(metric), _column(origin)
        self.counts, self.medians = _column(count), _column(median)
        self._kind, self._first = _column(kind), _column(first)
        self._effect_at, self._effects = _column(effect_at), _column(effects)

    def __len__(self) -> int:
        return len(self.case)

    def __iter__(self) -> Iterator[Measurement]:
        return map(self._row, range(len(self)))

    @overload
    def __getitem__(self, row: int) -> Measurement: ...
    @overload
    def __getitem__(self, row: slice) -> tuple[Measurement, ...]: ...
    def __getitem__(self, row: int | slice) -> Measurement | tuple[Measurement, ...]:
        rows = range(len(self))[row]
        return self._row(rows) if isinstance(rows, int) else tuple(map(self._row, rows))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(operator.eq, self, other))

    __hash__ = None  # type: ignore[assignment]

    def _row(self, row: int) -> Measurement:
        state, reason, notes = self._kinds[self._kind[row]]
        return Measurement(
            case=self.cases[self.case[row]],
            metric=self.metrics[self.metric[row]],
            values=self.values_of(row),
            places=self.places_of(row),
            effect=self.effect_of(row),
            state=state,
            reason=reason,
            block=self.origins[self.origin[row]][0],
            notes=notes,
        )

    def values_of(self, row: int) -> tuple[float, ...]:
        """The values of one row."""
        first = self._first[row].item()
        return tuple(self._values[first : first + self.counts[row].item()].tolist())

    def places_of(self, row: int) -> tuple[int, ...]:
        """The places of one row; none where it was not called in a rotation."""
        first, count = self._first[row].item(), self.counts[row].item()
        has = count and self._places[first] != NOWHERE
        return tuple(self._places[first : first + count].tolist()) if has else ()

    def effect_of(self, row: int) -> float | None:
        """The effect that is stored with one row."""
        first = self._first[row].item()
        place = bisect_left(self._effect_at, first)
        has = self.counts[row] and place < len(self._effect_at) and self._effect_at[place] == first
        return float(self._effects[place]) if has else None

    def effects(self, rows: np.ndarray) -> np.ndarray:
        """The effects that are stored with some rows; NaN where none is."""
        found = np.full(len(rows), np.nan)
        firsts = self._first[rows]
        places = np.searchsorted(self._effect_at, firsts)
        known = np.flatnonzero((places < len(self._effect_at)) & (self.counts[rows] > 0))
        known = known[self._effect_at[places[known]] == firsts[known]]
        found[known] = self._effects[places[known]]
        return found

    def notes_of(self, row: int) -> Mapping[str, str]:
        """The notes of one row."""
        notes: Mapping[str, str] = self._kinds[self._kind[row]][2]
        return notes

    def blocks_of(self, rows: np.ndarray) -> list[int]:
        """The block of each of some rows."""
        return [self.origins[place][0] for place in self.origin[rows].tolist()]

    @property
    def block(self) -> np.ndarray:
        """The block of each row."""
        found: np.ndarray = np.array([block for block, _, _ in self.origins], np.int32)[self.origin]
        return found

    # -- which rows --

    def of(self, metrics: Collection[str]) -> Mask:
        """The rows of these metrics."""
        return _chosen(self.metrics, metrics.__contains__, self.metric)

    def of_cases(self, cases: Collection[Case]) -> Mask:
        """The rows of these cases."""
        return _chosen(self.cases, set(cases).__contains__, self.case)

    def from_origins(self, origins: Collection[Origin]) -> Mask:
        """The rows that these processes measured."""
        return _chosen(self.origins, origins.__contains__, self.origin)

    def in_state(self, state: State) -> Mask:
        """The rows in this state."""
        return _chosen(self._kinds, lambda kind: kind[0] == state, self._kind)

    def with_note(self, fits: Callable[[str], bool]) -> Mask:
        """The rows that have a note whose name fits."""
        return _chosen(self._kinds, lambda kind: any(map(fits, kind[2])), self._kind)

    # -- of some rows --

    def only(self, rows: Mask) -> Columns:
        """These rows alone, in their order. They share the values with this."""
        if rows.all():
            return self
        some: Columns = Columns.__new__(Columns)
        some.__dict__ = dict(self.__dict__)
        for name in ("case", "metric", "origin", "counts", "medians", "_kind", "_first"):
            setattr(some, name, getattr(self, name)[rows])
        return some

    def met(self, rows: Mask | slice = slice(None)) -> list[Case]:
        """The cases of these rows, each once, in the order first met."""
        places = self.case[rows]
        first = np.full(len(self.cases), len(places))
        np.minimum.at(first, places, np.arange(len(places)))
        return [self.cases[place] for place in np.argsort(first)[: np.count_nonzero(first < len(places))]]

    def blocks(self, rows: Mask) -> set[int]:
        """The blocks of these rows."""
        return {block for block, _, _ in self.origins_of(rows)}

    def origins_of(self, rows: Mask | slice = slice(None)) -> set[Origin]:
        """The processes that measured these rows."""
        return {self.origins[place] for place in np.flatnonzero(np.bincount(self.origin[rows]))}

    def keys(self, rows: Mask) -> Iterator[tuple[Case, str, int]]:
        """Case, metric and block of each of these rows."""
        for row in np.flatnonzero(rows):
            block, _, _ = self.origins[self.origin[row]]
            yield self.cases[self.case[row]], self.metrics[self.metric[row]], block


def columns_of(run: Run) -> Columns:
    """The measurements of a run in columns, made once where they are not kept so."""
    if isinstance(run.measurements, Columns):
        return run.measurements
    made: Columns | None = run.__dict__.get("columns")
    if made is None:
        made = run.__dict__["columns"] = Columns(run.measurements)
    return made


def with_rows(run: Run, rows: Mask) -> Run:
    """The run with these rows of its columns alone."""
    return msgspec.structs.replace(run, measurements=columns_of(run).only(rows))


class _Long:
    """Numbers of one type: `here` those that were appended since the last `spill`, which moves them into a
    temporary file."""

    def __init__(self, typecode: str) -> None:
        self.here: Any = array(typecode)
        self._file: IO[bytes] | None = None

    def __enter__(self) -> _Long:
        return self

    def spill(self) -> None:
        self._file = self._file or tempfile.TemporaryFile()  # noqa: SIM115 (closed at the end)
        self.here.tofile(self._file)
        del self.here[:]

    def column(self) -> np.ndarray:
        """All of them, read from the file where they are in one."""
        if self._file is None:
            return _column(self.here)
        self.spill()
        self._file.flush()
        return np.memmap(self._file, self.here.typecode, "r")

    def __exit__(self, *error: object) -> None:
        if self._file:
            self._file.close()  # what is mapped stays


def _chosen(things: Sequence[object], fits: Callable[..., bool], column: np.ndarray) -> Mask:
    """The rows of a column whose things fit."""
    found: Mask = np.fromiter(map(fits, things), bool, len(things))[column]
    return found


def _column(numbers: array[int] | array[float]) -> np.ndarray:
    return np.frombuffer(numbers, numbers.typecode) if len(numbers) else np.zeros(0, numbers.typecode)
