"""Tables of what is paid once, or more with each call."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hiddencost.formatting import NONE, quantity
from hiddencost.page.grids import Columns, Section, by_group, grid, planned_order, reader, scene, way
from hiddencost.records import REFERENCE, TWIN, Case
from hiddencost.stats import Table, ahead_from, growth_per_call

PER_CALL = "functional_submodel_per_call"
NEVER, AT_FIRST = "never", "at first"


def one_off(table: Table) -> Section:
    """What is paid once: imports, loading, building, the first call; and when that has paid off."""
    where: Columns = {"backend": lambda case: case.backend, "device": lambda case: case.device}
    imports = grid(
        planned_order(table, table.cases("import_seconds")),
        {"import": lambda case: case.strategy, **where, "time": reader(table, "import_seconds", "s")},
    )
    loads = grid(
        planned_order(table, [*table.cases("load_seconds"), *table.cases("weights_bytes")]),
        {
            "model": lambda case: case.model,
            **where,
            "dtype": lambda case: case.dtype,
            "load": reader(table, "load_seconds", "s"),
            "weights": reader(table, "weights_bytes", "B"),
        },
    )
    columns: Columns = {
        "way": way,
        "build": reader(table, "build_seconds", "s"),
        "first call": reader(table, "first_call_seconds", "s"),
        "break-even calls": lambda case: break_even(table, case),
        "traces": reader(table, "traces", "count"),
        "largest difference": lambda case: worst_difference(table, case),
    }
    builds = by_group(planned_order(table, table.cases("first_call_seconds")), columns)
    note = (
        "Break-even: the number of calls from which a way that is built once is ahead of building the "
        "sub-model at each call, from the means of the blocks: where their intervals overlap, no order of "
        "the ways follows. Largest difference: to the values computed layer by layer."
    )
    return Section("One-off costs", note, (imports, loads, *builds))


def break_even(table: Table, case: Case) -> str:
    """Calls from which build + first call + further calls of a way take less than those of building
    anew at each call (means of the blocks)."""
    mine, theirs = table.cost(case), table.cost(case.with_(strategy=PER_CALL))
    if case.strategy in (PER_CALL, REFERENCE, TWIN) or mine is None or theirs is None:
        return NONE
    crossing = mine.crossing(theirs)
    if crossing is None:
        if mine.once >= theirs.once and mine.each >= theirs.each:
            return NEVER
        return "1" if mine.each <= theirs.each else AT_FIRST
    return f"{ahead_from(crossing):,}"


def worst_difference(table: Table, case: Case) -> str:
    values = table.medians(case, "max_abs_difference")
    return f"{max(values):.1e}" if values else NONE


def growth(table: Table) -> Section:
    """Ways that may cost more with each call: time and resident set over many calls."""

    def first(case: Case) -> str:
        return per_block(table, case, "growth_seconds", lambda values: values[0], "s")

    def later(case: Case) -> str:
        return per_block(table, case, "growth_seconds", lambda values: float(np.median(values[1:])), "s")

    def grown(case: Case) -> str:
        return per_block(table, case, "growth_bytes", growth_per_call, "B")

    calls = table.cases("growth_seconds")
    columns: Columns = {
        "group": scene,
        "way": way,
        "first call": first,
        "later calls": later,
        "resident set, each call": grown,
        "traces": reader(table, "growth_traces", "count"),
    }
    cases = planned_order(table, [*calls, *table.cases("growth_bytes"), *table.cases("growth_traces")])
    return Section("Growth over many calls", "", (grid(cases, columns),))


def per_block(
    table: Table, case: Case, metric: str, of: Callable[[tuple[float, ...]], float], unit: str
) -> str:
    """The median over blocks of a number taken from each block's values; needs two values a block."""
    numbers = [of(values) for values in table.blocks(case, metric).values() if len(values) > 1]
    return quantity(float(np.median(numbers)), unit=unit) if numbers else NONE
