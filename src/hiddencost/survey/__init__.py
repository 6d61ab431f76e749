"""KINDS: models whose blocks are known by hand, so that what finds hidden states can be right or wrong.

Add one: a line in the tuple of its kind, with how it is made tiny and which layers are its blocks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hiddencost.survey.known import Known
from hiddencost.survey.seeing import SEEING
from hiddencost.survey.text import AUDIO, TEXT
from hiddencost.survey.variants import VARIANTS


@dataclass(frozen=True)
class Handwritten(Known):
    """A model of `handwritten`, by its function there."""

    name: str

    def made(self, depth: int) -> tuple[Any, Mapping[str, Sequence[Any]]]:
        from hiddencost.survey import handwritten

        model, blocks = getattr(handwritten, self.name.removeprefix("handwritten/"))(depth)
        return model, blocks if isinstance(blocks, dict) else {"main": blocks}

    def inputs(self, model: Any) -> Any:
        from hiddencost.survey import handwritten

        found = [handwritten.inputs() * (number + 1) for number in range(len(model.inputs))]
        return found if len(found) > 1 else found[0]


HANDWRITTEN = tuple(
    Handwritten(f"handwritten/{name}")
    for name in (
        "custom", "raw_weights", "shared", "models_as_blocks", "lstms", "bidirectional", "adapters", "hybrid",
        "sequential", "opaque", "nested", "nested_opaque", "deep", "flat_pre_norm", "flat_post_norm",
        "siamese", "towers", "branching",
    )
)  # fmt: skip

KINDS: dict[str, tuple[Known, ...]] = {
    "text": TEXT,
    "audio": AUDIO,
    "image": SEEING,
    "variant": VARIANTS,
    "handwritten": HANDWRITTEN,
}
"""Text, audio and image are all of KerasHub's backbones."""
KIND_OF = {known.name: kind for kind, all_known in KINDS.items() for known in all_known}
SURVEYED = {known.name: known for all_known in KINDS.values() for known in all_known}


def metrics(name: str, way: str, depth: int) -> dict[str, float]:
    """What a way finds in a model made so deep, by the names of METRICS, `stacks_right` last. way:
    `hidden_states`, or a rule. Raises what making or calling the model raises, and ValueError where `freed`
    gives other shapes than the model, or what is not a number."""
    from hiddencost.survey.looking import look, rule

    known = SURVEYED[name]
    found = look(known, depth) if way == "hidden_states" else rule(way, known, depth)
    if found.output_difference is not None and not math.isfinite(found.output_difference):
        raise ValueError("freed(model) gives other shapes than the model, or what is not a number")
    told = {
        "stacks": found.stacks,
        "stacks_wrong": found.wrong,
        "resolve_seconds": found.seconds,
        "states_difference": found.difference,
        "control_difference": found.control,
        "outputs_difference": found.output_difference,
        "stacks_right": found.right,
    }
    return {metric: value for metric, value in told.items() if value is not None and math.isfinite(value)}
