"""Tables of what was measured again and again: times, noise, data sets, memory, look-ups."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from hiddencost.claims.evidence import at, over, ratio_of
from hiddencost.formatting import NONE, percent, quantity
from hiddencost.page.grids import (
    Columns,
    Grid,
    Section,
    by_group,
    grid,
    planned_order,
    ratio,
    reader,
    scene,
    way,
)
from hiddencost.records import REFERENCE, SINGLE_BLOCK, TWIN, Case, Comparison
from hiddencost.stats import FEWEST_BLOCKS, Table, peak_metric


def data_set_cases(table: Table) -> set[Case]:
    """The cases of the data-set suite: several numbers of examples at one model, mode and shape."""
    cases = {case for metric in ("seconds", "peak_heap_bytes") for case in table.cases(metric)}
    sizes: dict[Case, set[int]] = {}
    for case in cases:
        if case.examples is not None:
            sizes.setdefault(case.group.with_(examples=None), set()).add(case.examples)
    return {case for case in cases if len(sizes.get(case.group.with_(examples=None), ())) > 1}


def times(table: Table) -> Section:
    """Every timed way against the reference of its group, group by group."""
    cases = planned_order(table, set(table.cases("seconds")) - data_set_cases(table))
    note = "One table for each model, shape and mode. A time is that of one call; in predict, of a data set."
    columns = time_columns(table)
    if table.cases("host_copy_seconds"):
        columns = {**columns, "then to NumPy": reader(table, "host_copy_seconds", "s")}
        note += " What returned stays on the device: bringing it to NumPy comes on top."
    return Section("Time against the plain forward pass", note, by_group(cases, columns))


def time_columns(table: Table) -> Columns:
    def smallest(case: Case) -> str:
        comparison = table.compare(case)
        return NONE if comparison is None else or_none(comparison.smallest_detectable)

    return {
        "way": way,
        "ratio to reference": lambda case: NONE if case == case.group else ratio(table.compare(case)),
        "verdict": lambda case: verdict(table, case),
        "smallest effect": lambda case: NONE if case == case.group else smallest(case),
        "time": reader(table, "seconds", "s"),
    }


def verdict(table: Table, case: Case) -> str:
    """The word, with its reason; the reference and its twin have a name instead."""
    if case.strategy in (REFERENCE, TWIN):
        return "reference" if case.strategy == REFERENCE else "A/A twin"
    found = table.verdict(case)
    return f"{found.word} ({found.reason})" if found.reason else found.word


def twins(table: Table, every: Table) -> Section:
    """The noise band of each group: the reference against itself. The line on them is of every group."""
    found = _compared_twins(table)
    rows = tuple(
        (
            scene(case),
            ratio(c),
            or_none(half_width(c)),
            percent(c.ratio - 1, signed=True),
            str(c.pairs),
            str(c.blocks),
        )
        for case, c in found
    )
    header = ("group", "ratio to itself", "half-width", "offset", "pairs", "blocks")
    note = twins_note([c for _, c in every.once(_compared_twins)])
    return Section("A/A twins", note, (Grid(header, rows),), always=True)


def _compared_twins(table: Table) -> list[tuple[Case, Comparison]]:
    twins = planned_order(table, table.cases("seconds", strategy=TWIN))
    return [(case, found) for case in twins if (found := table.compare(case)) is not None]


def or_none(share: float | None) -> str:
    return NONE if share is None else percent(share)


def half_width(comparison: Comparison) -> float | None:
    if comparison.low is None or comparison.high is None:
        return None
    return (comparison.high - comparison.low) / 2


def twins_note(found: Sequence[Comparison]) -> str:
    """How far the method can be trusted in this run, in one line."""
    halves = [half for half in map(half_width, found) if half is not None]
    if not found:
        return "No A/A twin was measured, so no ratio can be judged."
    worst = max(found, key=lambda c: abs(math.log(c.ratio)))
    offset = f"the worst offset is {percent(worst.ratio - 1, signed=True)} ({scene(worst.case)})"
    if not halves:
        return f"With fewer than {FEWEST_BLOCKS} blocks there are no intervals; {offset}."
    hits = sum(c.low is not None and c.high is not None and c.low <= 1 <= c.high for c in found)
    return (
        f"{hits} of {len(halves)} intervals contain 1; {offset}; "
        f"the median half-width is {percent(float(np.median(halves)))}."
    )


def data_sets(table: Table) -> Section:
    """Whole data sets through `predict`: time and peak heap, against the final output only."""

    def peak_ratio(case: Case) -> str:
        found = ratio_of(table, case, case.group, "peak_heap_bytes")
        return quantity(*found) if found else NONE

    columns: Columns = {
        "data set": at,
        **time_columns(table),
        "peak heap": reader(table, "peak_heap_bytes", "B"),
        "peak heap to reference": peak_ratio,
    }
    cases = [case for case in data_set_cases(table) if case.strategy != TWIN]
    note = (
        "Whole data sets through predict: the final output, every hidden state, or each reduced in the model."
    )
    return Section("Data sets", note, (grid(planned_order(table, cases), columns),))


def memory(table: Table) -> Section:
    """Peaks over their two floors, and the two readings of the resident set."""

    def floor(case: Case) -> str:
        found = table.live_set_floor(case)
        return NONE if found is None else quantity(found, unit="B")

    def over_floor(case: Case) -> str:
        peak, found = table.center(case, peak_metric(case)), table.live_set_floor(case)
        return quantity(*over(peak, (found, None, None))) if peak and found else NONE

    def disagreement(case: Case) -> str:
        kernel, sampled = (
            table.center(case, metric) for metric in ("peak_rss_bytes", "peak_rss_sampled_bytes")
        )
        return percent(sampled[0] / kernel[0] - 1, signed=True) if kernel and sampled and kernel[0] else NONE

    columns: Columns = {
        "way": way,
        "peak": lambda case: reader(table, peak_metric(case), "B")(case),
        "payload": reader(table, "payload_bytes", "B"),
        "live-set floor": lambda case: NONE if case.strategy == SINGLE_BLOCK else floor(case),
        "peak / floor": lambda case: NONE if case.strategy == SINGLE_BLOCK else over_floor(case),
        "resident set (kernel)": reader(table, "peak_rss_bytes", "B"),
        "resident set (sampled)": reader(table, "peak_rss_sampled_bytes", "B"),
        "sampled to kernel": disagreement,
    }
    metrics = ("peak_heap_bytes", "peak_device_bytes", "peak_rss_bytes", "peak_rss_sampled_bytes")
    cases = {case for metric in metrics for case in table.cases(metric)} - data_set_cases(table)
    note = (
        "The peak is the most that was live at one time during one warm call: of the heap, or of a GPU's "
        "memory (on JAX what the compiled program plans: its work and what it returns). Floors: the payload, "
        "and the live set (the payload, or the output where nothing else is asked for, and the working set "
        "of a single block)."
    )
    return Section("Memory", note, by_group(planned_order(table, cases), columns))


def lookups(table: Table) -> Section:
    """One look-up of a layer, by way, number of layers and position."""
    columns: Columns = {
        "way": lambda case: case.strategy,
        "layers": lambda case: f"{case.layers:,}" if case.layers is not None else NONE,
        "position": lambda case: f"{case.position:,}" if case.position is not None else NONE,
        "time": reader(table, "lookup_seconds", "s"),
    }
    cases = planned_order(table, table.cases("lookup_seconds"))
    return Section("Look-ups of a layer", "", (grid(cases, columns),))
