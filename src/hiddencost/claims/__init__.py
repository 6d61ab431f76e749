"""CLAIMS: the questions of keras-hub issue #358, each answered from a run's measurements.

    for claim, answer in zip(CLAIMS, answers(run)):
        print(claim.question, answer.word, sentence(answer))

A claim is a function `Table -> Answer` that never measures and never types a figure. Add one: write
the function in a file of its theme, its clauses in `sentences`, and a line in CLAIMS at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hiddencost.claims.evidence import sound, table_of
from hiddencost.claims.finding_layers import index_fast, index_in_advance, name_scan
from hiddencost.claims.finding_states import index_hard
from hiddencost.claims.probing import last_layer
from hiddencost.claims.returning import always_return, on_request, payload, references, slice_and_dice
from hiddencost.claims.sentences import sentence
from hiddencost.records import Answer, Run
from hiddencost.stats import Table

__all__ = ["CLAIMS", "Claim", "answers", "answers_from", "sentence", "sound", "table_of"]


@dataclass(frozen=True)
class Claim:
    """A claim or question of the issue, in its author's words. plot: the one that shows the answer, or ''."""

    id: str
    who: str
    question: str
    answer: Callable[[Table], Answer]
    plot: str = ""


def answers(run: Run) -> list[Answer]:
    """The answers to CLAIMS, in their order."""
    return answers_from(table_of(run))


def answers_from(table: Table) -> list[Answer]:
    """The same, from the table of a sound run, which keeps them."""
    return [table.once(claim.answer) for claim in CLAIMS]


CLAIMS = (
    Claim(
        "references",
        "mattdangerw",
        "This is also more efficient, we don't have to hold references to this intermediate state in the "
        "case it's not being used.",
        references,
        "memory_modes",
    ),
    Claim(
        "payload",
        "jbischof",
        "It's just a lot of information if you think about it: shape=(num_layers, max_sequence_length, "
        "hidden_dim)",
        payload,
        "payload",
    ),
    Claim(
        "always_return",
        "jbischof",
        "Wouldn't it be pretty heavyweight to always add this to the output?",
        always_return,
        "overhead_shapes",
    ),
    Claim(
        "on_request",
        "jbischof",
        "I could imagine implementing a special call which produced this output on request or adding an "
        "argument to call.",
        on_request,
        "overhead",
    ),
    Claim(
        "index_in_advance",
        "jbischof",
        "Would there be a big efficiency gain to indexing these tensors in advance rather than pulling them "
        "from model.layers at call?",
        index_in_advance,
        "overhead",
    ),
    Claim(
        "name_scan",
        "jbischof",
        "model.get_layer(name) is a linear scan so not super fast",
        name_scan,
        "lookup",
    ),
    Claim("index_fast", "jbischof", "model.get_layer(index) is fast", index_fast, "lookup"),
    Claim(
        "index_hard",
        "jbischof",
        "it might be difficult to compute the indices for an arbitrary model",
        index_hard,
    ),
    Claim(
        "last_layer",
        "abheesht17",
        "The last layer isn't always the best representation of text. The first few layers learn linear "
        "word order better, middle layers learn semantic features better",
        last_layer,
        "probing",
    ),
    Claim(
        "slice_and_dice",
        "mattdangerw",
        "You can access intermediate output today. So this is a purely documentation issue (let's sing the "
        "praises of the functional API).",
        slice_and_dice,
        "overhead",
    ),
)
