"""A run that several kinds of machine measured, as on a cluster: one run of each kind."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Set

import msgspec

from hiddencost.columns import columns_of, with_rows
from hiddencost.records import Environment, Origin, Run

TIMES = ("seconds", "lookup_seconds", "growth_seconds")
"""The metrics of a process that takes times."""


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
    found = columns_of(run)
    timing, kind = found.origins_of(found.of(TIMES)), kind_of(run)
    origins: dict[str, set[Origin]] = defaultdict(set)
    for one in run.environments:
        if one.origin in timing:
            origins[kind(one)].add(one.origin)
    if len(origins) < 2 or not any(one.node for one in run.environments):
        return {next(iter(origins), ""): run}
    every = set().union(*origins.values())
    in_order = sorted(origins.items(), key=lambda item: (-len(item[1]), min(item[1])))
    return {name: _without(run, every - mine) for name, mine in in_order}


def _without(run: Run, others: Set[Origin]) -> Run:
    """The run without what was measured there."""
    left = tuple(one for one in run.environments if one.origin not in others)
    return with_rows(msgspec.structs.replace(run, environments=left), ~columns_of(run).from_origins(others))
