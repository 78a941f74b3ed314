"""Renames the weights of a checkpoint, and refuses those of related models."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from vlmlens.hf.weights import StoredTensor, renamed, stored_weights
from vlmlens.sites import Rename
from vlmlens_adapter_internlm_xcomposer.config import XComposerConfig, refusal

_RENAMES = (
    Rename(
        r"^(model\.layers\.\d+\.(?:attention\.w(?:qkv|o)|feed_forward\.w[123]))\.(weight|bias)$",
        r"\1.base.\2",
    ),
)
_IGNORED = (r"\.rotary_emb\.inv_freq$", r"\.embeddings\.position_ids$")
_PLACES = "vit.vision_tower.vision_model.embeddings.position_embedding.weight"
_FIRST = "model.layers.0.attention.wqkv"


def native_weights(
    model: str, config: XComposerConfig, arguments: Mapping[str, Any]
) -> Mapping[str, StoredTensor]:
    """A checkpoint's weights.

    Ranks of the branches without a scale are taken from the weights, and put into the config.

    Raises:
        CheckpointError: It is another model.
    """
    weights = renamed(stored_weights(model, arguments), _RENAMES, _IGNORED)
    check_kind(weights, config, model)
    for name in ("lora_sft", "lora_dpo", "lora_web"):
        down = weights.get(f"{_FIRST}.{name}_A.weight")
        if down is not None and len(down.shape) == 2:
            setattr(config, f"{name}_r", down.shape[0])
    return weights


def check_kind(weights: Mapping[str, StoredTensor], config: XComposerConfig, model: str) -> None:
    """Raise if the weights belong to a related model with the same config.json.

    Raises:
        CheckpointError: It is XComposer2 (no ends of views) or 4KHD (a tower of another size).
    """
    vision: Any = config.vision_config
    if _PLACES in weights:
        side = math.isqrt(weights[_PLACES].shape[0] - 1) * vision.patch_size
        if side != vision.image_size:
            raise refusal(
                model, f"has a vision tower for {side} pixels, not for {vision.image_size}"
            )
    if "plora_glb_GN" not in weights:
        raise refusal(model, "has no plora_glb_GN, so that it does not cut images into tiles")
