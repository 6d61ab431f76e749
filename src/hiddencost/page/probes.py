"""What can be learnt from each hidden state: held-out accuracies, task by task."""

from __future__ import annotations

from hiddencost.claims.probing import CONTROL, METRIC, Probed, accuracy, lead, probed
from hiddencost.formatting import NONE, quantity
from hiddencost.page.grids import Grid, Section
from hiddencost.records import Case
from hiddencost.stats import Table


def probes(table: Table) -> Section:
    """A table for each task, a row for each hidden state and for all of them; then what was trained."""
    note = (
        "Linear probes on examples that they were not trained on; intervals over seeds, corrected for what "
        "these share. Random labels: the same probe, learning a label drawn at random for each word, tested "
        "on words that it has seen. Ahead: of the probe of the last block, seed by seed."
    )
    header = ("read from", "reduced", "backend", "accuracy", "random labels", "ahead of the last block")
    found = probed(table)
    tables = [
        Grid(
            header,
            tuple(_row(table, one, case) for case in (*one.points, *one.together)),
            f"{one.last.model}: {one.words}",
        )
        for one in found
    ]
    seen = {case for one in found for case in (*one.points, *one.together)}
    others = [case for case in table.cases(METRIC) if case not in seen and case.strategy != CONTROL]
    rows = tuple(
        (case.task, case.strategy, case.points, case.backend, _accuracy(table, case)) for case in others
    )
    trained = Grid(
        ("task", "trained", "which", "backend", "accuracy"), rows, "Trained together with the head"
    )
    return Section("What each hidden state knows", note, (*tables, *([trained] if rows else [])))


def _row(table: Table, one: Probed, case: Case) -> tuple[str, ...]:
    ahead = quantity(*lead(table, [case], one.last), unit="points") if case != one.last else NONE
    control = case.with_(strategy=CONTROL)
    return (case.points, case.reduction, case.backend, *(_accuracy(table, c) for c in (case, control)), ahead)


def _accuracy(table: Table, case: Case) -> str:
    return quantity(*accuracy(table, case), unit="%") if table.medians(case, METRIC) else NONE
