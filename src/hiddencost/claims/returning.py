"""Claims on returning hidden states: holding them, always returning them, on request, ending early."""

from __future__ import annotations

from hiddencost.claims.copying import in_numpy
from hiddencost.claims.evidence import (
    BIG,
    HEAVY,
    figure,
    finding,
    in_order,
    largest,
    named,
    over,
    settle,
    timed,
    to_reference,
    to_way,
    weighed,
)
from hiddencost.claims.scenes import NO_INFERENCE
from hiddencost.records import OUTPUT, REFERENCE, Answer, Case, Figure
from hiddencost.stats import FEW_BLOCKS, Table

IN_NUMPY = "time to have everything in NumPy"
BATCH = 32
"""The batch size that `keras.Model.predict` takes when none is given."""


def references(table: Table) -> Answer:
    """No references to unused hidden states are held: the plain pass needs little more than its floor. Where
    gradients are recorded they must be held, and the floor, which counts one block, says nothing."""
    passes = table.cases("peak_heap_bytes", strategy=REFERENCE)
    floors = {case: table.live_set_floor(case) for case in passes if case.mode not in NO_INFERENCE}
    found = []
    for case in largest(case for case, floor in floors.items() if floor):
        peak, floor = table.center(case, "peak_heap_bytes"), floors[case]
        if peak is not None and floor is not None:
            ratio = figure("", over(peak, (floor, None, None)), case)
            found.append(finding(ratio, HEAVY, "below"))
    rule = f"holds where the peak heap is at most {HEAVY:g} times the live-set floor, at the largest shape"
    return settle("references", {"peak heap / live-set floor": found}, rule)


def payload(table: Table) -> Answer:
    """It is a lot of information: one batch of hidden states outweighs the model."""
    cases = [
        case
        for case in table.cases("payload_bytes", points="all", reduction="none", examples=None)
        if case.batch
    ]
    longest: dict[tuple[str, str], Case] = {}
    for case in in_order(cases):
        kind = case.model, case.dtype
        if kind not in longest or case.length > longest[kind].length:
            longest[kind] = case
    bytes_each, shares = [], []
    for case in longest.values():
        one = _of_model(
            case, "payload of one example", _bytes(table, case, "payload_bytes") / case.batch, "B"
        )
        bytes_each.append(one)
        for weights in table.cases("weights_bytes", model=case.model, dtype=case.dtype)[:1]:
            share = one.value / _bytes(table, weights, "weights_bytes")
            shares.append(finding(_of_model(case, "", share, "%"), 1 / BATCH, "above"))
            bytes_each.append(_of_model(case, "payload of a batch / weights", BATCH * share, ""))
    rule = f"holds where the hidden states of {BATCH} of the longest examples outweigh the model's weights"
    facts = {"batch": f"{BATCH} examples"} if shares else {}
    return settle("payload", {"payload / weights": shares}, rule, bytes_each, facts | _formula(table))


def _of_model(case: Case, name: str, value: float, unit: str) -> Figure:
    in_dtype = "" if case.dtype == "float32" else f" in {case.dtype}"
    where = f"for {case.model}{in_dtype} at length {case.length}"
    return Figure(name=name, value=value, unit=unit, where=where, scope=case)


def _bytes(table: Table, case: Case, metric: str) -> float:
    return table.medians(case, metric)[0]


def _formula(table: Table) -> dict[str, str]:
    """In how many cases the bytes that came back are those of the formula: all that was asked for."""
    sizes = [
        (table.medians(case, "output_bytes"), table.medians(case, "payload_bytes"))
        for case in table.cases("output_bytes", strategy="functional_submodel")
    ]
    both = [(returned, asked) for returned, asked in sizes if asked]
    exact = sum(set(returned) == set(asked) for returned, asked in both)
    told = f"exactly in {exact} of {len(both)} cases of the functional sub-model"
    return {"formula": told} if both else {}


def always_return(table: Table) -> Answer:
    """It is heavyweight to always return every hidden state."""
    memory = to_reference(table, "peak_heap_bytes", "always_return_all", "all")
    times = to_reference(table, "seconds", "always_return_all", "all")
    aspects = {
        "time": timed(table, times, 1 + BIG, "above"),
        "peak heap": weighed(table, [pair for pair in memory if pair[0].examples is None], HEAVY, "above"),
        "peak heap of a data set": weighed(
            table, [pair for pair in memory if pair[0].examples is not None], HEAVY, "above"
        ),
    }
    if any(case.device != "cpu" for case in table.cases("seconds")):
        held = to_reference(table, "peak_device_bytes", "always_return_all", "all")
        brought = [
            finding(figure("", ratio, case), 1 + BIG, "above", FEW_BLOCKS if ratio[1] is None else "")
            for case, _ in times
            if case.device != "cpu" and (ratio := in_numpy(table, case))
        ]
        aspects |= {"peak device memory": weighed(table, held, HEAVY, "above"), IN_NUMPY: brought}
    rule = f"heavy is a time above {1 + BIG:g} times, or a peak above {HEAVY:g} times the reference's"
    return settle("always_return", aspects, rule, said="heavy")


def on_request(table: Table) -> Answer:
    """An argument to `call` costs nothing when it is off, and when it is on no more than a sub-model."""
    off = to_reference(table, "seconds", "on_request", OUTPUT)
    on = to_way(table, "on_request", "functional_submodel", points="all")
    aspects = {
        "time, argument off": timed(table, off, 1 + BIG, "below"),
        "time, argument on": timed(table, on, 1 + BIG, "below"),
    }
    traces = [
        max(table.medians(case, "growth_traces"))
        for case in table.cases("growth_traces", strategy="on_request", points="all")
    ]
    extra = [Figure(name="traces", value=max(traces), unit="count")] if traces else []
    rule = f"holds where the time is at most {1 + BIG:g} times the plain pass's (off), the sub-model's (on)"
    return settle("on_request", aspects, rule, extra)


def slice_and_dice(table: Table) -> Answer:
    """The functional style lets one read a hidden state today: the values of a sub-model are right. What one
    that ends early saves goes with it."""
    ways = ("functional_submodel", "middle")
    saved = {
        "time": timed(table, to_reference(table, "seconds", *ways), 1 - BIG, "below"),
        "peak heap": weighed(table, to_reference(table, "peak_heap_bytes", *ways), 1 - BIG, "below"),
    }
    extra = [one for name, found in saved.items() for one in named(name, found)]
    facts = {}
    if tried := _tried(table, ways[0]):
        facts["tried"] = f"{sum(tried.values())} of {len(tried)}"
    right = [finding(_share(list(tried.values())), EVERY, "above")] if tried else []
    rule = "holds where every sub-model gives the values that its layers give when called one by one"
    return settle("slice_and_dice", {READ: right}, rule, extra, facts)


EVERY = 1 - 1e-9
READ = "hidden states read right"


def _tried(table: Table, strategy: str) -> dict[Case, bool]:
    """The cases of a way whose values were compared, and whether they were right."""
    right = dict.fromkeys(table.cases("max_abs_difference", strategy=strategy), True)
    wrong = {m.case: False for m in table.not_ok if m.state == "wrong" and m.case.strategy == strategy}
    return {**right, **wrong}


def _share(right: list[bool]) -> Figure:
    return Figure(name="", value=sum(right) / len(right), unit="%")
