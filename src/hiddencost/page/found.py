"""The survey of models whose blocks are known: in which the hidden states are found, and in which not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from hiddencost.claims.finding_states import METRIC, whole
from hiddencost.formatting import NONE, quantity
from hiddencost.page.grids import Grid, Section
from hiddencost.records import KIND, Case
from hiddencost.stats import Table


def found(table: Table) -> Section:
    """For each kind of models, way and backend how many are found; then each model that is not."""
    groups: dict[tuple[str, str, str], list[Case]] = defaultdict(list)
    for case in table.cases(METRIC):
        groups[case.strategy, table.note(case, METRIC, KIND), case.backend].append(case)
    note = (
        "Tiny models with random weights, in several depths. A model is found where every stack that it has "
        "is found whole, in order, with the values that its blocks return in an untouched pass, and nothing "
        "else is taken for one. Differences are absolute; those one block off show that the check can fail."
    )
    header = (
        *("way", "kind", "backend", "models", "found", "stacks"),
        *("difference of states", "one block off", "difference of outputs", "slowest search"),
    )
    rows = tuple((*group, *_row(table, cases)) for group, cases in groups.items())
    missed = tuple(
        (case.strategy, case.model, case.backend, str(case.layers), *_counts(table, case))
        for case in table.cases(METRIC)
        if not whole(table, case)
    )
    failed = tuple(
        (m.case.strategy, m.case.model, m.case.backend, str(m.case.layers), m.reason)
        for m in table.not_ok
        if m.metric == METRIC
    )
    deepest = max((case.layers or 0 for case in table.cases(METRIC)), default=0)
    searched = tuple(
        (case.model, case.backend, str(case.layers), quantity(seconds[0], unit="s"))
        for case in table.cases(METRIC, strategy="hidden_states")
        if case.layers == deepest and (seconds := table.medians(case, "resolve_seconds"))
    )
    which = ("way", "model", "backend", "blocks")
    return Section(
        "Hidden states found",
        note,
        tuple(
            grid
            for grid in (
                Grid(header, rows),
                Grid(("model", "backend", "blocks", "found in"), searched, "The deepest", True),
                Grid((*which, "stacks", "right", "wrong"), missed, f"{len(missed)} not found", True),
                Grid((*which, "reason"), failed, f"{len(failed)} that could not be run", True),
            )
            if grid.rows
        ),
    )


def _row(table: Table, cases: list[Case]) -> tuple[str, ...]:
    def extreme(metric: str, choose: Callable[[list[float]], float], unit: str = "") -> str:
        values = [value for case in cases for value in table.medians(case, metric)]
        return quantity(choose(values), unit=unit) if values else NONE

    models = {case.model for case in cases}
    right = models - {case.model for case in cases if not whole(table, case)}
    stacks = sum(value for case in cases for value in table.medians(case, "stacks"))
    return (
        *(str(len(models)), str(len(right)), f"{stacks:.0f}"),
        extreme("states_difference", max),
        extreme("control_difference", min),
        extreme("outputs_difference", max),
        extreme("resolve_seconds", max, "s"),
    )


def _counts(table: Table, case: Case) -> tuple[str, ...]:
    return tuple(f"{table.medians(case, metric)[0]:.0f}" for metric in ("stacks", METRIC, "stacks_wrong"))
