"""Renames the weights of GLaMM and of its CLIP tower to our modules' names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vlmlens.hf.weights import StoredTensor, renamed
from vlmlens.sites import Rename
from vlmlens_adapter_glamm.paths import SHARED_RENAMES

_SAM = "model.grounding_encoder."
_GAUSSIAN = f"{_SAM}prompt_encoder.shared_embedding.positional_embedding"

IGNORED: Sequence[str] = (r"\.rotary_emb\.inv_freq$",)
"""Angles that old transformers stored; they follow from the config."""

_CLIP = "model.vision_tower.vision_tower."
_OTHER_HALF = (
    r"^text_model\.", r"^(text|visual)_projection\.", r"^logit_scale$",
    r"\.embeddings\.position_ids$",
)  # fmt: skip


def glamm_weights(weights: Mapping[str, StoredTensor], depth: int) -> dict[str, StoredTensor]:
    """The weights of a GLaMM checkpoint under our names.

    SAM's random position matrix appears twice in transformers' class.

    Args:
        weights: By the names of the checkpoint.
        depth: Number of linear layers in the mask decoder's quality head.
    """
    rules = [
        *SHARED_RENAMES,
        *_head("iou_prediction_head", depth),
        *_head(r"output_hypernetworks_mlps", 3),
    ]
    found = renamed(weights, rules, IGNORED)
    if _GAUSSIAN in found:
        found[f"{_SAM}shared_image_embedding.positional_embedding"] = found[_GAUSSIAN]
    return found


def tower_weights(weights: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """The weights of a CLIP's vision tower under our names, without its text tower."""
    return renamed(weights, [Rename(r"^(?:vision_model\.)?", _CLIP)], _OTHER_HALF)


def _head(name: str, depth: int) -> list[Rename]:
    """SAM numbers a small network's layers; transformers names the first and the last."""
    head = rf"(mask_decoder\.{name}(?:\.\d+)?)\.layers"
    inner = [Rename(rf"{head}\.{i}\.", rf"\1.inner.{i - 1}.") for i in range(1, depth - 1)]
    return [
        Rename(rf"{head}\.0\.", r"\1.proj_in."),
        Rename(rf"{head}\.{depth - 1}\.", r"\1.proj_out."),
        *inner,
        Rename(rf"(mask_decoder\.{name}(?:\.\d+)?)\.inner\.", r"\1.layers."),
    ]
