"""Renames module paths of upstream's code (known to VLM-Lens users) to ours."""

from __future__ import annotations

from collections.abc import Sequence

from vlmlens.hf.renames import renames_below
from vlmlens.sites import Rename


def renames(norm_after: bool) -> Sequence[Rename]:
    """The renames of a checkpoint, of modules and weights.

    The two norms of a block are not called the same in all language models, and a wrong one would
    be found without an error; so these depend on the checkpoint.

    Args:
        norm_after: Whether they stand after their networks (7B-O).
    """
    if norm_after:
        attention, feed_forward = "post_attention_layernorm", "post_feedforward_layernorm"
    else:
        attention, feed_forward = "input_layernorm", "post_attention_layernorm"
    block, layer = "model.transformer.blocks.{i}", "model.language_model.layers.{i}"
    tower = "model.vision_backbone.image_vit"
    return (
        *renames_below(block, {
            "(?:attn.)?attn_norm": attention, "(?:mlp.)?ff_norm": feed_forward,
            "(?:attn.)?(att_proj|q_norm|k_norm)": r"self_attn.\2",
            "(?:attn.)?attn_out": "self_attn.o_proj",
            "(ff_proj|act)": r"mlp.\2", "ff_out": "mlp.down_proj", "attn": "self_attn",
            "mlp.gate": "mlp.gate",
        }, layer),
        Rename(
            r"^model\.transformer\.blocks\.([^.]+)\.mlp$", r"model.language_model.layers.\1.mlp"
        ),
        Rename(r"^model\.transformer\.blocks\.([^.]+)$", r"model.language_model.layers.\1"),
        Rename(r"^model\.transformer\.ln_f(?=\.|$)", "model.language_model.norm"),
        Rename(r"^model\.transformer\.wte$", "model.language_model.embed_tokens"),
        Rename(r"^model\.transformer\.ff_out(?=\.|$)", "lm_head"),
        *renames_below(tower + ".transformer.resblocks.{i}", {
            "attention": "self_attn", "attention_norm": "layer_norm1", "ffn_norm": "layer_norm2",
            "feed_forward.w1": "mlp.fc1", "feed_forward.w2": "mlp.fc2",
            "feed_forward.act": "mlp.activation_fn", "feed_forward": "mlp",
        }, "model.vision_tower.layers.{i}"),
        Rename(rf"^{tower}\.transformer\.resblocks\.([^.]+)$", r"model.vision_tower.layers.\1"),
        Rename(rf"^{tower}\.([^.]+)(?=\.|$)", r"model.vision_tower.\1"),
        Rename(r"^model\.vision_backbone(?=\.|$)", "model.multi_modal_projector"),
    )  # fmt: skip
