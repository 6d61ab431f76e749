"""hiddencost: what it costs to read the hidden states of Keras and KerasHub models, and the ways to.

    hidden_states(model)    the points of a model: embeddings, block_0, ...
    all_stacks(model)       the same of each stack, where there are several
    extractor(model, ...)   a callable: a batch in, named hidden states out
    freed(model)            the same model, holding each intermediate tensor only as long as it is needed

Keras is imported at the first use of one of these, not with the package.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hiddencost.extracting import extractor
    from hiddencost.layers import freed
    from hiddencost.points import all_stacks, hidden_states

__version__ = "0.1.0"
__all__ = ["all_stacks", "extractor", "freed", "hidden_states"]

_FROM = {"hidden_states": "points", "all_stacks": "points", "extractor": "extracting", "freed": "layers"}


def __getattr__(name: str) -> Any:
    if name in _FROM:
        return getattr(import_module(f"hiddencost.{_FROM[name]}"), name)
    raise AttributeError(f"module 'hiddencost' has no attribute '{name}'")
