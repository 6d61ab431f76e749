"""One plain sentence for an answer, rendered from its figures and facts. Nothing here computes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from hiddencost.formatting import listed, quantity
from hiddencost.records import Answer, Figure

SENTENCES: dict[str, tuple[str, ...]] = {
    "references": (
        "the peak heap of the plain forward pass divided by its live-set floor is "
        "{peak heap / live-set floor}",
    ),
    "payload": (
        "all hidden states of one example take {payload of one example}",
        "as a share of the model's weights that is {payload / weights}",
        "the bytes returned equal the formula {formula}",
    ),
    "always_return": (
        "always returning every hidden state multiplies the time by {time}",
        "it multiplies the peak heap by {peak heap}",
        "it multiplies the peak heap of a whole data set by {peak heap of a data set}",
    ),
    "on_request": (
        "an argument to call that is off multiplies the time of the plain forward pass by "
        "{time, argument off}",
        "one that is on multiplies the time of the sub-model that is built once by {time, argument on}",
        "switched to and fro, the call has been traced {traces} times",
    ),
    "index_in_advance": (
        "pulling the layers by name at each call multiplies the time of having them in advance by "
        "{time by name}",
        "pulling them by index multiplies it by {time by index}",
        "of a plain forward pass, looking up every layer takes {share of a forward pass}",
    ),
    "name_scan": (
        "each further layer of the model adds {growth with each layer} to a look-up by name",
        "a straight line explains {straight line} of the variance",
        "of a plain forward pass, looking up every layer takes {share of a forward pass}",
    ),
    "index_fast": (
        "a look-up by index takes {time of index / name} times as long as one by name",
        "it takes {time of index / dict} times as long as one in a dict",
        "each further layer of the model adds {growth with each layer}",
    ),
    "index_hard": (
        "from the graph, without a table for each model, the hidden states of {KerasHub backbones found from "
        "the graph} of KerasHub's backbones are found whole",
        "as a task, quantized, adapted, cloned or reloaded {models in use found from the graph}",
        "of graphs written by hand {graphs written by hand found from the graph}",
        "the attribute that lists the blocks gives those of {KerasHub text backbones found by a listed "
        "attribute} of the text backbones",
        "their numbered names {KerasHub text backbones found by numbered names}",
    ),
    "last_layer": (
        "linear probes of the first third of the blocks are ahead of one of the last block by {first third "
        "at word order}",
        "those of the middle third by {middle third at the semantic class}",
        "the hidden state that is the best on other sentences is ahead of the last by {best one}",
    ),
    "slice_and_dice": (
        "a sub-model that ends at the middle multiplies the time of the plain forward pass by {time}",
        "it multiplies the peak heap by {peak heap}",
    ),
}
"""Clauses of each answer's sentence. A name in braces is that of figures or of a fact; a clause is left
out where its figures were not measured."""


def sentence(answer: Answer, short: bool = False) -> str:
    """The answer in one sentence: its figures with their intervals, and what is missing. Place by place,
    or where `short` from the least to the largest of all."""
    told = {**answer.facts, **_spoken(answer.figures, short)}
    clauses = []
    for clause in SENTENCES.get(answer.id, ()):
        try:
            clauses.append(clause.format_map(told))
        except KeyError:  # the clause's figure was not measured, which `missing` tells
            continue
    if "missing" in answer.facts:
        clauses.append(f"this run does not measure: {answer.facts['missing']}")
    text = "; ".join(clauses) or "this run does not tell"
    return text[0].upper() + text[1:] + "."


def _spoken(figures: Iterable[Figure], short: bool) -> dict[str, str]:
    """Figures by name, in words."""
    by_name: dict[str, list[Figure]] = defaultdict(list)
    for figure in figures:
        by_name[figure.name].append(figure)
    return {name: _range(found) if short else _places(found) for name, found in by_name.items()}


def _range(figures: list[Figure]) -> str:
    """`between 1.00 [0.98, 1.02] in eager and 1.05 [1.03, 1.07] in graph`."""
    least, top = (which(figures, key=lambda figure: figure.value) for which in (min, max))
    if len(figures) == 1:
        return _one(top)
    if _value(least) == _value(top) and least.low is None:  # equal everywhere: the place tells nothing
        return _value(top)
    if least.where == top.where:
        return f"between {_value(least)} and {_one(top)}"
    return f"between {_one(least)} and {_one(top)}"


def _places(figures: list[Figure]) -> str:
    """`up to 1.00 [0.98, 1.02] in eager and up to 1.05 [1.03, 1.07] in graph`: the largest of each."""
    by_place: dict[str, list[Figure]] = defaultdict(list)
    for figure in figures:
        by_place[figure.where].append(figure)
    tops = [(found, max(found, key=lambda figure: figure.value)) for found in by_place.values()]
    return listed(("up to " if len(found) > 1 else "") + _one(top) for found, top in tops)


def _one(figure: Figure) -> str:
    """`1.05 [1.03, 1.07] in graph`."""
    return f"{_value(figure)} {figure.where}".strip()


def _value(figure: Figure) -> str:
    return quantity(figure.value, figure.low, figure.high, figure.unit)
