"""What of a large run its page draws and lists. Answers rest on all of it; nobody reads 4,000 tables."""

from __future__ import annotations

from collections import defaultdict

from hiddencost.claims.evidence import in_order
from hiddencost.columns import columns_of, with_rows
from hiddencost.formatting import evenly
from hiddencost.records import Case
from hiddencost.stats import Table

ALL_OF = 10_000
"""Of a run with at most so many cases everything is listed."""
LISTED = 5_000
"""About as many cases are listed of a larger one, in whole groups; one group of each place at least."""


def shown(table: Table) -> tuple[Table, str]:
    """The table of what is listed, and a line on what that is; the table itself, and nothing, where that is
    all. Of each place (model, backend, device, dtype and mode) as many groups, evenly over its shapes."""
    found = columns_of(table.run)
    cases = found.met()
    if len(cases) <= ALL_OF:
        return table, ""
    groups = in_order({case.group for case in cases if case.length})
    places: dict[Case, dict[tuple[int, int], None]] = defaultdict(dict)
    for group in groups:
        places[_place(group)][group.length, group.batch] = None
    each = max(1, LISTED * len(groups) // (len(cases) * max(1, len(places))))
    shapes = {place: set(evenly(list(alike), each)) for place, alike in places.items()}
    kept = {group for group in groups if (group.length, group.batch) in shapes[_place(group)]}
    listed = {case for case in cases if not case.length or case.group in kept}
    return Table(with_rows(table.run, found.of_cases(listed))), (
        f"{len(kept):,} of {len(groups):,} groups are listed and offered by the chooser: up to {each} of "
        "each model and mode, evenly over its shapes. The answers rest on all of them; "
        "hiddencost show RUN CASE prints any case."
    )


def _place(group: Case) -> Case:
    return group.with_(batch=0, length=0, examples=None)
