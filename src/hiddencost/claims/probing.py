"""Is the last hidden state the best? Held-out accuracies of linear probes, hidden state by hidden state."""

from __future__ import annotations

import math
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
CHANCE, BOTH_NOUNS, HELD_OUT = "chance", "both_nouns", "held_out"
"""Notes: the accuracy of always giving the most frequent label; of knowing both nouns of a sentence and
guessing which is its subject; the size of what is tested on over that of what is learnt from."""
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
    def words(self) -> str:
        """The task in words: `word order`."""
        return self.task.replace("_", " ")

    @property
    def last(self) -> Case:
        return self.points[-1]

    @property
    def blocks(self) -> tuple[Case, ...]:
        return tuple(case for case in self.points if _number(case) != EMBEDDINGS)

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


def over_seeds(values: Sequence[float], held_out: float) -> Triple:
    """The mean over the seeds and its 95 % t interval. Seeds share what they learn from, so their variance
    says too little: it is taken (1/seeds + held_out) times instead of 1/seeds times, held_out being the size
    of what is tested on over what is learnt from (Nadeau and Bengio 2003, Machine Learning 52, 239-281)."""
    center, low, high = t_interval(values)
    if low is None or high is None:
        return center, low, high
    half = (high - low) / 2 * math.sqrt(1 + len(values) * held_out)
    return center, center - half, center + half


def accuracy(table: Table, case: Case) -> Triple:
    """The mean accuracy of a case over the seeds."""
    return over_seeds(table.medians(case, METRIC), _held_out(table, case))


def _held_out(table: Table, case: Case) -> float:
    return float(table.note(case, METRIC, HELD_OUT) or 0)


def lead(table: Table, cases: Sequence[Case], over: Case) -> Triple:
    """How much higher the mean accuracy of these cases is than that of another, seed by seed."""
    theirs = table.block_medians(over, METRIC)
    mine = [table.block_medians(case, METRIC) for case in cases]
    shared = [seed for seed in theirs if all(seed in one for one in mine)]
    leads = [float(np.mean([one[seed] for one in mine])) - theirs[seed] for seed in shared]
    return over_seeds(leads, _held_out(table, over))


def lead_of_best(table: Table, one: Probed) -> Triple | None:
    """The lead over the last hidden state of that one which is the best by all other seeds: what is chosen by
    one seed is judged by others, so that chance alone gives no lead. None with a single seed or state."""
    others = {case: table.block_medians(case, METRIC) for case in one.points[:-1]}
    last = table.block_medians(one.last, METRIC)
    if len(last) < 2 or not others:
        return None
    leads = []
    for seed, value in last.items():
        rest = [kept for kept in last if kept != seed]
        chosen = max(others, key=lambda case: np.mean([others[case][kept] for kept in rest]))
        leads.append(others[chosen][seed] - value)
    return over_seeds(leads, _held_out(table, one.last))


def last_layer(table: Table) -> Answer:
    """The last hidden state is not always the best: the first ones know word order, the middle ones meaning.
    A run that does not probe is answered from the one that is shipped."""
    table, beside = measured_or_shipped(table, METRIC, STORED)
    found = [one for one in probed(table) if len(one.blocks) > 2]
    aspects = {
        "first third at word order": [
            _finding(one, lead(table, one.third(0), one.last)) for one in found if one.task == WORD_ORDER
        ],
        "middle third at the semantic class": [
            _finding(one, lead(table, one.third(1), one.last)) for one in found if one.task == SEMANTIC
        ],
        "best one": [_finding(one, best) for one in found if (best := lead_of_best(table, one))],
    }
    facts = {}
    if found:
        seeds = len(table.blocks(found[0].last, METRIC))
        facts["counted"] = (
            f"percentage points of held-out accuracy above a probe of the last block; intervals over {seeds} "
            "seeds, corrected for what these share; the best one is chosen by the other seeds"
        )
    if beside:
        facts["measured in"] = beside
    rule = f"better is a lead of more than {100 * BETTER:g} percentage point over the last block"
    return settle("last_layer", aspects if found else {WANTED: []}, rule, facts=facts)


WANTED = "the held-out accuracy of a linear probe for each hidden state"


def _finding(one: Probed, triple: Triple) -> Finding:
    value, low, high = triple
    where = f"at {one.words}"
    figure = Figure(name="", value=value, low=low, high=high, unit="points", where=where, scope=one.last)
    return finding(figure, BETTER, "above", "" if low is not None else FEW_BLOCKS)
