"""Hand-made runs for tests of the gate: every figure follows from a few numbers."""

import msgspec

from hiddencost import grid
from hiddencost.grid import planning
from hiddencost.records import (
    REFERENCE,
    SCHEMA_VERSION,
    SINGLE_BLOCK,
    TWIN,
    Case,
    Ending,
    Environment,
    Header,
    Measurement,
    Run,
)

PLAN = """
name = "gate"
[time]
blocks = 6
[[forward]]
model = ["bert_tiny"]
strategy = ["functional_submodel", "always_return_all"]
points = ["all"]
mode = ["graph"]
batch = [1]
length = [8]
[[memory]]
reading = "heap"
model = ["bert_tiny"]
strategy = ["functional_submodel"]
points = ["all"]
mode = ["graph"]
batch = [1]
length = [8]
[lookup]
layers = [12, 100]
positions = []
"""
PLANNED = grid.parse(PLAN, "plan")
GROUP = Case(model="bert_tiny", strategy=REFERENCE, mode="graph", batch=1, length=8)
SUBMODEL = GROUP.with_(strategy="functional_submodel", points="all")
ALL = GROUP.with_(strategy="always_return_all", points="all")
WAYS = (GROUP, SUBMODEL, ALL)
WOBBLE = (-1.0, 0.6, 0.2, -0.4, 1.0, -0.4)
"""A block's share of the noise; they add up to 0."""
ROUNDS = 4
VISIT = 2


def environment(block=0, **changes):
    return Environment(
        **{
            "block": block,
            "versions": {"keras": "3.15.1", "tensorflow": "2.21.0"},
            "python": "3.11.9",
            "system": "Linux x86_64",
            "processor": "p",
            "cores": 2,
            "memory_bytes": 2**33,
            "threads": {"intra_op": 1, "inter_op": 1},
            "load": (0.0, 0.0, 0.0),
            **changes,
        }
    )


def run(measurements, plan=PLANNED, environments=None, how="complete", schema_version=SCHEMA_VERSION):
    jobs = [*planning.timed_jobs(plan), *planning.memory_jobs(plan)]
    header = Header(
        schema_version=schema_version,
        hiddencost_version="0",
        started="2026-01-01T00:00:00+00:00",
        command="hiddencost run",
        grid_name=plan.name,
        grid="",
        seed=1,
        git_commit="abc",
        plan=msgspec.json.encode(plan).decode(),
        planned=planning.planned(jobs),
    )
    ending = Ending(finished="2026-01-01T00:01:00+00:00", how=how, seconds=60.0)
    found = (environment(),) if environments is None else environments
    return Run(header=header, environments=found, measurements=tuple(measurements), ending=ending)


def alone(factors=None, noise=1e-4, blocks=6, heap=4e6, payload=3072.0, traces=1, slope=1.0):
    """A run by itself. factors: seconds of a case against 10 ms, exact within a block."""
    factors = {GROUP: 1.0, SUBMODEL: 1.02, ALL: 1.05, **(factors or {})}
    found = []
    for block in range(blocks):
        for number, case in enumerate((*WAYS, GROUP.with_(strategy=TWIN))):
            factor = factors.get(case, 1.0) * (1 + noise * WOBBLE[(block + number) % len(WOBBLE)])
            places = tuple(number + 4 * i for i in range(ROUNDS))
            values = (0.01 * factor * (1 + 0.1 * block),) * ROUNDS
            found.append(Measurement(case=case, metric="seconds", values=values, places=places, block=block))
            found.append(Measurement(case=case, metric="traces", values=(traces,), block=block))
        found += lookups(block, slope)
    return [*found, *memory(heap, payload)]


def lookups(block, slope=1.0):
    for layers in (12, 100):
        for way, each in (
            ("get_layer_name", 2e-7 * slope),
            ("get_layer_index", 3e-7),
            ("layers_property", 1e-7),
            ("dict_in_advance", 0.0),
        ):
            case = Case(model="lookup", strategy=way, layers=layers, position=layers - 1)
            values = tuple((1e-6 + layers * each) * (1 + 0.2 * i) for i in range(3))
            yield Measurement(case=case, metric="lookup_seconds", values=values, block=block)


def memory(heap=4e6, payload=3072.0):
    for number, case in enumerate((GROUP, GROUP.with_(strategy=SINGLE_BLOCK), SUBMODEL)):
        block = 100 + (number == 2)
        yield Measurement(case=case, metric="peak_heap_bytes", values=(heap,), block=block)
        if case == SUBMODEL:
            yield Measurement(case=case, metric="payload_bytes", values=(payload,), block=block)


def sides(shifts=None, noise=1e-4, blocks=6, jump=0.0, **changes):
    """(before, after): the calls of both in the order before, after, after, before, on a machine that gets
    1 % slower from turn to turn, and in every other block by the share `jump` at once. shifts: the factor
    by which a case is slower after; the other keywords are of the side after (see `alone`)."""
    found = ([], [])
    for block in range(blocks):
        leads = block % 2
        for number, case in enumerate(WAYS):
            factor = (shifts or {}).get(case, 1.0) * (1 + noise * WOBBLE[(block + number) % len(WOBBLE)])
            calls = ([], [])
            for turn in range(4 * ROUNDS):
                after = (turn % 4 in (1, 2)) != bool(leads)
                place = (turn // 4 * len(WAYS) + number) * 4 + turn % 4
                seconds = (
                    0.01 * 1.01**place * (1 + jump * (place > 24 and not leads)) * (factor if after else 1.0)
                )
                calls[after].extend((VISIT * place + i, seconds) for i in range(VISIT))
            for side in (0, 1):
                places, values = zip(*calls[side], strict=True)
                found[side].append(
                    Measurement(case=case, metric="seconds", values=values, places=places, block=block)
                )
    for side in (0, 1):
        given = changes if side else {}
        for block in range(blocks):
            found[side].extend(lookups(block, given.get("slope", 1.0)))
        found[side].extend(memory(given.get("heap", 4e6), given.get("payload", 3072.0)))
    return run(found[0]), run(found[1])
