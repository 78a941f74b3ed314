"""Module paths of the original checkpoints' remote code, and what they are called today."""

from __future__ import annotations

from collections.abc import Sequence

from vlmlens.sites import Rename

_VISION = r"^model\.vision_tower\.encoder\.layer\.(?P<i>[^.]+)"
_BLOCK = r"^model\.language_model\.layers\.(?P<i>[^.]+)"

RENAMES: Sequence[Rename] = (
    Rename(r"^vision_model\.encoder\.layers(?=\.|$)", "model.vision_tower.encoder.layer"),
    Rename(r"^vision_model(?=\.|$)", "model.vision_tower"),
    Rename(r"\.embeddings\.patch_embedding$", ".embeddings.patch_embeddings.projection"),
    Rename(_VISION + r"\.norm1$", r"model.vision_tower.encoder.layer.\g<i>.layernorm_before"),
    Rename(_VISION + r"\.norm2$", r"model.vision_tower.encoder.layer.\g<i>.layernorm_after"),
    Rename(_VISION + r"\.mlp\.act$", r"model.vision_tower.encoder.layer.\g<i>.mlp.activation_fn"),
    Rename(
        _VISION + r"\.attn\.proj$",
        r"model.vision_tower.encoder.layer.\g<i>.attention.projection_layer",
    ),
    Rename(_VISION + r"\.attn(?=\.|$)", r"model.vision_tower.encoder.layer.\g<i>.attention"),
    Rename(r"^mlp1\.0$", "model.multi_modal_projector.layer_norm"),
    Rename(r"^mlp1\.1$", "model.multi_modal_projector.linear_1"),
    Rename(r"^mlp1\.2$", "model.multi_modal_projector.act"),
    Rename(r"^mlp1\.3$", "model.multi_modal_projector.linear_2"),
    Rename(r"^mlp1$", "model.multi_modal_projector"),
    Rename(r"^language_model\.(output|lm_head)$", "lm_head"),
    Rename(r"^language_model\.model\.tok_embeddings$", "model.language_model.embed_tokens"),
    Rename(r"^language_model\.model(?=\.|$)", "model.language_model"),
    Rename(_BLOCK + r"\.attention_norm$", r"model.language_model.layers.\g<i>.input_layernorm"),
    Rename(_BLOCK + r"\.ffn_norm$", r"model.language_model.layers.\g<i>.post_attention_layernorm"),
    Rename(_BLOCK + r"\.feed_forward\.w1$", r"model.language_model.layers.\g<i>.mlp.gate_proj"),
    Rename(_BLOCK + r"\.feed_forward\.w3$", r"model.language_model.layers.\g<i>.mlp.up_proj"),
    Rename(_BLOCK + r"\.feed_forward\.w2$", r"model.language_model.layers.\g<i>.mlp.down_proj"),
    Rename(_BLOCK + r"\.feed_forward(?=\.|$)", r"model.language_model.layers.\g<i>.mlp"),
    Rename(_BLOCK + r"\.attention\.wo$", r"model.language_model.layers.\g<i>.self_attn.o_proj"),
    Rename(_BLOCK + r"\.attention(?=\.|$)", r"model.language_model.layers.\g<i>.self_attn"),
)
"""Applied one on top of the other. The fused `attn.qkv` and `attention.wqkv` have no twin."""
