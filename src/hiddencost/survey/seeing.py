"""KerasHub's backbones that take images, alone or with text, tiny, and where their blocks are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hiddencost.survey.known import Backbone, Blocks

IMAGE = (16, 16, 3)
BIG = {"image_shape": (64, 64, 3)}
OWN = {"hidden_dim": 16, "num_heads": 2, "intermediate_dim": 24}


def inside(path: str) -> Blocks:
    """One stack: the layers of this attribute of a layer, as `vit_encoder.encoder_layers`."""
    layer, attribute = path.split(".")
    return lambda model: {"main": getattr(model.get_layer(layer), attribute)}


def of_class(name: str) -> Blocks:
    """One stack: the model's layers of a class."""
    return lambda model: {"main": [layer for layer in model.layers if type(layer).__name__ == name]}


def none(model: Any) -> Mapping[str, Sequence[Any]]:
    """Convolutions, stage by stage: no stack of blocks."""
    return {}


# -- images and text --


def clip(depth: int) -> dict[str, Any]:
    from keras_hub.src.models.clip.clip_text_encoder import CLIPTextEncoder
    from keras_hub.src.models.clip.clip_vision_encoder import CLIPVisionEncoder

    text = {"vocabulary_size": 50, "embedding_dim": 16, "max_sequence_length": 8}
    return {
        "vision_encoder": CLIPVisionEncoder(patch_size=8, image_shape=IMAGE, num_layers=depth, **OWN),
        "text_encoder": CLIPTextEncoder(num_layers=depth, **text, **OWN),
        "projection_dim": 8,
    }


def siglip(depth: int) -> dict[str, Any]:
    from keras_hub.src.models.siglip.siglip_text_encoder import SigLIPTextEncoder
    from keras_hub.src.models.siglip.siglip_vision_encoder import SigLIPVisionEncoder

    text = {"vocabulary_size": 50, "embedding_dim": 16, "max_sequence_length": 8}
    return {
        "vision_encoder": SigLIPVisionEncoder(patch_size=8, image_shape=IMAGE, num_layers=depth, **OWN),
        "text_encoder": SigLIPTextEncoder(num_layers=depth, **text, **OWN),
    }


def metaclip(depth: int) -> dict[str, Any]:
    from keras_hub.src.models.metaclip_2.metaclip_2_text_encoder import MetaCLIP2TextEncoder
    from keras_hub.src.models.metaclip_2.metaclip_2_vision_encoder import MetaCLIP2VisionEncoder

    text = {"vocabulary_size": 50, "embedding_dim": 16, "max_sequence_length": 8}
    return {
        "vision_encoder": MetaCLIP2VisionEncoder(patch_size=8, image_shape=IMAGE, num_layers=depth, **OWN),
        "text_encoder": MetaCLIP2TextEncoder(num_layers=depth, **text, **OWN),
        "projection_dim": 8,
    }


def towers(text: str, vision: str) -> Blocks:
    """A text and a vision encoder, each a model inside the model."""
    return lambda model: {
        text: model.text_encoder.encoder_layers,
        vision: model.vision_encoder.encoder_layers,
    }


def paligemma(depth: int) -> dict[str, Any]:
    own = {"vit_patch_size": 8, "vit_num_heads": 2, "vit_hidden_dim": 16, "vit_num_layers": depth}
    return {**own, "num_layers": depth}


def blip2(depth: int) -> dict[str, Any]:
    from keras_hub.src.models.blip2.blip2_custom_opt import BLIP2CustomOPT
    from keras_hub.src.models.blip2.blip2_qformer import BLIP2QFormer
    from keras_hub.src.models.blip2.blip2_vision_encoder import BLIP2VisionEncoder

    return {
        "vision_encoder": BLIP2VisionEncoder(
            image_size=16, patch_size=8, num_layers=depth, use_patch_bias=True, use_class_token=True,
            use_mha_bias=True, use_mlp_bias=True, dropout_rate=0.0, layer_norm_epsilon=1e-6,
            initializer_range=0.02, **OWN,
        ),
        "qformer": BLIP2QFormer(
            num_query_tokens=2, num_layers=depth, vision_dim=16, cross_attention_frequency=1, dropout=0.0,
            layer_norm_epsilon=1e-6, **OWN,
        ),
        "language_model": BLIP2CustomOPT(
            vocabulary_size=50, num_layers=depth, num_query_tokens=2, qformer_hidden_dim=16,
            max_sequence_length=16, dropout=0.0, language_projection=None, **OWN,
        ),
    }  # fmt: skip


def parseq(depth: int) -> dict[str, Any]:
    from keras_hub.models import ViTBackbone

    return {
        "image_encoder": ViTBackbone(
            image_shape=IMAGE, patch_size=8, num_layers=depth, num_heads=2, hidden_dim=16, mlp_dim=24,
            use_class_token=False, name="image_encoder",
        ),
        "max_label_length": 8, "decoder_hidden_dim": 16, "num_decoder_layers": depth,
        "num_decoder_heads": 2, "decoder_mlp_dim": 24,
    }  # fmt: skip


def video_prism(depth: int) -> dict[str, Any]:
    own = dict.fromkeys(("num_spatial_layers", "num_temporal_layers"), depth)
    more = {"num_auxiliary_layers": 0, "vocabulary_size": 0, "num_text_layers": 0}
    return {"num_frames": 2, **own, **more}


def diffusion(depth: int) -> dict[str, Any]:
    from keras_hub.src.models.clip.clip_text_encoder import CLIPTextEncoder
    from keras_hub.src.models.vae.vae_backbone import VAEBackbone

    def text(name: str) -> Any:
        return CLIPTextEncoder(
            vocabulary_size=50, embedding_dim=16, max_sequence_length=16, num_layers=depth,
            intermediate_output_index=-2, name=name, **OWN,
        )  # fmt: skip

    vae = VAEBackbone([32] * 4, [1] * 4, [32] * 4, [1] * 4, sampler_method="mode", name="vae")
    return {
        "mmdit_patch_size": 2, "mmdit_hidden_dim": 32, "mmdit_num_layers": depth, "mmdit_num_heads": 2,
        "mmdit_position_size": 16, "mmdit_qk_norm": None, "mmdit_dual_attention_indices": None, "vae": vae,
        "clip_l": text("clip_l"), "clip_g": text("clip_g"), "image_shape": (32, 32, 3),
    }  # fmt: skip


def diffusion_blocks(model: Any) -> Mapping[str, Sequence[Any]]:
    """Each text encoder is called for the prompt, and again for what is not wanted."""
    clips = {
        f"{name}/{name}_encoder_block_{call}": getattr(model, name).encoder_layers
        for call in (0, 1)
        for name in ("clip_l", "clip_g")
    }
    return {**clips, "diffuser/joint_block": model.diffuser.joint_blocks}


def flux(depth: int) -> dict[str, Any]:
    return {
        "input_channels": 8, "hidden_size": 32, "mlp_ratio": 1.0, "num_heads": 2, "depth": depth,
        "depth_single_blocks": depth, "axes_dim": [4, 6, 6], "theta": 10_000, "use_bias": True,
        "guidance_embed": True, "image_shape": (4, 8), "text_shape": (4, 8), "image_ids_shape": (4, 3),
        "text_ids_shape": (4, 3), "y_shape": (8,),
    }  # fmt: skip


def sam(depth: int) -> dict[str, Any]:
    from keras_hub.models import ViTDetBackbone
    from keras_hub.src.models.sam.sam_mask_decoder import SAMMaskDecoder
    from keras_hub.src.models.sam.sam_prompt_encoder import SAMPromptEncoder

    return {
        "image_encoder": ViTDetBackbone(
            hidden_size=16, num_layers=depth, intermediate_dim=24, num_heads=2, patch_size=16,
            global_attention_layer_indices=[1], num_output_channels=8, window_size=2, image_shape=IMAGE,
        ),
        "prompt_encoder": SAMPromptEncoder(
            hidden_size=8, image_embedding_size=(8, 8), input_image_size=(16, 16), mask_in_channels=16
        ),
        "mask_decoder": SAMMaskDecoder(
            num_layers=2, hidden_size=16, intermediate_dim=32, num_heads=8, embedding_dim=8,
            num_multimask_outputs=3, iou_head_depth=3, iou_head_hidden_dim=8,
        ),
    }  # fmt: skip


def sam3(depth: int) -> dict[str, Any]:
    from keras_hub.src.models.sam3.sam3_detr_decoder import SAM3DetrDecoder
    from keras_hub.src.models.sam3.sam3_detr_encoder import SAM3DetrEncoder
    from keras_hub.src.models.sam3.sam3_geometry_encoder import SAM3GeometryEncoder
    from keras_hub.src.models.sam3.sam3_mask_decoder import SAM3MaskDecoder
    from keras_hub.src.models.sam3.sam3_text_encoder import SAM3TextEncoder
    from keras_hub.src.models.sam3.sam3_vision_encoder import SAM3VisionEncoder

    own = {**OWN, "num_layers": depth}
    image = {"image_shape": (28, 28, 3), "patch_size": 14}
    return {
        "vision_encoder": SAM3VisionEncoder(
            fpn_hidden_dim=16, fpn_scale_factors=[4.0, 2.0, 1.0, 0.5], pretrain_image_shape=(42, 42, 3),
            window_size=2, global_attn_indexes=[1], **image, **own,
        ),
        "text_encoder": SAM3TextEncoder(vocabulary_size=50, embedding_dim=16, **own),
        "geometry_encoder": SAM3GeometryEncoder(roi_size=7, **own),
        "detr_encoder": SAM3DetrEncoder(**own),
        "detr_decoder": SAM3DetrDecoder(num_queries=8, **image, **own),
        "mask_decoder": SAM3MaskDecoder(num_upsampling_stages=3, hidden_dim=16, num_heads=2),
    }  # fmt: skip


# -- images alone --


def resnet(**more: Any) -> dict[str, Any]:
    return {
        "input_conv_filters": [64], "input_conv_kernel_sizes": [7], "stackwise_num_filters": [64, 64, 64],
        "stackwise_num_blocks": [2, 2, 2], "stackwise_num_strides": [1, 2, 2], "block_type": "basic_block",
        **more,
    }  # fmt: skip


def four_stages() -> Any:
    from keras_hub.models import ResNetBackbone

    blocks, strides = [2, 2, 2, 2], [1, 2, 2, 2]
    return ResNetBackbone(
        **resnet(
            stackwise_num_filters=[64, 128, 256, 512],
            stackwise_num_blocks=blocks,
            stackwise_num_strides=strides,
        )
    )


def deeplab(depth: int) -> dict[str, Any]:
    from keras_hub.models import ResNetBackbone

    return {
        "image_encoder": ResNetBackbone(**resnet()), "low_level_feature_key": "P2",
        "spatial_pyramid_pooling_key": "P4", "dilation_rates": [6, 12, 18], "upsampling_size": 4,
        "image_shape": (32, 32, 3),
    }  # fmt: skip


def hgnet(**more: Any) -> dict[str, Any]:
    return {
        "stem_channels": [3, 8, 8], "stackwise_stage_filters": [[8, 8, 16, 1, 1, 3], [16, 8, 32, 1, 1, 3]],
        "apply_downsample": [False, True], "use_lightweight_conv_block": [False, False], "depths": [1, 1],
        "hidden_sizes": [16, 32], "embedding_size": 8, "use_learnable_affine_block": False,
        "hidden_act": "relu", "out_features": ["stage1", "stage2"], **more,
    }  # fmt: skip


def dfine(depth: int) -> dict[str, Any]:
    from keras_hub.models import HGNetV2Backbone

    return {
        "backbone": HGNetV2Backbone(**hgnet(image_shape=(32, 32, 3), use_learnable_affine_block=True)),
        "decoder_in_channels": [16, 16], "encoder_hidden_dim": 16, "num_denoising": 10, "num_labels": 4,
        "learn_initial_query": False, "num_queries": 10, "anchor_image_size": (32, 32), "seed": 0,
        "feat_strides": [4, 8], "num_feature_levels": 2, "encoder_in_channels": [16, 32],
        "encode_proj_layers": [1], "encoder_ffn_dim": 32, "num_encoder_layers": 1, "hidden_expansion": 0.5,
        "depth_multiplier": 0.5, "eval_idx": -1, "num_decoder_layers": depth, "decoder_attention_heads": 2,
        "decoder_ffn_dim": 32, "decoder_n_points": [2, 2], "lqe_hidden_dim": 16, "num_lqe_layers": 2,
        "out_features": ["stage1", "stage2"], "image_shape": (32, 32, 3),
    }  # fmt: skip


def dino(depth: int) -> dict[str, Any]:
    return {"num_layers": depth, "layer_scale_init_value": 1.0, "num_register_tokens": 2}


def depth_anything(depth: int) -> dict[str, Any]:
    from keras_hub.models import DINOV2Backbone

    stages = [f"stage{number}" for number in range(max(1, depth - 3), depth + 1)]
    own = {"reassemble_factors": [4, 2, 1, 0.5][: len(stages)], "neck_hidden_dims": [8] * len(stages)}
    encoder = DINOV2Backbone(
        14, depth, 16, 2, 24, 1.0, 0, image_shape=(126, 126, 3), apply_layernorm=True, name="image_encoder"
    )
    return {
        "image_encoder": encoder, **own,
        "fusion_hidden_dim": 8, "head_hidden_dim": 8, "head_in_index": -1, "feature_keys": stages,
    }  # fmt: skip


def mit(depth: int) -> dict[str, Any]:
    return {
        "layerwise_depths": [depth, depth], "image_shape": (32, 32, 3), "hidden_dims": [4, 8],
        "num_layers": 2, "layerwise_num_heads": [1, 2], "layerwise_sr_ratios": [8, 4],
        "max_drop_path_rate": 0.1, "layerwise_patch_sizes": [7, 3], "layerwise_strides": [4, 2],
    }  # fmt: skip


def mit_stages(model: Any) -> Mapping[str, Sequence[Any]]:
    blocks = [layer for layer in model.layers if layer.name.startswith("hierarchical_encoder_")]
    return {
        f"hierarchical_encoder_{stage}": [
            block for block in blocks if block.name.startswith(f"hierarchical_encoder_{stage}_")
        ]
        for stage in (0, 1)
    }


def segformer(depth: int) -> dict[str, Any]:
    from keras_hub.models import MiTBackbone

    return {"image_encoder": MiTBackbone(**mit(depth)), "projection_filters": 8}


def swin(depth: int) -> dict[str, Any]:
    return {
        "image_shape": (32, 32, 3), "embed_dim": 16, "depths": (depth, depth), "num_heads": (2, 4),
        "patch_size": 4, "window_size": 4,
    }  # fmt: skip


EFFICIENT = {
    "stackwise_kernel_sizes": [3, 3], "stackwise_num_repeats": [2, 3], "stackwise_input_filters": [8, 8],
    "stackwise_output_filters": [8, 16], "stackwise_expansion_ratios": [1, 4],
    "stackwise_squeeze_and_excite_ratios": [0.0, 0.25], "stackwise_strides": [1, 2],
    "stackwise_block_types": ["fused", "unfused"], "stackwise_force_input_filters": [0, 0],
    "stackwise_nores_option": [False, False], "width_coefficient": 1.0, "depth_coefficient": 1.0,
    "image_shape": (32, 32, 3),
}  # fmt: skip
MOBILE = {
    "stackwise_expansion": [[40, 56], [64, 144]], "stackwise_num_blocks": [2, 2],
    "stackwise_num_filters": [[16, 16], [24, 24]], "stackwise_kernel_size": [[3, 3], [5, 5]],
    "stackwise_num_strides": [[2, 1], [2, 1]], "stackwise_se_ratio": [[None, None], [0.25, 0.25]],
    "stackwise_activation": [["relu", "relu"], ["hard_swish", "hard_swish"], ["hard_swish"]],
    "stackwise_padding": [[1, 1], [2, 2]], "output_num_filters": 32, "input_activation": "hard_swish",
    "output_activation": "hard_swish", "input_num_filters": 16, "image_shape": (32, 32, 3),
    "depthwise_filters": 8, "depthwise_stride": 2, "depthwise_residual": False, "squeeze_and_excite": 0.5,
    "last_layer_filter": 48,
}  # fmt: skip
MOBILE5 = {
    "stackwise_block_types": [["er"], ["uir", "uir"]], "stackwise_num_blocks": [1, 2],
    "stackwise_num_filters": [[24], [48, 48]], "stackwise_strides": [[2], [2, 1]],
    "stackwise_act_layers": [["relu"], ["relu", "relu"]], "stackwise_exp_ratios": [[4.0], [6.0, 6.0]],
    "stackwise_se_ratios": [[0.0], [0.0, 0.0]], "stackwise_dw_kernel_sizes": [[0], [5, 5]],
    "stackwise_dw_start_kernel_sizes": [[0], [0, 0]], "stackwise_dw_end_kernel_sizes": [[0], [0, 0]],
    "stackwise_exp_kernel_sizes": [[3], [0, 0]], "stackwise_pw_kernel_sizes": [[1], [0, 0]],
    "stackwise_num_heads": [[0], [0, 0]], "stackwise_key_dims": [[0], [0, 0]],
    "stackwise_value_dims": [[0], [0, 0]], "stackwise_kv_strides": [[0], [0, 0]],
    "stackwise_use_cpe": [[False], [False, False]], "image_shape": (32, 32, 3), "stem_size": 16,
    "use_msfa": False,
}  # fmt: skip
CSP = {
    "stem_filters": 8, "stem_kernel_size": 3, "stem_strides": 1, "stackwise_strides": 2,
    "stackwise_depth": [1, 2, 3], "stackwise_num_filters": [8, 8, 16], "image_shape": (32, 32, 3),
    "down_growth": True, "bottle_ratio": (0.5, 1.0), "block_ratio": (1.0, 0.5), "expand_ratio": (2.0, 1.0),
    "block_type": "dark_block", "stage_type": "csp", "stem_padding": "same",
}  # fmt: skip


SEEING = (
    Backbone("ViTBackbone", blocks=inside("vit_encoder.encoder_layers")),
    Backbone("CLIPBackbone", clip, towers("clip_text_encoder", "clip_vision_encoder")),
    Backbone("SigLIPBackbone", siglip, towers("sig_lip_text_encoder", "sig_lip_vision_encoder")),
    Backbone("MetaCLIP2Backbone", metaclip, towers("meta_clip2_text_encoder", "meta_clip2_vision_encoder")),
    Backbone(
        "PaliGemmaBackbone",
        paligemma,
        lambda m: {
            "encoder": m.vit_encoder.get_layer("image_encoder").resblocks,
            "decoder": m.transformer_layers,
        },
    ),
    Backbone(
        "BLIP2Backbone",
        blip2,
        lambda m: {
            "encoder": m.vision_encoder.get_layer("encoder").encoder_layers,
            "blip2q_former": m.qformer.transformer_layers,
            "blip2_custom_opt": m.language_model.transformer_layers,
        },
    ),
    Backbone(
        "PARSeqBackbone",
        parseq,
        lambda m: {
            "vit_encoder": m.image_encoder.get_layer("vit_encoder").encoder_layers,
            "decoder": m.get_layer("decoder").decoder_layers,
        },
    ),
    Backbone(
        "VideoPrismBackbone",
        video_prism,
        lambda m: {
            "spatial_encoder": m.spatial_encoder.encoder_layers,
            "temporal_encoder": m.temporal_encoder.encoder_layers,
        },
    ),
    Backbone("StableDiffusion3Backbone", diffusion, diffusion_blocks),
    Backbone(
        "FluxBackbone",
        flux,
        lambda m: {"double_stream_block": m.double_blocks, "single_stream_block": m.single_blocks},
    ),
    Backbone("SAMBackbone", sam, of_class("WindowedTransformerEncoder")),
    Backbone(
        "SAM3PromptableConceptBackbone",
        sam3,
        lambda m: {
            "backbone": m.vision_encoder.backbone.layers,
            "sam3_text_encoder": m.text_encoder.encoder_layers,
            "sam3_geometry_encoder": m.geometry_encoder.layers,
            "sam3_detr_encoder": m.detr_encoder.layers,
            "sam3_detr_decoder": m.detr_decoder.layers,
        },
    ),
    Backbone("DFineBackbone", dfine, lambda m: {"main": m.decoder.decoder_layers}),
    Backbone("DINOV2Backbone", dino, inside("encoder.layers"), {"image_shape": (16, 16, 3)}),
    Backbone("DINOV3Backbone", dino, inside("encoder.layers"), {"image_shape": (16, 16, 3)}),
    Backbone("DeiTBackbone", blocks=inside("deit_encoder.encoder_layers")),
    Backbone(
        "DepthAnythingBackbone",
        depth_anything,
        lambda m: {"main": m.image_encoder.get_layer("image_encoder_encoder").layers},
    ),
    Backbone("MiTBackbone", mit, mit_stages),
    Backbone(
        "SegFormerBackbone",
        segformer,
        lambda m: {f"functional/{name}": blocks for name, blocks in mit_stages(m.image_encoder).items()},
    ),
    Backbone(
        "SwinTransformerBackbone",
        swin,
        lambda m: {stage.name: stage.blocks for stage in m.stages},
    ),
    Backbone(
        "ViTDetBackbone",
        lambda depth: {"num_layers": depth, "global_attention_layer_indices": [1]},
        of_class("WindowedTransformerEncoder"),
        {"num_output_channels": 4, "window_size": 2},
    ),
    Backbone("BASNetBackbone", lambda _: {"image_encoder": four_stages(), "num_classes": 1}, none, BIG),
    Backbone("CSPNetBackbone", lambda _: CSP, none),
    Backbone("DeepLabV3Backbone", deeplab, none),
    Backbone(
        "DenseNetBackbone",
        lambda _: {"stackwise_num_repeats": [2, 3], "compression_ratio": 0.5, "growth_rate": 2},
        none,
        {"image_shape": (32, 32, 3)},
    ),
    Backbone("EfficientNetBackbone", lambda _: EFFICIENT, none),
    Backbone("HGNetV2Backbone", lambda _: hgnet(image_shape=(32, 32, 3)), none),
    Backbone("MobileNetBackbone", lambda _: MOBILE, none),
    Backbone("MobileNetV5Backbone", lambda _: MOBILE5, none),
    Backbone("ResNetBackbone", lambda _: resnet(image_shape=(32, 32, 3)), none),
    Backbone(
        "RetinaNetBackbone",
        lambda _: {"image_encoder": four_stages(), "min_level": 3, "max_level": 5, "use_p5": False},
        none,
        BIG,
    ),
    Backbone(
        "VGGBackbone", lambda _: {"stackwise_num_repeats": [2, 3], "stackwise_num_filters": [8, 8]}, none
    ),
    Backbone(
        "XceptionBackbone",
        lambda _: {"stackwise_conv_filters": [[8, 16], [16, 16]], "stackwise_pooling": [True, False]},
        none,
        {"image_shape": (32, 32, 3)},
    ),
)
