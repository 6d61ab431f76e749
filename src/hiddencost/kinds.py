"""A run that several kinds of machine measured, as on a cluster: one run of each kind."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Set

import msgspec

from hiddencost.records import Environment, Measurement, Run

TIMES = ("seconds", "lookup_seconds", "growth_seconds")
"""The metrics of a process that takes times."""

Ground = tuple[int, str, str]
"""A block, with its backend and device: what one process measured, on one machine."""


def _ground(measurement: Measurement) -> Ground:
    return measurement.block, measurement.case.backend, measurement.case.device


def kind_of(run: Run) -> Callable[[Environment], str]:
    """What kind of machine a process ran on: its node's processor, cores and GPU."""
    gpus = {one.node: one.gpu.partition(",")[0] for one in run.environments if one.gpu}

    def kind(one: Environment) -> str:
        return ", ".join(filter(None, (one.processor, f"{one.cores} cores", gpus.get(one.node, ""))))

    return kind


def by_kind(run: Run) -> dict[str, Run]:
    """The run of each kind of machine that took times, by the kind's name, that with the most blocks first.
    Where it is one, the whole run; a run without a cluster is of one machine.

    Seconds belong to the kind that measured them. What was read in a process that took no times (bytes,
    counts) does not depend on the machine's speed, and belongs to all.
    """
    timing, kind = {_ground(m) for m in run.measurements if m.metric in TIMES}, kind_of(run)
    grounds: dict[str, set[Ground]] = defaultdict(set)
    for one in run.environments:
        if (ground := (one.block, one.backend, one.device)) in timing:
            grounds[kind(one)].add(ground)
    if len(grounds) < 2 or not any(one.node for one in run.environments):
        return {next(iter(grounds), ""): run}
    every = set().union(*grounds.values())
    in_order = sorted(grounds.items(), key=lambda item: (-len(item[1]), min(item[1])))
    return {name: _without(run, every - mine) for name, mine in in_order}


def _without(run: Run, others: Set[Ground]) -> Run:
    """The run without what was measured on these."""
    return msgspec.structs.replace(
        run,
        environments=tuple(
            one for one in run.environments if (one.block, one.backend, one.device) not in others
        ),
        measurements=tuple(m for m in run.measurements if _ground(m) not in others),
    )
