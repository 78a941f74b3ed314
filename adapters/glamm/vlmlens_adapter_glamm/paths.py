"""GLaMM's sites, and the module paths of upstream's code."""

from __future__ import annotations

from collections.abc import Sequence

from vlmlens.hf.renames import renames_below
from vlmlens.sites import Axis, Rename, SiteTemplate

GROUNDING_BLOCK = "grounding.block."
GROUNDING_PROJECTOR = "grounding.projector"
_TOWER = "model.vision_tower.vision_tower"
_IMAGES = "model.grounding_encoder.vision_encoder"
_MASKS = "model.grounding_encoder.mask_decoder"

TEMPLATES: Sequence[SiteTemplate] = (
    SiteTemplate("vision.block.{i}", (f"{_TOWER}.encoder.layers.{{i}}",), Axis.VISION),
    SiteTemplate("projector", ("model.mm_projector",), Axis.PROJECTOR),
    SiteTemplate("llm.embed", ("model.language_model.embed_tokens",), Axis.LLM),
    SiteTemplate("llm.block.{i}", ("model.language_model.layers.{i}",), Axis.LLM),
    SiteTemplate("llm.norm", ("model.language_model.norm",), Axis.LLM),
    SiteTemplate("llm.head", ("lm_head",), Axis.LLM),
    SiteTemplate(GROUNDING_BLOCK + "{i}", (f"{_IMAGES}.layers.{{i}}",), Axis.VISION),
    SiteTemplate(GROUNDING_PROJECTOR, ("model.text_hidden_fcs.0",), Axis.LLM),
)

SHARED_RENAMES: Sequence[Rename] = (
    Rename(r"^model\.(layers|norm|embed_tokens|rotary_emb)(?=\.|$)", r"model.language_model.\1"),
    Rename(r"^model\.grounding_encoder\.image_encoder(?=\.|$)", _IMAGES),
    *renames_below(_IMAGES, {
        "patch_embed.proj": "patch_embed.projection",
        "blocks": "layers",
        "layers.{i}.norm([12])": r"layers.{i}.layer_norm\2",
        "neck.0": "neck.conv1", "neck.1": "neck.layer_norm1",
        "neck.2": "neck.conv2", "neck.3": "neck.layer_norm2",
    }),
    *renames_below("model.grounding_encoder.prompt_encoder", {
        "pe_layer.positional_encoding_gaussian_matrix": "shared_embedding.positional_embedding",
        "point_embeddings": "point_embed",
        "mask_downscaling.0": "mask_embed.conv1", "mask_downscaling.1": "mask_embed.layer_norm1",
        "mask_downscaling.3": "mask_embed.conv2", "mask_downscaling.4": "mask_embed.layer_norm2",
        "mask_downscaling.6": "mask_embed.conv3",
    }),
    *renames_below(_MASKS, {
        "transformer.layers.{i}.norm([1-4])": r"transformer.layers.{i}.layer_norm\2",
        "transformer.norm_final_attn": "transformer.layer_norm_final_attn",
        "output_upscaling.0": "upscale_conv1", "output_upscaling.1": "upscale_layer_norm",
        "output_upscaling.3": "upscale_conv2",
    }),
)  # fmt: skip
"""What upstream's modules and weights are called here; applied in order."""

_HEADS = r"(iou_prediction_head|output_hypernetworks_mlps\.[^.]+)"
RENAMES: Sequence[Rename] = (
    *SHARED_RENAMES,
    Rename(rf"^{_TOWER}\.vision_model(?=\.|$)", _TOWER),
    Rename(rf"^{_MASKS}\.{_HEADS}\.layers\.0$", rf"{_MASKS}.\1.proj_in"),
    Rename(rf"^{_MASKS}\.{_HEADS}\.layers\.2$", rf"{_MASKS}.\1.proj_out"),
)
"""Those of modules. Weights depend on how many layers the heads have."""

HIDDEN = rf"^{_MASKS}\.(iou_prediction_head|output_hypernetworks_mlps\.\d+)\.layers(\.|$)"
"""Modules that upstream's paths must not find: its `layers.0` is `proj_in`, another module."""

WITHOUT_AXIS: Sequence[str] = (
    _MASKS,
    "model.grounding_encoder.prompt_encoder",
    "model.grounding_encoder.shared_image_embedding",
    "model.region_encoder",
)
"""Modules whose rows are objects or boxes; no selector applies to them."""
