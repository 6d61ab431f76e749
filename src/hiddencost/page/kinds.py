"""The kinds of machine that measured a run, side by side: ratios only, since seconds of unlike machines are
not of one thing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import combinations

from hiddencost.claims import table_of
from hiddencost.formatting import NONE
from hiddencost.kinds import kind_of
from hiddencost.page.circumstances import timing_blocks
from hiddencost.page.grids import Grid, Section, by_group, planned_order, ratio, way
from hiddencost.page.large import shown
from hiddencost.records import REFERENCE, Case, Comparison, Run
from hiddencost.stats import Table

FOLDER = "kinds"
"""Of the run folder: where the pages of the kinds lie that are not the run's main one."""


def page_of(number: int) -> str:
    """The folder of a kind's page, from the run's."""
    return f"{FOLDER}/{number}" if number else "."


def kinds(run: Run, found: Mapping[str, Run]) -> Section:
    """The kinds of a run, with the blocks of each; then how each way compares with the plain forward pass on
    each. found: the run of each (`by_kind`). No tables where it is one kind."""
    title = "Kinds of machine"
    if len(found) < 2:
        return Section(title, "", ())
    kind_of_one = kind_of(run)
    tables = {kind: table_of(part) for kind, part in found.items()}
    every, left_out = table_of(run).once(shown)
    names = {kind: f"kind {number}" for number, kind in enumerate(found, start=1)}
    machines = Grid(
        ("", "machine", "nodes", "blocks of times", "page, from the run's folder"),
        tuple(
            (
                names[kind],
                kind,
                str(len({one.node for one in part.environments if kind_of_one(one) == kind})),
                str(len(timing_blocks(part))),
                f"{page_of(number)}/index.html".removeprefix("./"),
            )
            for number, (kind, part) in enumerate(found.items())
        ),
    )
    cases = [case for case in planned_order(every, every.cases("seconds")) if case.strategy != REFERENCE]
    columns: dict[str, Callable[[Case], str]] = {"way": way}
    columns |= {names[kind]: _compared(table) for kind, table in tables.items()}
    columns["pooled"] = lambda case: _pooled([table.compare(case) for table in tables.values()], every, case)
    note = (
        "Time over that of the plain forward pass, on each kind of machine. Seconds of unlike machines are "
        "never pooled: each kind has a page of its own. Ratios are pooled where the intervals of all kinds "
        "overlap; an interval takes five blocks. Bytes and counts are read once, anywhere."
    )
    return Section(title, " ".join(filter(None, (note, left_out))), (machines, *by_group(cases, columns)))


def _compared(table: Table) -> Callable[[Case], str]:
    return lambda case: ratio(table.compare(case))


def _pooled(found: list[Comparison | None], every: Table, case: Case) -> str:
    if any(one is None or one.low is None for one in found):
        return NONE
    bounds = [(one.low or 0.0, one.high or 0.0) for one in found if one]
    if any(mine[0] > theirs[1] or theirs[0] > mine[1] for mine, theirs in combinations(bounds, 2)):
        return "they differ"
    return ratio(every.compare(case))
