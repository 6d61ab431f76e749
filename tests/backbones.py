"""Tiny KerasHub backbones with random weights, and where their blocks are, written down by hand."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from hiddencost import backends

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
"""Arguments of constructors, by name."""


def listed(attribute):
    return lambda model: {"main": getattr(model, attribute)}


def two(encoder, decoder):
    return lambda model: {"encoder": getattr(model, encoder), "decoder": getattr(model, decoder)}


@dataclass(frozen=True)
class Tiny:
    """A backbone by its class. sizes: depth -> its own arguments. blocks: model -> stack -> its layers."""

    name: str
    sizes: Callable[[int], dict] = lambda depth: {"num_layers": depth}
    blocks: Callable = field(default_factory=lambda: listed("transformer_layers"))
    more: dict = field(default_factory=dict)

    def model(self, depth=3):
        import keras
        import keras_hub

        keras.utils.set_random_seed(358)
        kind = getattr(keras_hub.models, self.name)
        known = inspect.signature(kind.__init__).parameters
        sizes = {name: value for name, value in SIZES.items() if name in known}
        model = kind(**{**sizes, **self.more, **self.sizes(depth)})
        random = np.random.default_rng(358)
        for weight in model.weights:  # zero gates and unit scales would hide an error
            if "float" in str(weight.dtype):
                value = np.asarray(backends.to_numpy(weight.value))
                weight.assign(value + 0.1 * random.standard_normal(value.shape))
        return model


def inputs_of(model, batch=2, length=8):
    """Random inputs of the shapes and types that a model states, by name; images alone as they are."""
    random = np.random.default_rng(358)
    found = {}
    for tensor in model.inputs:
        longest = 2000 if tensor.name == "encoder_input_values" else length  # convolutions shorten it
        shape = (batch, *(size or longest for size in tensor.shape[1:]))
        if "mask" in tensor.name:
            found[tensor.name] = np.ones(shape, tensor.dtype)
        elif "int" in tensor.dtype or "token" in tensor.name:
            high = 2 if "segment" in tensor.name else 40
            found[tensor.name] = random.integers(0, high, shape).astype(tensor.dtype)
        else:
            found[tensor.name] = random.standard_normal(shape).astype(tensor.dtype)
    return found["images"] if list(found) == ["images"] else found


def both(depth):
    return {"encoder_num_layers": depth, "decoder_num_layers": depth}


def t5gemma(depth):
    sides = {}
    for side in ("encoder", "decoder"):
        own = {"hidden_dim": 16, "intermediate_dim": 24, "num_attention_heads": 2, "num_key_value_heads": 1,
               "head_dim": 8, "num_layers": depth, "layer_types": ["full_attention"] * depth}  # fmt: skip
        sides |= {f"{side}_{name}": value for name, value in own.items()}
    return {**sides, "cross_attention_hidden_size": 16}


def gemma3n(depth):
    return {
        "text_vocab_size": 50, "text_hidden_size": 16, "num_hidden_layers": depth, "pad_token_id": 0,
        "intermediate_size": [24] * depth, "hidden_activation": "gelu_approximate",
        "layer_types": ["full_attention"] * depth, "sliding_window": 4, "vocab_size_per_layer_input": 50,
        "hidden_size_per_layer_input": 4, "altup_num_inputs": 2, "laurel_rank": 2,
    }  # fmt: skip


TEXT = (
    Tiny("AlbertBackbone", blocks=lambda m: {"main": [m.transformer_layers[0][0]] * m.num_layers}),
    Tiny("BartBackbone", blocks=two("encoder_transformer_layers", "decoder_transformer_layers")),
    *map(Tiny, ("BertBackbone", "BloomBackbone")),
    Tiny("DebertaV3Backbone", more={"bucket_size": 4}),
    Tiny("DistilBertBackbone"),
    Tiny(
        "EdRecBackbone",
        lambda depth: {"num_layers_enc": depth, "num_layers_dec": depth},
        two("encoder_layers", "decoder_layers"),
    ),
    *map(Tiny, ("ElectraBackbone", "ESMBackbone", "FNetBackbone", "FalconBackbone", "GPT2Backbone")),
    *map(Tiny, ("GPTNeoXBackbone", "GemmaBackbone", "Gemma3Backbone")),
    Tiny("Gemma3nBackbone", gemma3n, lambda model: {"main": model.language_model.transformer_layers}),
    *map(Tiny, ("Gemma4Backbone", "GptOssBackbone", "LlamaBackbone", "Llama3Backbone", "MistralBackbone")),
    *map(Tiny, ("MixtralBackbone", "OPTBackbone", "Phi3Backbone", "QwenBackbone", "Qwen3Backbone")),
    *map(Tiny, ("Qwen3MoeBackbone", "Qwen3_5Backbone", "Qwen3_5MoeBackbone", "QwenMoeBackbone")),
    Tiny("RWKV7Backbone", blocks=listed("rwkv_layers")),
    *map(Tiny, ("RobertaBackbone", "RoformerV2Backbone")),
    Tiny(
        "SmolLM3Backbone",
        lambda depth: {
            "num_layers": depth,
            "rope_layer_enabled_list": [True] * depth,
            "layer_types": ["full_attention"] * depth,
            "partial_rotary_factor": 1.0,
        },
    ),
    Tiny("T5Backbone", blocks=two("encoder_transformer_layers", "decoder_transformer_layers")),
    Tiny("T5GemmaBackbone", t5gemma, two("encoder_layers", "decoder_layers")),
    Tiny("T5Gemma2Backbone", t5gemma, two("encoder_layers", "decoder_layers")),
    *map(Tiny, ("XLMRobertaBackbone", "XLNetBackbone")),
)
AUDIO = (
    Tiny("WhisperBackbone", blocks=two("encoder_transformer_layers", "decoder_transformer_layers")),
    Tiny(
        "MoonshineBackbone",
        both,
        two("encoder_blocks", "decoder_blocks"),
        {"encoder_num_heads": 2, "decoder_num_heads": 2},
    ),
)


def clip(depth):
    from keras_hub.src.models.clip.clip_text_encoder import CLIPTextEncoder
    from keras_hub.src.models.clip.clip_vision_encoder import CLIPVisionEncoder

    own = {"hidden_dim": 16, "num_layers": depth, "num_heads": 2, "intermediate_dim": 24}
    return {
        "vision_encoder": CLIPVisionEncoder(patch_size=8, image_shape=(16, 16, 3), **own),
        "text_encoder": CLIPTextEncoder(vocabulary_size=50, embedding_dim=16, max_sequence_length=8, **own),
        "projection_dim": 8,
    }


def paligemma(depth):
    own = {"vit_patch_size": 8, "vit_num_heads": 2, "vit_hidden_dim": 16, "vit_num_layers": depth}
    return {**own, "num_layers": depth}


SEEING = (
    Tiny("ViTBackbone", blocks=lambda m: {"main": m.get_layer("vit_encoder").encoder_layers}),
    Tiny(
        "CLIPBackbone",
        clip,
        lambda m: {
            "clip_text_encoder": m.text_encoder.encoder_layers,
            "clip_vision_encoder": m.vision_encoder.encoder_layers,
        },
    ),
    Tiny(
        "PaliGemmaBackbone",
        paligemma,
        lambda m: {
            "encoder": m.vit_encoder.get_layer("image_encoder").resblocks,
            "decoder": m.transformer_layers,
        },
    ),
)
