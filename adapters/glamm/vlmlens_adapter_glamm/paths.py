"""GLaMM's sites, and the module paths of upstream's code."""

from __future__ import annotations

from collections.abc import Sequence

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

RENAMES: Sequence[Rename] = (
    Rename(r"^model\.(layers|norm|embed_tokens|rotary_emb)(?=\.|$)", r"model.language_model.\1"),
    Rename(rf"^{_TOWER}\.vision_model(?=\.|$)", _TOWER),
    Rename(r"^model\.grounding_encoder\.image_encoder(?=\.|$)", _IMAGES),
    Rename(rf"^{_IMAGES}\.patch_embed\.proj$", f"{_IMAGES}.patch_embed.projection"),
    Rename(rf"^{_IMAGES}\.blocks(?=\.|$)", f"{_IMAGES}.layers"),
    Rename(rf"^{_IMAGES}\.layers\.([^.]+)\.norm([12])$", rf"{_IMAGES}.layers.\1.layer_norm\2"),
    Rename(rf"^{_IMAGES}\.neck\.0$", f"{_IMAGES}.neck.conv1"),
    Rename(rf"^{_IMAGES}\.neck\.1$", f"{_IMAGES}.neck.layer_norm1"),
    Rename(rf"^{_IMAGES}\.neck\.2$", f"{_IMAGES}.neck.conv2"),
    Rename(rf"^{_IMAGES}\.neck\.3$", f"{_IMAGES}.neck.layer_norm2"),
    Rename(
        rf"^{_MASKS}\.transformer\.layers\.([^.]+)\.norm([1-4])$",
        rf"{_MASKS}.transformer.layers.\1.layer_norm\2",
    ),
    Rename(
        rf"^{_MASKS}\.transformer\.norm_final_attn$", f"{_MASKS}.transformer.layer_norm_final_attn"
    ),
    Rename(rf"^{_MASKS}\.output_upscaling\.0$", f"{_MASKS}.upscale_conv1"),
    Rename(rf"^{_MASKS}\.output_upscaling\.1$", f"{_MASKS}.upscale_layer_norm"),
    Rename(rf"^{_MASKS}\.output_upscaling\.3$", f"{_MASKS}.upscale_conv2"),
    Rename(
        rf"^{_MASKS}\.(iou_prediction_head|output_hypernetworks_mlps\.[^.]+)\.layers\.0$",
        rf"{_MASKS}.\1.proj_in",
    ),
    Rename(
        rf"^{_MASKS}\.(iou_prediction_head|output_hypernetworks_mlps\.[^.]+)\.layers\.2$",
        rf"{_MASKS}.\1.proj_out",
    ),
)
"""What upstream's modules are called here; applied in order, one on top of the other."""

HIDDEN = rf"^{_MASKS}\.(iou_prediction_head|output_hypernetworks_mlps\.\d+)\.layers(\.|$)"
"""Modules that upstream's paths must not find: its `layers.0` is `proj_in`, another module."""

WITHOUT_AXIS: Sequence[str] = (
    _MASKS,
    "model.grounding_encoder.prompt_encoder",
    "model.grounding_encoder.shared_image_embedding",
    "model.region_encoder",
)
"""Modules whose rows are objects or boxes; no selector applies to them."""
