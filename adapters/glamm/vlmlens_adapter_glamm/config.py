"""The config of GLaMM, from a checkpoint's config.json and that of its vision tower.

What upstream writes into its source and not into config.json (SAM ViT-H, the region encoder) has
upstream's values, unless the file has a section for it, as small checkpoints for tests do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import CLIPVisionConfig, LlamaConfig, PreTrainedConfig, SamConfig
from transformers.configuration_utils import SubConfigSpec

from vlmlens.errors import CheckpointError

IMAGE_TOKEN_ID = -200
"""Stands in `input_ids` where the image's features go; no row of the vocabulary."""

REGION_STEP = 3
"""Blocks of the tower between two levels of the region encoder's pyramid."""

_ARCHITECTURE = "GLaMMForCausalLM"
_LLAMA_FIELDS = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "hidden_act", "max_position_embeddings", "initializer_range",
    "rms_norm_eps", "rope_theta", "rope_scaling", "bos_token_id", "eos_token_id", "pad_token_id",
    "tie_word_embeddings",
)  # fmt: skip
_CLIP_FIELDS = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_channels",
    "image_size", "patch_size", "hidden_act", "layer_norm_eps",
)  # fmt: skip
_SAM: Mapping[str, Mapping[str, Any]] = {
    "image_encoder": {
        "embed_dim": 1280, "depth": 32, "num_heads": 16, "global_attn_indexes": [7, 15, 23, 31],
        "window_size": 14, "img_size": 1024, "patch_size": 16, "mlp_ratio": 4, "out_chans": 256,
        "norm_eps": 1e-6,
    },
    "prompt_encoder": {"embed_dim": 256, "mask_in_chans": 16},
    "mask_decoder": {
        "transformer_dim": 256, "transformer_depth": 2, "transformer_num_heads": 8,
        "transformer_mlp_dim": 2048, "num_multimask_outputs": 3, "iou_head_depth": 3,
        "iou_head_hidden_dim": 256,
    },
}  # fmt: skip
_MASK_DECODER_EPS = 1e-5
"""Of SAM's own mask decoder; transformers' default is 1e-6."""


class GlammRegionConfig(PreTrainedConfig):
    """The region encoder.

    Args:
        embed_dims: Channels of its feature maps.
        group_norm_groups: Groups of the norms after its convolutions.
        roi_output_size: Cells along a side of what is cut out for a box.
        roi_sampling_ratio: Points along a side of a cell.
        pos_mid_dim: Width inside the embedding of a box's corners.
        mid_dim: Width before the language model's.
        roi_scale: Boxes of 0..1 are multiplied with it. Upstream's 224 belongs to another size of
            image than its tower's 336, and is kept: a box covers two thirds of what it should.
        num_fuse: Rounds in which neighbouring levels are mixed.
    """

    model_type = "glamm_region"
    base_config_key = "region_config"

    embed_dims: int = 1024
    group_norm_groups: int = 64
    roi_output_size: int = 14
    roi_sampling_ratio: int = 2
    pos_mid_dim: int = 256
    mid_dim: int = 1024
    roi_scale: float = 224.0
    num_fuse: int = 5


class GlammConfig(PreTrainedConfig):
    """GLaMM: a global image encoder, a Llama, a grounding encoder, a region encoder.

    Args:
        text_config: The language model, a Llama.
        vision_config: The global image encoder, a CLIP tower.
        grounding_config: SAM.
        region_config: The region encoder.
        with_region: Whether there is one.
        vision_tower: Hub id or folder of the CLIP tower.
        vision_feature_layer: Whose hidden states the projector sees.
        num_region_levels: Levels of the region encoder's feature pyramid.
        out_dim: Width of a prompt to the mask decoder.
        mm_use_im_start_end: Whether the image stands between two tokens.
        seg_token_id: Of the token that asks for a mask.
        bbox_token_id: Of the token at which a region stands.
    """

    model_type = "glamm"
    sub_configs_defaults = {  # noqa: RUF012
        "text_config": SubConfigSpec(LlamaConfig),
        "vision_config": SubConfigSpec(CLIPVisionConfig),
        "grounding_config": SubConfigSpec(SamConfig),
        "region_config": SubConfigSpec(GlammRegionConfig),
    }

    text_config: Any = None
    vision_config: Any = None
    grounding_config: Any = None
    region_config: Any = None
    with_region: bool = True
    vision_tower: str = ""
    vision_feature_layer: int = -2
    num_region_levels: int = 4
    out_dim: int = 256
    mm_use_im_start_end: bool = True
    image_token_id: int = IMAGE_TOKEN_ID
    seg_token_id: int = 32004
    bbox_token_id: int = 32002
    tie_word_embeddings: bool = False


def check_kind(said: Mapping[str, Any], model: str) -> None:
    """Raise if a config.json is not GLaMM's.

    Raises:
        CheckpointError: It is another architecture, or passes the CLS token to the projector.
    """
    if said.get("architectures") != [_ARCHITECTURE]:
        raise _refused(model, f"is of the architecture {said.get('architectures')}, which is")
    feature = said.get("mm_vision_select_feature", "patch")
    if feature != "patch":
        raise _refused(model, f"has mm_vision_select_feature = {feature!r}, and only 'patch' is")


def glamm_config(
    said: Mapping[str, Any], tower: str, tower_said: Mapping[str, Any], model: str
) -> GlammConfig:
    """The config of a GLaMM checkpoint.

    Args:
        said: Its config.json.
        tower: Hub id or folder of its vision tower.
        tower_said: The config.json there, of a CLIP or of its vision half.
        model: Hub id or folder, named in errors.

    Raises:
        CheckpointError: It is not a GLaMM, or its tower has another size.
    """
    check_kind(said, model)
    vision = _chosen(tower_said.get("vision_config", tower_said), _CLIP_FIELDS)
    wide = said.get("mm_hidden_size", vision.get("hidden_size"))
    if wide != vision.get("hidden_size"):
        raise CheckpointError(
            f"{model!r} was made for a vision tower of width {wide}; that of {tower!r} is "
            f"{vision.get('hidden_size')} wide.",
            subject=tower,
            hint="Name another tower: --set options.adapter.vision_tower=FOLDER.",
        )
    vocabulary = int(said["vocab_size"])
    config = GlammConfig(
        text_config=LlamaConfig(**_chosen(said, _LLAMA_FIELDS)),
        vision_config=CLIPVisionConfig(**vision),
        grounding_config=_sam_config(said.get("golden_only_grounding_encoder", {})),
        region_config=_region_config(said.get("golden_only_region_encoder", {}), wide),
        with_region=bool(said.get("with_region", True)),
        vision_tower=tower,
        vision_feature_layer=int(said.get("mm_vision_select_layer", -2)),
        num_region_levels=int(said.get("num_level_reg_features", 4)),
        out_dim=int(said.get("out_dim", 256)),
        mm_use_im_start_end=bool(said.get("mm_use_im_start_end", True)),
        seg_token_id=vocabulary - 3,
        bbox_token_id=vocabulary - 5,
        dtype=said.get("dtype", said.get("torch_dtype")),
    )
    depths = range(config.vision_config.num_hidden_layers + 1)
    if len(depths[config.vision_feature_layer :: -REGION_STEP]) < config.num_region_levels:
        raise CheckpointError(
            f"The vision tower {tower!r} has {len(depths) - 1} layers, too few for the "
            f"{config.num_region_levels} levels of the region encoder of {model!r}.",
            subject=tower,
        )
    return config


def _sam_config(said: Mapping[str, Any]) -> SamConfig:
    """The grounding encoder's transformers config, from the arguments of SAM's own classes."""
    image, prompt, decoder = ({**_SAM[part], **said.get(part, {})} for part in _SAM)
    same = {"image_size": image["img_size"], "patch_size": image["patch_size"]}
    return SamConfig(
        vision_config={
            **same,
            "hidden_size": image["embed_dim"],
            "num_hidden_layers": image["depth"],
            "num_attention_heads": image["num_heads"],
            "global_attn_indexes": list(image["global_attn_indexes"]),
            "window_size": image["window_size"],
            "mlp_dim": int(image["embed_dim"] * image["mlp_ratio"]),
            "output_channels": image["out_chans"],
            "num_pos_feats": prompt["embed_dim"] // 2,
            "layer_norm_eps": image["norm_eps"],
        },
        prompt_encoder_config={
            **same,
            "hidden_size": prompt["embed_dim"],
            "mask_input_channels": prompt["mask_in_chans"],
        },
        mask_decoder_config={
            "hidden_size": decoder["transformer_dim"],
            "num_hidden_layers": decoder["transformer_depth"],
            "num_attention_heads": decoder["transformer_num_heads"],
            "mlp_dim": decoder["transformer_mlp_dim"],
            "num_multimask_outputs": decoder["num_multimask_outputs"],
            "iou_head_depth": decoder["iou_head_depth"],
            "iou_head_hidden_dim": decoder["iou_head_hidden_dim"],
            "layer_norm_eps": _MASK_DECODER_EPS,
        },
    )


def _region_config(said: Mapping[str, Any], wide: Any) -> GlammRegionConfig:
    fields = (
        "embed_dims", "group_norm_groups", "roi_output_size", "roi_sampling_ratio", "pos_mid_dim",
        "mid_dim", "roi_scale", "num_fuse",
    )  # fmt: skip
    return GlammRegionConfig(**{"embed_dims": wide, **_chosen(said, fields)})


def _chosen(said: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: said[name] for name in names if said.get(name) is not None}


def _refused(model: str, what: str) -> CheckpointError:
    return CheckpointError(
        f"{model!r} {what} not known to this adapter.",
        subject=model,
        hint=f"It reads {_ARCHITECTURE}; choose another adapter.",
    )
