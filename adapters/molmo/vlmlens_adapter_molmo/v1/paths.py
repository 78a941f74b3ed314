"""Module paths of upstream's code, which VLM-Lens users know, and what they are called here."""

from __future__ import annotations

from collections.abc import Sequence

from vlmlens.sites import Rename
from vlmlens_adapter_molmo.v1.keys import norm_names

_BLOCK = r"^model\.transformer\.blocks\.(?P<i>[^.]+)"
_LAYER = r"model.language_model.layers.\g<i>"
_RESBLOCK = r"^model\.vision_backbone\.image_vit\.transformer\.resblocks\.(?P<i>[^.]+)"
_TOWER = r"model.vision_tower.layers.\g<i>"


def renames(norm_after: bool) -> Sequence[Rename]:
    """The renames of a checkpoint.

    The two norms of a block are not called the same in all language models, and a wrong one would
    be found without an error; so these depend on the checkpoint.

    Args:
        norm_after: Whether they stand after their networks (7B-O).
    """
    attention, feed_forward = norm_names(norm_after)
    return (
        Rename(_BLOCK + r"(\.attn)?\.attn_norm$", f"{_LAYER}.{attention}"),
        Rename(_BLOCK + r"(\.mlp)?\.ff_norm$", f"{_LAYER}.{feed_forward}"),
        Rename(_BLOCK + r"(?:\.attn)?\.(att_proj|q_norm|k_norm)$", _LAYER + r".self_attn.\2"),
        Rename(_BLOCK + r"(\.attn)?\.attn_out$", f"{_LAYER}.self_attn.o_proj"),
        Rename(_BLOCK + r"\.(ff_proj|act)$", _LAYER + r".mlp.\2"),
        Rename(_BLOCK + r"\.ff_out$", f"{_LAYER}.mlp.down_proj"),
        Rename(_BLOCK + r"\.attn$", f"{_LAYER}.self_attn"),
        Rename(_BLOCK + r"\.mlp(\.gate)?$", _LAYER + r".mlp\2"),
        Rename(_BLOCK + "$", _LAYER),
        Rename(r"^model\.transformer\.ln_f$", "model.language_model.norm"),
        Rename(r"^model\.transformer\.wte$", "model.language_model.embed_tokens"),
        Rename(r"^model\.transformer\.ff_out$", "lm_head"),
        Rename(_RESBLOCK + r"\.attention(?=\.|$)", f"{_TOWER}.self_attn"),
        Rename(_RESBLOCK + r"\.attention_norm$", f"{_TOWER}.layer_norm1"),
        Rename(_RESBLOCK + r"\.ffn_norm$", f"{_TOWER}.layer_norm2"),
        Rename(_RESBLOCK + r"\.feed_forward\.w1$", f"{_TOWER}.mlp.fc1"),
        Rename(_RESBLOCK + r"\.feed_forward\.w2$", f"{_TOWER}.mlp.fc2"),
        Rename(_RESBLOCK + r"\.feed_forward\.act$", f"{_TOWER}.mlp.activation_fn"),
        Rename(_RESBLOCK + r"\.feed_forward$", f"{_TOWER}.mlp"),
        Rename(_RESBLOCK + "$", _TOWER),
        Rename(
            r"^model\.vision_backbone\.image_vit\.(patch_embedding|pre_ln)$",
            r"model.vision_tower.\1",
        ),
        Rename(
            r"^model\.vision_backbone\.(image_pooling_2d|image_projector)(?=\.|$)",
            r"model.multi_modal_projector.\1",
        ),
        Rename(r"^model\.vision_backbone$", "model.multi_modal_projector"),
    )
