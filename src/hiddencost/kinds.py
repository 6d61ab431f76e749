"""A run that several kinds of machine measured, as on a cluster: one run of each kind."""

from __future__ import annotations

from collections import defaultdict

import msgspec

from hiddencost.records import Measurement, Run

TIMES = ("seconds", "lookup_seconds", "growth_seconds")
"""The metrics of a process that takes times."""

Ground = tuple[int, str, str]
"""A block, with its backend and device: what one process measured, on one machine."""


def _ground(measurement: Measurement) -> Ground:
    return measurement.block, measurement.case.backend, measurement.case.device


def by_kind(run: Run) -> dict[str, Run]:
    """The run of each kind of machine that took times, by the kind's name (`Environment.kind`), that with the
    most blocks first. Where it is one, the whole run.

    Seconds belong to the kind that measured them. What was read in a process that took no times (bytes,
    counts) does not depend on the machine's speed, and belongs to all.
    """
    timing = {_ground(m) for m in run.measurements if m.metric in TIMES}
    kind_of: dict[Ground, str] = {}
    for one in run.environments:
        if (ground := (one.block, one.backend, one.device)) in timing:
            kind_of[ground] = one.kind
    if len(set(kind_of.values())) < 2:
        return {next(iter(kind_of.values()), ""): run}
    grounds: dict[str, set[Ground]] = defaultdict(set)
    for ground, kind in kind_of.items():
        grounds[kind].add(ground)
    every = set(kind_of)
    return {
        kind: msgspec.structs.replace(
            run,
            environments=tuple(
                one for one in run.environments if (one.block, one.backend, one.device) not in every - mine
            ),
            measurements=tuple(m for m in run.measurements if _ground(m) not in every - mine),
        )
        for kind, mine in sorted(grounds.items(), key=lambda item: (-len(item[1]), min(item[1])))
    }
