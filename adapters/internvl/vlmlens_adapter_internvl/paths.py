"""Renames module paths of the original checkpoints' remote code to today's."""

from __future__ import annotations

from collections.abc import Sequence

from vlmlens.hf.renames import renames_below
from vlmlens.sites import Rename

RENAMES: Sequence[Rename] = (
    Rename(r"^vision_model\.encoder\.layers(?=\.|$)", "model.vision_tower.encoder.layer"),
    Rename(r"^vision_model(?=\.|$)", "model.vision_tower"),
    Rename(r"\.embeddings\.patch_embedding(?=\.|$)", ".embeddings.patch_embeddings.projection"),
    *renames_below("model.vision_tower.encoder.layer.{i}", {
        "norm1": "layernorm_before", "norm2": "layernorm_after", "mlp.act": "mlp.activation_fn",
        "attn.proj": "attention.projection_layer", "attn": "attention",
    }),
    *renames_below(
        "mlp1", {"0": "layer_norm", "1": "linear_1", "2": "act", "3": "linear_2"},
        "model.multi_modal_projector",
    ),
    Rename(r"^mlp1$", "model.multi_modal_projector"),
    Rename(r"^language_model\.(output|lm_head)(?=\.|$)", "lm_head"),
    Rename(r"^language_model\.model(?=\.|$)", "model.language_model"),
    Rename(r"^(model\.language_model)\.tok_embeddings(?=\.|$)", r"\1.embed_tokens"),
    *renames_below("model.language_model.layers.{i}", {
        "attention_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
        "feed_forward.w1": "mlp.gate_proj", "feed_forward.w3": "mlp.up_proj",
        "feed_forward.w2": "mlp.down_proj", "feed_forward": "mlp",
        "attention.wo": "self_attn.o_proj", "attention": "self_attn",
    }),
)  # fmt: skip
"""Of modules and weights; applied in order. The fused `attn.qkv` and `wqkv` have no twin."""
