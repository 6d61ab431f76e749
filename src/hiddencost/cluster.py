"""A run whose blocks are measured on the nodes of a Ray cluster, at the same time.

On each node a supervisor like that of a run on one machine measures one block at a time, and sends its
records here as they come; here they are stored. A block never spans two nodes: one that is lost with its node
is measured anew, whole, on another. Whoever measures holds all CPUs of its node, as Ray counts them, or a
GPU: two timing blocks never share what they measure on, nor with whoever else asks Ray for CPUs.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from hiddencost import environment
from hiddencost.columns import columns_of
from hiddencost.errors import UserError
from hiddencost.grid.planning import Job
from hiddencost.records import OVER_BUDGET, Environment, Line, Lost, Measurement, Run, State
from hiddencost.store import encode
from hiddencost.supervise import (
    MEMORY_WORKERS,
    End,
    Left,
    Pace,
    Supervisor,
    Untold,
    Writes,
    all_of,
    by_ground,
    lost,
    paced,
    temporary_folder,
    until_interrupted,
)

TRIES = 3
"""How often a block is begun that is lost with its node or has no memory there: once, and twice elsewhere."""
LOOK_SECONDS = 1.0
"""How often the cluster is asked for its nodes."""
WAIT_SECONDS = 60.0
"""How long a run waits where no node is left."""
END_SECONDS = 5.0
"""How long it waits for its nodes to clear up when it is over, and then for each to end."""


# -- on a node --


class Node:
    """Holds what blocks are measured on, and measures there. An actor of Ray."""

    def __init__(self) -> None:
        self._folder = temporary_folder()
        self._supervisor: Supervisor | None = None

    def environment(self) -> bytes:
        """What it is and has installed: an Environment, as JSON."""
        return encode(environment.capture(0, {}, own_load=0))

    def measure(
        self, jobs: bytes, here: str, pytest_arguments: Sequence[str], case_timeout: float
    ) -> Iterator[tuple[str, bytes]]:
        """Measures the jobs (JSON: the timed ones, the others) as on one machine. Yields records as they
        come, with no name, then the files of the run folder, by name. here: the folder that the run was
        started in, where models and strategies of one's own are looked for."""
        timed, memory = msgspec.json.decode(jobs, type=tuple[list[Job], list[Job]])
        os.environ.pop("OMP_NUM_THREADS", None)  # Ray's: the CPUs that it gave; the run has its own threads
        if os.path.isdir(here):
            os.chdir(here)
        folder = Path(self._folder.name)
        sent = _Sent(folder)
        (folder / "tmp").mkdir(exist_ok=True)
        self._supervisor = supervisor = Supervisor(
            sent, Untold(), pytest_arguments, case_timeout, temporary=str(folder / "tmp")
        )
        failed: list[BaseException] = []

        def work() -> None:
            try:
                supervisor.work(timed, memory)
            except BaseException as error:
                failed.append(error)
            finally:
                sent.lines.put(None)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        while (line := sent.lines.get()) is not None:
            yield "", encode(line)
        thread.join()
        for path in sorted((*folder.glob("logs/*.*"), *folder.glob("pytest-benchmark/*.json"))):
            if path.is_file():
                yield str(path.relative_to(folder)), path.read_bytes()
                path.unlink()
        if failed:
            raise failed[0]

    def clear(self) -> None:
        """Ends its workers and deletes its folder, also while it measures: it is killed next, and a process
        that is killed leaves both."""
        if self._supervisor:
            self._supervisor.stop()
        self._folder.cleanup()


class _Sent:
    """What a node's supervisor writes to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines: queue.SimpleQueue[Line | None] = queue.SimpleQueue()

    def write(self, line: Line) -> None:
        self.lines.put(line)


# -- where the run is stored --


@dataclass(eq=False)
class Unit:
    """What is measured on one node: a timing block of one backend and device, or of all that take turns; or
    jobs that take no times, as many as share a node. tried: the nodes where that came to nothing, with what
    happened. needs_bytes: more than this much memory. scale: of its rotations. state: what its cases are if
    it comes to nothing once more."""

    timed: list[Job] = field(default_factory=list)
    memory: list[Job] = field(default_factory=list)
    tried: list[tuple[str, str]] = field(default_factory=list)
    needs_bytes: int = 0
    scale: float = 1.0
    state: State = "crashed"

    @property
    def jobs(self) -> list[Job]:
        return self.timed + self.memory

    @property
    def device(self) -> str:
        """What it is measured on: a GPU where any of it is."""
        return "gpu" if any(job.device == "gpu" for job in self.jobs) else "cpu"

    @property
    def history(self) -> str:
        return "; ".join(f"{what} {node}" for node, what in self.tried)


def units(timed: Sequence[Job], memory: Sequence[Job]) -> list[Unit]:
    """What is measured on one node each, in order."""
    together = [job for job in timed if job.together]
    found = [
        Unit([job for job in together if job.block == block])
        for block in dict.fromkeys(job.block for job in together)
    ]
    found += [Unit([job]) for job in timed if not job.together]
    for (_, device), alike in by_ground(memory).items():
        size = MEMORY_WORKERS if device == "cpu" else 1
        found += [Unit(memory=alike[first : first + size]) for first in range(0, len(alike), size)]
    return found


@dataclass(eq=False)
class Place:
    """A node. name: as records have it. cpus: as Ray counts them. seats: how many can be taken, by device.
    memory_bytes: None until it has told. refused: whether nothing is measured there. failures: how often
    what was to measure there has ended before it could."""

    name: str
    cpus: float
    seats: dict[str, int]
    memory_bytes: int | None = None
    refused: bool = False
    failures: int = 0


@dataclass(eq=False)
class Seat:
    """A node, or a GPU of it, that is held to measure there. begun: whether its process has."""

    place: Place
    device: str
    actor: Any
    begun: bool = False


def connect(address: str = "auto") -> Any:
    """Ray, connected to a cluster. address: of its head, HOST:PORT, or `auto`: the one that this machine is a
    node of. Raises UserError without Ray, or without that cluster."""
    named = os.environ.get("RAY_ADDRESS", address) if address == "auto" else address
    if "://" in named or named == "local":
        raise UserError(f"--address {named}: give HOST:PORT of the cluster's head, from one of its nodes")
    try:
        import ray
    except ImportError:
        raise UserError("--executor ray: Ray is not installed: pip install 'hiddencost[ray]'") from None
    if not ray.is_initialized():
        try:
            ray.init(named, log_to_driver=False, logging_level="error")
        except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            why = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise UserError(
                f"--address {named}: no Ray cluster can be used from here: {why} (on one of its nodes, "
                "after `ray start --address HOST:PORT`?)"
            ) from None
    return ray


@dataclass(eq=False)
class Cluster:
    """A Ray cluster that measures a run. supervisor: of the run; it stores. warn: is told of nodes that
    cannot be used."""

    ray: Any
    supervisor: Supervisor
    warn: Callable[[str], None]
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _waiting: list[Unit] = field(default_factory=list)
    _running: set[Unit] = field(default_factory=set)
    _places: dict[str, Place] = field(default_factory=dict)  # by node id, of all that were seen
    _live: set[str] = field(default_factory=set)
    _seats: dict[tuple[str, str, int], Seat] = field(default_factory=dict)  # by node id, device and number
    _threads: list[threading.Thread] = field(default_factory=list)
    _failed: BaseException | None = None
    _stopping: bool = False

    def run(self, timed: Sequence[Job], memory: Sequence[Job]) -> str:
        """Runs all jobs. Returns `complete` or `interrupted`, as `Supervisor.run` does. Raises UserError
        where no node is left that can measure; what was measured is stored."""
        return until_interrupted([self.supervisor], lambda: self._work(timed, memory))

    def _work(self, timed: Sequence[Job], memory: Sequence[Job]) -> None:
        self._pace = Pace([job for job in timed if not job.together])
        self._waiting = units(timed, memory)
        alone_since = time.monotonic()
        try:
            with self._changed:
                while self._waiting or self._running:
                    if self._failed:
                        raise self._failed
                    self._look()
                    if self._running or any(self._good_for(unit) for unit in self._waiting):
                        alone_since = time.monotonic()
                    elif time.monotonic() - alone_since > WAIT_SECONDS:
                        raise UserError(
                            f"{self.supervisor.writer.folder}: no node of the cluster can measure what is "
                            "left: go on with --resume"
                        )
                    self._changed.wait(LOOK_SECONDS)
        finally:
            with self._changed:
                self._stopping = True
                seats = list(self._seats.values())
                self._changed.notify_all()
            self._release(seats)
            for thread in self._threads:
                thread.join(END_SECONDS)

    def _look(self) -> None:
        """Takes a seat on each node, and GPU, that has none, where something waits for it."""
        devices = {unit.device for unit in self._waiting}
        self._live.clear()
        for node in self.ray.nodes():
            node_id, has = node["NodeID"], node["Resources"]
            if not node["Alive"]:
                continue
            self._live.add(node_id)
            place = self._places.setdefault(
                node_id,
                Place(
                    f"{node['NodeManagerHostname']}/{node_id[:8]}",
                    has.get("CPU", 0),
                    {"cpu": int(has.get("CPU", 0) > 0), "gpu": int(has.get("GPU", 0))},
                ),
            )
            for device in devices if not place.refused else ():
                for number in range(place.seats[device]):
                    if (node_id, device, number) not in self._seats:
                        self._take((node_id, device, number), place)

    def _take(self, key: tuple[str, str, int], place: Place) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        node_id, device, _ = key
        actor = (
            self.ray.remote(Node)
            .options(
                max_concurrency=2,  # it can be ended while it measures
                num_cpus=place.cpus if device == "cpu" else min(1, place.cpus),
                num_gpus=0 if device == "cpu" else 1,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
            )
            .remote()
        )
        seat = self._seats[key] = Seat(place, device, actor)
        thread = threading.Thread(target=self._sit, args=(key, seat), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _sit(self, key: tuple[str, str, int], seat: Seat) -> None:
        """Measures on a seat what waits for it, until nothing does or the seat is lost."""
        try:
            if self._usable(seat):
                while unit := self._next(seat):
                    self._measure(seat, unit)
        except self.ray.exceptions.RayError:
            pass  # lost: what it measured waits again
        except BaseException as error:
            self._failed = error
        finally:
            self._release([seat])
            with self._changed:
                self._seats.pop(key, None)
                self._changed.notify_all()

    def _release(self, seats: Sequence[Seat]) -> None:
        """Ends what is measured on the seats, and their processes; on their machines nothing is left."""
        with suppress(Exception):  # they may be gone
            clearing = [seat.actor.clear.remote() for seat in seats if seat.begun]
            self.ray.wait(clearing, num_returns=len(clearing), timeout=END_SECONDS)
        for seat in seats:
            with suppress(Exception):
                self.ray.kill(seat.actor)

    def _usable(self, seat: Seat) -> bool:
        """Waits until the seat is free. Whether what is installed there is what is installed here."""
        place, errors = seat.place, self.ray.exceptions
        try:
            there = msgspec.json.decode(self.ray.get(seat.actor.environment.remote()), type=Environment)
            seat.begun = True
        except (errors.RayTaskError, errors.RuntimeEnvSetupError) as error:
            self._refuse(place, f"hiddencost does not run there: {_last_line(error)}")
            return False
        except errors.RayError as error:
            place.failures += 1
            if place.failures == TRIES:
                self._refuse(place, f"what was to measure there ended {TRIES} times: {_last_line(error)}")
            return False
        different = list(environment.changed_versions(self._here, there))
        if different:
            self._refuse(place, f"it has other versions than this machine: {'; '.join(different)}")
        place.memory_bytes = there.memory_bytes
        return not different

    @cached_property
    def _here(self) -> Environment:
        """What is installed on this machine."""
        return environment.capture(0, {}, own_load=0)

    def _refuse(self, place: Place, reason: str) -> None:
        with self._changed:
            if not place.refused and not self._stopping:
                self.warn(f"node {place.name} is not used: {reason}")
            place.refused = True

    def _next(self, seat: Seat) -> Unit | None:
        """What is measured on the seat next, as soon as it may; None when nothing waits for such a seat."""
        with self._changed:
            while not self._stopping and any(unit.device == seat.device for unit in self._waiting):
                for unit in self._waiting:
                    if self._may(unit, seat):
                        self._waiting.remove(unit)
                        self._running.add(unit)
                        return unit
                self._changed.wait(LOOK_SECONDS)
            return None

    def _good_for(self, unit: Unit) -> list[Place]:
        """The nodes that may measure a unit: where it has not come to nothing, with the memory that it needs,
        or any where there is no such node."""
        able = [
            place
            for node_id, place in self._places.items()
            if node_id in self._live and not place.refused and place.seats[unit.device]
        ]
        tried = {node for node, _ in unit.tried}
        return [
            place
            for place in able
            if place.name not in tried
            and (place.memory_bytes is None or place.memory_bytes > unit.needs_bytes)
        ] or able

    def _may(self, unit: Unit, seat: Seat) -> bool:
        """Whether the seat may measure the unit now: with a time budget only when the first block has shown
        what a block takes."""
        if unit.device != seat.device or seat.place not in self._good_for(unit):
            return False
        paced = {job.ground for job in unit.timed if job.block and job.time.budget and not job.together}
        return not any(
            job.block == 0 and job.ground in paced
            for other in (*self._waiting, *self._running)
            for job in other.timed
        )

    def _measure(self, seat: Seat, unit: Unit) -> None:
        """Measures the unit on the seat and stores its records as they come. Where it comes to nothing, it
        waits again, or its cases have the reason. Raises RayError where the seat is lost."""
        supervisor, errors = self.supervisor, self.ray.exceptions
        if not unit.tried and not unit.memory and not unit.timed[0].together:
            with self._changed:
                unit.scale = self._pace.scale(unit.timed[0])
            unit.timed = [supervisor.to_measure(job, unit.scale) for job in unit.timed]
        left = all_of(unit.jobs)
        began = time.perf_counter()
        full = False
        try:
            stream = seat.actor.measure.options(num_returns="streaming").remote(
                msgspec.json.encode((unit.timed, unit.memory)),
                os.getcwd(),
                list(supervisor.pytest_arguments),
                supervisor.case_timeout,
            )
            for reference in stream:
                name, content = self.ray.get(reference)
                if name:
                    path = supervisor.writer.folder / name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(content)
                    continue
                record = msgspec.json.decode(content, type=Environment | Measurement | Lost)
                if isinstance(record, Lost):
                    mine = [job for job in unit.jobs if job.origin == record.origin]
                    supervisor.lose(mine, left, record.reason)
                    continue
                if isinstance(record, Environment):
                    again = (f"measured again here: {unit.history}",) * bool(unit.tried)
                    record = msgspec.structs.replace(
                        record, node=seat.place.name, warnings=(*record.warnings, *again)
                    )
                full |= isinstance(record, Measurement) and record.state == "out_of_memory"
                supervisor.keep(record, left)
        except errors.RayTaskError as error:
            raise error.cause from None
        except errors.OutOfMemoryError:
            unit.needs_bytes, unit.state = seat.place.memory_bytes or 0, "out_of_memory"
            self._again(unit, seat, "out of memory on", left)
            raise
        except errors.RayError:
            self._again(unit, seat, "lost with", left)
            raise
        if full and self._has_more_memory(unit, seat.place):
            unit.needs_bytes = seat.place.memory_bytes or 0
            self._again(unit, seat, "out of memory on", left)
            return
        with self._changed:
            for job in unit.timed:
                if not job.together:
                    taken = time.perf_counter() - began
                    self._pace.learn(job, unit.scale, taken, supervisor.rotated(job))
            self._done(unit)

    def _has_more_memory(self, unit: Unit, place: Place) -> bool:
        """Whether another node has, and there is a try left."""
        with self._changed:
            return (
                unit.device == "cpu"
                and len(unit.tried) + 1 < TRIES
                and any((one.memory_bytes or 0) > (place.memory_bytes or 0) for one in self._good_for(unit))
            )

    def _again(self, unit: Unit, seat: Seat, what: str, left: Left) -> None:
        """The unit waits for another node; after the last try its cases have the reason."""
        with self._changed:
            if self._stopping:
                return
            unit.tried.append((seat.place.name, what))
            self.supervisor.lose(unit.jobs, left, f"{what} {seat.place.name}")
            if len(unit.tried) < TRIES:
                self._waiting.insert(0, unit)
            else:
                self.supervisor.note(End(unit.state, f"was {unit.history}"), "", left)
            self._done(unit)

    def _done(self, unit: Unit) -> None:
        with self._changed:
            self._running.discard(unit)
            self._changed.notify_all()


def _last_line(error: Exception) -> str:
    return str(error).strip().rpartition("\n")[2]


def anew(writer: Writes, jobs: Sequence[Job], left: Sequence[Job], run: Run) -> list[Job]:
    """The jobs of which something is left to be measured of a run that ended early, whole: they may go on on
    other nodes than they began on, so what was measured of them is marked as lost. Never what was left out
    for want of time."""
    measured = columns_of(run)
    missing = {job.origin for job in left}
    begun = measured.origins_of() | {one.origin for one in run.environments}
    left_out = set(measured.met(measured.with_note(OVER_BUDGET.__eq__)))
    found = [paced(job, 1.0, left_out) for job in jobs if job.origin in missing]
    for job in found:
        if job.origin in begun:
            writer.write(lost(job, "gone on with"))
    return found
