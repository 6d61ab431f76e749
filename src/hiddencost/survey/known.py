"""A model whose blocks are written down by hand: what `hidden_states` says of it can be right or wrong."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hiddencost import backends
from hiddencost.graph import graph_of
from hiddencost.inputs import random_inputs

Blocks = Callable[[Any], Mapping[str, Sequence[Any]]]
"""Model -> name of a stack -> the layers that are its blocks, in order."""

SIZES = {
    "vocabulary_size": 50, "vocab_size": 50, "num_heads": 2, "num_attention_heads": 2, "num_query_heads": 2,
    "num_key_value_heads": 1, "hidden_dim": 16, "hidden_size": 16, "embedding_dim": 8, "intermediate_dim": 24,
    "head_dim": 8, "head_size": 8, "max_sequence_length": 16, "moe_intermediate_dim": 8, "num_experts": 4,
    "shared_expert_intermediate_dim": 8, "shared_expert_intermediate_size": 8, "top_k": 2, "image_size": 16,
    "attention_bias": False, "attention_dropout": 0.0, "mlp_bias": False, "layer_norm_epsilon": 1e-6,
    "max_position_embeddings": 32, "rope_theta": 10000.0, "image_shape": (16, 16, 3), "patch_size": 8,
    "filter_dim": 16, "num_mels": 8, "max_encoder_sequence_length": 16, "max_decoder_sequence_length": 16,
    "linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 8,
    "linear_value_head_dim": 8, "mlp_dim": 24, "gate_lora": 4, "mv_lora": 4, "aaa_lora": 4, "decay_lora": 4,
}  # fmt: skip
"""Arguments of constructors by name, where a class has them: as small as they can be."""


def listed(attribute: str) -> Blocks:
    """One stack, in this attribute of the model."""
    return lambda model: {"main": getattr(model, attribute)}


def two(encoder: str, decoder: str) -> Blocks:
    """An encoder's and a decoder's, in these attributes."""
    return lambda model: {"encoder": getattr(model, encoder), "decoder": getattr(model, decoder)}


class Known:
    """A model that can be made in several depths, with its truth."""

    name: str

    def made(self, depth: int) -> tuple[Any, Mapping[str, Sequence[Any]]]:
        """A tiny one with so many blocks in each stack, its weights random; and its stacks by name: for each
        block in order its layer, or the symbolic tensor that it returns."""
        raise NotImplementedError

    def inputs(self, model: Any) -> Any:
        """Inputs of the model, two examples."""
        return inputs_of(model)


@dataclass(frozen=True)
class Backbone(Known):
    """A backbone of KerasHub by its class. sizes: depth -> arguments of its own, beside those in SIZES that
    it takes; more: the same for any depth. blocks: its truth; a model without stacks has none."""

    name: str
    sizes: Callable[[int], dict[str, Any]] = lambda depth: {"num_layers": depth}
    blocks: Blocks = field(default_factory=lambda: listed("transformer_layers"))
    more: Mapping[str, Any] = field(default_factory=dict)

    def made(self, depth: int) -> tuple[Any, Mapping[str, Sequence[Any]]]:
        model = self.model(depth)
        return model, self.blocks(model)

    def model(self, depth: int = 3, **options: Any) -> Any:
        """The model alone. options: more arguments of its constructor."""
        import keras
        import keras_hub

        keras.utils.set_random_seed(358)
        kind = getattr(keras_hub.models, self.name)
        known = inspect.signature(kind.__init__).parameters
        sizes = {name: value for name, value in SIZES.items() if name in known}
        model = kind(**{**sizes, **self.more, **self.sizes(depth), **options})
        shaken(model)
        return model


def shaken(model: Any) -> None:
    """Adds noise to all weights: with gates of zero and scales of one an error would not show."""
    random = np.random.default_rng(358)
    for weight in model.weights:
        if "float" in str(weight.dtype):
            value = np.asarray(backends.to_numpy(weight.value))
            weight.assign(value + 0.1 * random.standard_normal(value.shape))


def inputs_of(model: Any, batch: int = 2, length: int = 8) -> Any:
    """Random inputs of the shapes and types that a model states, by name; a single one may have none."""

    def size(tensor: Any) -> int:
        if tensor.name == "encoder_input_values":
            return 2000  # convolutions shorten it
        if "box" in tensor.name:
            return 1  # SAM3 takes no other number of them at two examples
        return 64 if len(tensor.shape) == 4 else length

    found = random_inputs(model, batch, size)
    return found if len(found) > 1 or isinstance(graph_of(model).input, dict) else next(iter(found.values()))
