"""Is it difficult to find the hidden states of an arbitrary model? Shares of models with known blocks."""

from __future__ import annotations

from collections import defaultdict

from hiddencost.claims.evidence import Finding, finding, settle
from hiddencost.claims.shipped import measured_or_shipped
from hiddencost.formatting import listed
from hiddencost.records import KIND, Answer, Case, Figure
from hiddencost.stats import Table

FAILS_OFTEN = 0.95
"""Difficult is what finds the hidden states of less than 19 in 20 models."""

KINDS = {
    "KerasHub backbones": ("text", "audio", "image"),
    "models in use": ("variant",),  # tasks; quantized, adapted, cloned, reloaded
    "graphs written by hand": ("handwritten",),
}
WAYS = {
    "hidden_states": "found from the graph",
    "listed_attribute": "found by a listed attribute",
    "numbered_names": "found by numbered names",
}
METRIC = "stacks_right"


def index_hard(table: Table) -> Answer:
    """Without a table for each model the hidden states of many are not found, or wrongly. A run that did not
    look for any is answered from the one that is shipped."""
    table, beside = measured_or_shipped(table, METRIC, "reference-points")
    aspects: dict[str, list[Finding]] = {}
    facts: dict[str, str] = {}
    for way, words in WAYS.items():
        for kinds in KINDS.values() if way == "hidden_states" else [("text",)]:
            name = _name(kinds, words)
            found = shares(table, way, kinds)
            if found or way == "hidden_states":
                aspects[name] = [finding(one, FAILS_OFTEN, "below") for one in found]
    if cases := table.cases(METRIC):
        depths = sorted({case.layers or 0 for case in cases})
        facts["counted"] = (
            f"of {listed(_counts(table))}; one counts where every stack that it has is found whole, in order "
            "and with bit-equal values, and nothing else is taken for one, with "
            f"{listed(map(str, depths))} blocks in each"
        )
        if beside:
            facts["measured in"] = beside
    rule = f"difficult is what finds the hidden states of less than {FAILS_OFTEN:.0%} of models"
    return settle("index_hard", aspects, rule, facts=facts, said="difficult")


def _name(kinds: tuple[str, ...], words: str) -> str:
    """`KerasHub backbones found from the graph`; a rule is for those of text."""
    whose = next((name for name, members in KINDS.items() if members == kinds), "KerasHub text backbones")
    return f"{whose} {words}"


def _counts(table: Table) -> list[str]:
    """`74 KerasHub backbones`, of each kind."""
    models = {case.model: table.note(case, METRIC, KIND) for case in table.cases(METRIC)}
    counted = {name: sum(kind in kinds for kind in models.values()) for name, kinds in KINDS.items()}
    return [f"{count} {name}" for name, count in counted.items() if count]


def shares(table: Table, way: str, kinds: tuple[str, ...]) -> list[Figure]:
    """Of the models of these kinds that a backend can run, the share that a way finds in every depth."""
    models: dict[str, dict[str, list[Case]]] = defaultdict(lambda: defaultdict(list))
    for case in table.cases(METRIC, strategy=way):
        if table.note(case, METRIC, KIND) in kinds and table.medians(case, METRIC):
            models[case.backend][case.model].append(case)
    return [
        Figure(
            name="",
            value=sum(all(whole(table, case) for case in cases) for cases in found.values()) / len(found),
            unit="%",
            where=f"on {backend}",
        )
        for backend, found in models.items()
    ]


def whole(table: Table, case: Case) -> bool:
    """Whether every stack of a model was found, and nothing else."""
    right, wrong, stacks = (table.medians(case, metric)[0] for metric in (METRIC, "stacks_wrong", "stacks"))
    return right == stacks and not wrong
