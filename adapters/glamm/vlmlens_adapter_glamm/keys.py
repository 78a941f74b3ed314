"""Weights under the names that our modules have: GLaMM's own, and those of its CLIP tower."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vlmlens.hf.weights import StoredTensor, renamed

_SAM = "model.grounding_encoder."
_GAUSSIAN = f"{_SAM}prompt_encoder.shared_embedding.positional_embedding"
_ATTENTION = "self_attn|cross_attn_token_to_image|cross_attn_image_to_token"

IGNORED: Sequence[str] = (r"\.rotary_emb\.inv_freq$",)
"""Angles that old transformers stored; they follow from the config."""

RENAMES: Sequence[tuple[str, str]] = (
    (r"^model\.(embed_tokens|layers|norm)\.", r"model.language_model.\1."),
    (r"(grounding_encoder)\.image_encoder\.", r"\1.vision_encoder."),
    (r"(vision_encoder\.patch_embed)\.proj\.", r"\1.projection."),
    (r"(vision_encoder)\.blocks\.", r"\1.layers."),
    (r"(vision_encoder\.layers\.\d+)\.norm([12])\.", r"\1.layer_norm\2."),
    (r"(vision_encoder\.neck)\.0\.", r"\1.conv1."),
    (r"(vision_encoder\.neck)\.1\.", r"\1.layer_norm1."),
    (r"(vision_encoder\.neck)\.2\.", r"\1.conv2."),
    (r"(vision_encoder\.neck)\.3\.", r"\1.layer_norm2."),
    (
        r"(prompt_encoder)\.pe_layer\.positional_encoding_gaussian_matrix$",
        r"\1.shared_embedding.positional_embedding",
    ),
    (r"(prompt_encoder)\.point_embeddings\.", r"\1.point_embed."),
    (r"(prompt_encoder)\.mask_downscaling\.0\.", r"\1.mask_embed.conv1."),
    (r"(prompt_encoder)\.mask_downscaling\.1\.", r"\1.mask_embed.layer_norm1."),
    (r"(prompt_encoder)\.mask_downscaling\.3\.", r"\1.mask_embed.conv2."),
    (r"(prompt_encoder)\.mask_downscaling\.4\.", r"\1.mask_embed.layer_norm2."),
    (r"(prompt_encoder)\.mask_downscaling\.6\.", r"\1.mask_embed.conv3."),
    (r"(mask_decoder\.transformer\.layers\.\d+)\.norm([1-4])\.", r"\1.layer_norm\2."),
    (r"(mask_decoder\.transformer)\.norm_final_attn\.", r"\1.layer_norm_final_attn."),
    (r"(mask_decoder)\.output_upscaling\.0\.", r"\1.upscale_conv1."),
    (r"(mask_decoder)\.output_upscaling\.1\.", r"\1.upscale_layer_norm."),
    (r"(mask_decoder)\.output_upscaling\.3\.", r"\1.upscale_conv2."),
)
"""Names in the checkpoint, and ours; applied in order."""

_CLIP = "model.vision_tower.vision_tower."
_OTHER_HALF = (
    r"^text_model\.", r"^(text|visual)_projection\.", r"^logit_scale$",
    r"\.embeddings\.position_ids$",
)  # fmt: skip


def glamm_weights(weights: Mapping[str, StoredTensor], depth: int) -> dict[str, StoredTensor]:
    """The weights of a GLaMM checkpoint under our names.

    SAM's random matrix for positions has two places in transformers' class.

    Args:
        weights: By the names of the checkpoint.
        depth: Linear layers of the mask decoder's head that predicts its own quality.
    """
    rules = [
        *RENAMES,
        *_head("iou_prediction_head", depth),
        *_head(r"output_hypernetworks_mlps", 3),
    ]
    found = renamed(weights, rules, IGNORED)
    if _GAUSSIAN in found:
        found[f"{_SAM}shared_image_embedding.positional_embedding"] = found[_GAUSSIAN]
    return found


def tower_weights(weights: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """The weights of a CLIP's vision half under our names; its text half is left out."""
    return renamed(weights, ((r"^(?:vision_model\.)?", _CLIP),), _OTHER_HALF)


def _head(name: str, depth: int) -> list[tuple[str, str]]:
    """SAM numbers a small network's layers; transformers names the first and the last."""
    head = rf"(mask_decoder\.{name}(?:\.\d+)?)\.layers"
    inner = [(rf"{head}\.{i}\.", rf"\1.inner.{i - 1}.") for i in range(1, depth - 1)]
    return [
        (rf"{head}\.0\.", r"\1.proj_in."),
        (rf"{head}\.{depth - 1}\.", r"\1.proj_out."),
        *inner,
        (rf"(mask_decoder\.{name}(?:\.\d+)?)\.inner\.", r"\1.layers."),
    ]
