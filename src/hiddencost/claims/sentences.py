"""One plain sentence for an answer, rendered from its figures and facts. Nothing here computes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from hiddencost.formatting import listed, quantity
from hiddencost.records import Answer, AnswerWord, Figure

SENTENCES: dict[str, tuple[str, ...]] = {
    "references": (
        "the peak heap of the plain forward pass divided by its live-set floor is "
        "{peak heap / live-set floor}",
    ),
    "payload": (
        "all hidden states of one example take {payload of one example}",
        "those of {batch} weigh {payload of a batch / weights} times as much as the model's weights",
        "the bytes returned equal the formula {formula}",
    ),
    "always_return": (
        "always returning every hidden state multiplies the time by {time}",
        "it multiplies the peak heap by {peak heap}",
        "it multiplies the peak heap of a whole data set by {peak heap of a data set}",
        "it multiplies the peak of a device's memory by {peak device memory}",
        "it multiplies the time to have everything in NumPy by {time to have everything in NumPy}",
    ),
    "on_request": (
        "an argument to call that is off multiplies the time of the plain forward pass by "
        "{time, argument off}",
        "one that is on multiplies the time of the sub-model that is built once by {time, argument on}",
        "switched on and off by turns, the call is traced {traces} times in all",
    ),
    "index_in_advance": (
        "pulling the layers by name at each call multiplies the time of having them in advance by "
        "{time by name}",
        "pulling them by index multiplies it by {time by index}",
        "of a plain forward pass, looking up every layer by name takes at most {share of a forward pass}",
    ),
    "name_scan": (
        "each further layer of the model adds {growth with each layer} to a look-up by name",
        "reading model.layers, a list that Keras makes anew each time, takes {time of layers / name} times "
        "as long as one",
        "a straight line explains {straight line} of the variance",
        "of a plain forward pass, looking up every layer by name takes at most {share of a forward pass}",
    ),
    "index_fast": (
        "a look-up by index takes {time of index}",
        "it takes {time of index / name} times as long as one by name",
        "and {time of index / dict} times as long as one in a dict",
        "and reading model.layers, a list that Keras makes anew each time, {time of layers / index} times as "
        "long as one by index",
        "each further layer of the model adds {growth with each layer}",
    ),
    "index_hard": (
        "from the graph, without a table for each model, the hidden states of {KerasHub backbones found from "
        "the graph} of the KerasHub backbones that run are found whole",
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
        "the hidden state that other seeds found best is ahead of the last by {best one}",
    ),
    "slice_and_dice": (
        "a functional sub-model gave the right values in {hidden states read right} of its cases ({tried})",
        "one that ends at the middle multiplies the time of the plain forward pass by {time}",
        "it multiplies the peak heap by {peak heap}",
    ),
}
"""Clauses of each answer's sentence. A name in braces is that of figures or of a fact; a clause is left
out where its figures were not measured."""


PLAIN: dict[str, tuple[str, str, str]] = {
    "references": (
        "Yes. A plain forward pass holds little more than it must.",
        "No. A plain forward pass holds hidden states that nobody asked for.",
        "It depends on how the model is run: in some modes it holds hidden states that nobody asked for.",
    ),
    "payload": (
        "Yes. All hidden states of a batch of long examples outweigh the model.",
        "No. All hidden states of a batch of long examples weigh less than the model.",
        "It depends on the model: of some, those of a batch of long examples outweigh it.",
    ),
    "always_return": (
        "Yes, in time and in memory.",
        "No, neither in time nor in memory.",
        "It depends: on whether time, memory or the way to the host is counted, or on the mode.",
    ),
    "on_request": (
        "Yes. Off, it costs hardly anything; on, hardly more than a sub-model.",
        "No. Off, it costs clearly more than nothing, or on, clearly more than a sub-model.",
        "It depends: in some modes it costs clearly more, than nothing when off or than a sub-model when on.",
    ),
    "index_in_advance": (
        "Yes. Pulling the layers at each call takes clearly longer.",
        "No. Pulling the layers at each call takes hardly longer than having them.",
        "It depends: in some modes pulling the layers at each call takes clearly longer.",
    ),
    "name_scan": (
        "Yes. It takes longer with each layer that the model has.",
        "No. It takes as long however many layers the model has.",
        "It depends on the model.",
    ),
    "index_fast": (
        "Yes. It is no slower than by name, however many layers the model has.",
        "No. It is slower than by name, and takes longer with each layer that the model has.",
        "Partly: it is either slower than by name, or takes longer with each layer that the model has.",
    ),
    "index_hard": (
        "Yes. Of many models they are not found.",
        "No. They are found in nearly all models.",
        "It depends on how: one way finds them in nearly all models, others miss many.",
    ),
    "last_layer": (
        "Yes. Lower blocks are ahead at each task.",
        "No. No lower block is ahead at any task.",
        "In part: lower blocks are ahead at some tasks.",
    ),
    "slice_and_dice": (
        "Yes. A functional sub-model reads them, with the right values.",
        "No. Not every functional sub-model gave the right values.",
        "In part: not every functional sub-model gave the right values.",
    ),
}
"""Of each answer what it says in plain words where the claim holds, does not hold, or depends."""
IN_PART: dict[AnswerWord, str] = {
    "holds": "Yes, as far as it was measured.",
    "does not hold": "No, as far as it was measured.",
}
"""The same of any answer of which something was not measured, or did not tell."""


def plain(answer: Answer) -> str:
    """The answer in plain words, without a figure; nothing where it was not measured. Where a part of it was
    not, or did not tell, a yes or a no says nothing of that part."""
    words: tuple[AnswerWord, ...] = ("holds", "does not hold", "depends")
    found = dict(zip(words, PLAIN.get(answer.id, ()), strict=False))
    if {"missing", "unresolved"} & set(answer.facts):
        found |= IN_PART
    return found.get(answer.word, "")


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
    if _alike(figures):
        return _value(top)
    if least.where == top.where:
        return f"between {_value(least)} and {_one(top)}"
    return f"between {_one(least)} and {_one(top)}"


def _places(figures: list[Figure]) -> str:
    """`up to 1.00 [0.98, 1.02] in eager and up to 1.05 [1.03, 1.07] in graph`: the largest of each."""
    if len(figures) > 1 and _alike(figures):
        return _value(figures[0])
    by_place: dict[str, list[Figure]] = defaultdict(list)
    for figure in figures:
        by_place[figure.where].append(figure)
    tops = [(found, max(found, key=lambda figure: figure.value)) for found in by_place.values()]
    return listed(("up to " if len(found) > 1 else "") + _one(top) for found, top in tops)


def _alike(figures: list[Figure]) -> bool:
    """Whether they are the same everywhere, and known exactly: then the place tells nothing."""
    return len({_value(figure) for figure in figures}) == 1 and all(figure.low is None for figure in figures)


def _one(figure: Figure) -> str:
    """`1.05 [1.03, 1.07] in graph`."""
    return f"{_value(figure)} {figure.where}".strip()


def _value(figure: Figure) -> str:
    return quantity(figure.value, figure.low, figure.high, figure.unit)
