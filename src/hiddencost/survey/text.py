"""KerasHub's backbones for text and audio, tiny, and where their blocks are."""

from __future__ import annotations

from typing import Any

from hiddencost.survey.known import Backbone, listed, two


def both(depth: int) -> dict[str, Any]:
    return {"encoder_num_layers": depth, "decoder_num_layers": depth}


def t5gemma(depth: int) -> dict[str, Any]:
    sides: dict[str, Any] = {}
    for side in ("encoder", "decoder"):
        own = {"hidden_dim": 16, "intermediate_dim": 24, "num_attention_heads": 2, "num_key_value_heads": 1,
               "head_dim": 8, "num_layers": depth, "layer_types": ["full_attention"] * depth}  # fmt: skip
        sides |= {f"{side}_{name}": value for name, value in own.items()}
    return {**sides, "cross_attention_hidden_size": 16}


def gemma3n(depth: int) -> dict[str, Any]:
    return {
        "text_vocab_size": 50, "text_hidden_size": 16, "num_hidden_layers": depth, "pad_token_id": 0,
        "intermediate_size": [24] * depth, "hidden_activation": "gelu_approximate",
        "layer_types": ["full_attention"] * depth, "sliding_window": 4, "vocab_size_per_layer_input": 50,
        "hidden_size_per_layer_input": 4, "altup_num_inputs": 2, "laurel_rank": 2,
    }  # fmt: skip


TEXT = (
    Backbone("AlbertBackbone", blocks=lambda m: {"main": [m.transformer_layers[0][0]] * m.num_layers}),
    Backbone("BartBackbone", blocks=two("encoder_transformer_layers", "decoder_transformer_layers")),
    *map(Backbone, ("BertBackbone", "BloomBackbone")),
    Backbone("DebertaV3Backbone", more={"bucket_size": 4}),
    Backbone("DistilBertBackbone"),
    Backbone(
        "EdRecBackbone",
        lambda depth: {"num_layers_enc": depth, "num_layers_dec": depth},
        two("encoder_layers", "decoder_layers"),
    ),
    *map(Backbone, ("ElectraBackbone", "ESMBackbone", "FNetBackbone", "FalconBackbone", "GPT2Backbone")),
    *map(Backbone, ("GPTNeoXBackbone", "GemmaBackbone", "Gemma3Backbone")),
    Backbone("Gemma3nBackbone", gemma3n, lambda model: {"main": model.language_model.transformer_layers}),
    *map(
        Backbone, ("Gemma4Backbone", "GptOssBackbone", "LlamaBackbone", "Llama3Backbone", "MistralBackbone")
    ),
    *map(Backbone, ("MixtralBackbone", "OPTBackbone", "Phi3Backbone", "QwenBackbone", "Qwen3Backbone")),
    *map(Backbone, ("Qwen3MoeBackbone", "Qwen3_5Backbone", "Qwen3_5MoeBackbone", "QwenMoeBackbone")),
    Backbone("RWKV7Backbone", blocks=listed("rwkv_layers")),
    *map(Backbone, ("RobertaBackbone", "RoformerV2Backbone")),
    Backbone(
        "SmolLM3Backbone",
        lambda depth: {
            "num_layers": depth,
            "rope_layer_enabled_list": [True] * depth,
            "layer_types": ["full_attention"] * depth,
            "partial_rotary_factor": 1.0,
        },
    ),
    Backbone("T5Backbone", blocks=two("encoder_transformer_layers", "decoder_transformer_layers")),
    Backbone("T5GemmaBackbone", t5gemma, two("encoder_layers", "decoder_layers")),
    Backbone("T5Gemma2Backbone", t5gemma, two("encoder_layers", "decoder_layers")),
    *map(Backbone, ("XLMRobertaBackbone", "XLNetBackbone")),
)
AUDIO = (
    Backbone("WhisperBackbone", blocks=two("encoder_transformer_layers", "decoder_transformer_layers")),
    Backbone(
        "MoonshineBackbone",
        both,
        two("encoder_blocks", "decoder_blocks"),
        {"encoder_num_heads": 2, "decoder_num_heads": 2},
    ),
)
