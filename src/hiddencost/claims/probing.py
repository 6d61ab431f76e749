"""Is the last hidden state the best? Held-out accuracies of linear probes, hidden state by hidden state."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hiddencost.claims.evidence import Finding, Triple, finding, settle
from hiddencost.claims.shipped import measured_or_shipped
from hiddencost.records import Answer, Case, Figure
from hiddencost.stats import FEW_BLOCKS, Table, t_interval

METRIC = "held_out_accuracy"
PROBE, CONTROL = "linear_probe", "random_labels"
STORED = "reference-probing"
WORD_ORDER, SEMANTIC = "word_order", "semantic_class"
CHANCE = "chance"
"""A note of the accuracy that guessing has."""
EMBEDDINGS = -1
BETTER = 0.01
"""A lead of up to one percentage point is no reason to choose one hidden state over another."""


@dataclass(frozen=True)
class Probed:
    """A task, and what probes of one model were fitted on: each hidden state, the embeddings first and the
    last block last; and all of them `together`, reduced in some way."""

    task: str
    points: tuple[Case, ...]
    together: tuple[Case, ...]

    @property
    def last(self) -> Case:
        return self.points[-1]

    @property
    def blocks(self) -> tuple[Case, ...]:
        return tuple(case for case in self.points if _number(case) not in (None, EMBEDDINGS))

    def third(self, which: int) -> tuple[Case, ...]:
        """The first (0), middle (1) or last (2) third of the blocks."""
        blocks = self.blocks
        return blocks[which * len(blocks) // 3 : (which + 1) * len(blocks) // 3]


def probed(table: Table) -> list[Probed]:
    """The tasks of each model and backend, in the order first measured."""
    groups: dict[tuple[str, ...], list[Case]] = defaultdict(list)
    for case in table.cases(METRIC, strategy=PROBE):
        groups[case.task, case.model, case.backend, case.dtype].append(case)
    found = []
    for (task, *_), cases in groups.items():
        numbers = {case: number for case in cases if (number := _number(case)) is not None}
        points = sorted(numbers, key=lambda case: numbers[case])
        if points:
            together = tuple(case for case in cases if case not in points)
            found.append(Probed(task, tuple(points), together))
    return found


def _number(case: Case) -> int | None:
    """The number of a block, -1 for the embeddings; None for what is no single hidden state of a stack."""
    if case.points == "embeddings":
        return EMBEDDINGS
    block = re.fullmatch(r"block_(\d+)", case.points)
    return int(block[1]) if block else None


def lead(table: Table, cases: Sequence[Case], over: Case) -> Triple:
    """How much higher the mean accuracy of these cases is than that of another, seed by seed, with its 95 % t
    interval over the seeds (blocks)."""
    theirs = table.block_medians(over, METRIC)
    mine = [table.block_medians(case, METRIC) for case in cases]
    shared = [seed for seed in theirs if all(seed in one for one in mine)]
    return t_interval([float(np.mean([one[seed] for one in mine])) - theirs[seed] for seed in shared])


def best(table: Table, cases: Sequence[Case]) -> Case:
    """The case with the highest mean accuracy."""
    return max(cases, key=lambda case: np.mean(table.medians(case, METRIC)))


def lead_of_best(table: Table, one: Probed) -> Triple:
    """The lead over the last hidden state of that one which is the best by all other seeds: what is chosen by
    one seed is judged by others, so that chance alone gives no lead."""
    others = {case: table.block_medians(case, METRIC) for case in one.points[:-1]}
    last = table.block_medians(one.last, METRIC)
    leads = []
    for seed, value in last.items():
        rest = [kept for kept in last if kept != seed]
        chosen = max(others, key=lambda case: np.mean([others[case][kept] for kept in rest]))
        leads.append(others[chosen][seed] - value)
    return t_interval(leads)


def last_layer(table: Table) -> Answer:
    """The last hidden state is not always the best: the first ones know word order, the middle ones meaning.
    A run that does not probe is answered from the one that is shipped."""
    table, beside = measured_or_shipped(table, METRIC, STORED)
    found = [one for one in probed(table) if len(table.blocks(one.last, METRIC)) > 1 and len(one.blocks) > 2]
    aspects = {
        "first third at word order": [
            _finding(one, lead(table, one.third(0), one.last)) for one in found if one.task == WORD_ORDER
        ],
        "middle third at the semantic class": [
            _finding(one, lead(table, one.third(1), one.last)) for one in found if one.task == SEMANTIC
        ],
        "best one": [_finding(one, lead_of_best(table, one)) for one in found],
    }
    facts = {}
    if found:
        seeds = len(table.blocks(found[0].last, METRIC))
        facts["counted"] = (
            f"percentage points of held-out accuracy above a probe of the last block; intervals over {seeds} "
            "seeds (other examples held out, other sentences); the best one is chosen by the other seeds"
        )
    if beside:
        facts["measured in"] = beside
    rule = f"better is a lead of more than {100 * BETTER:g} percentage point over the last block"
    return settle("last_layer", aspects if found else {WANTED: []}, rule, facts=facts)


WANTED = "the held-out accuracy of a linear probe for each hidden state"


def _finding(one: Probed, triple: Triple) -> Finding:
    value, low, high = triple
    words = one.task.replace("_", " ")
    figure = Figure(
        name="", value=value, low=low, high=high, unit="points", where=f"at {words}", scope=one.last
    )
    return finding(figure, BETTER, "above", "" if low is not None else FEW_BLOCKS)
