"""Weights of the original layout under the names and in the shapes of the transformers class."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from vlmlens.hf.weights import StoredTensor, concatenated

_RENAMES = (
    (r"^vision_model\.embeddings\.class_embedding$", "{vision}embeddings.cls_token"),
    (r"^vision_model\.embeddings\.position_embedding$", "{vision}embeddings.position_embeddings"),
    (
        r"^vision_model\.embeddings\.patch_embedding\.",
        "{vision}embeddings.patch_embeddings.projection.",
    ),
    (r"^vision_model\.encoder\.layers\.", "{vision}encoder.layer."),
    (r"(encoder\.layer\.\d+)\.attn\.proj\.", r"\1.attention.projection_layer."),
    (r"(encoder\.layer\.\d+)\.attn\.", r"\1.attention."),
    (r"(encoder\.layer\.\d+)\.norm1\.", r"\1.layernorm_before."),
    (r"(encoder\.layer\.\d+)\.norm2\.", r"\1.layernorm_after."),
    (r"(encoder\.layer\.\d+)\.ls1$", r"\1.lambda_1"),
    (r"(encoder\.layer\.\d+)\.ls2$", r"\1.lambda_2"),
    (r"^mlp1\.0\.", "model.multi_modal_projector.layer_norm."),
    (r"^mlp1\.1\.", "model.multi_modal_projector.linear_1."),
    (r"^mlp1\.3\.", "model.multi_modal_projector.linear_2."),
    (r"^language_model\.(?:output|lm_head)\.", "lm_head."),
    (r"^language_model\.model\.", "model.language_model."),
    (r"(language_model)\.tok_embeddings\.", r"\1.embed_tokens."),
    (r"(language_model\.layers\.\d+)\.attention_norm\.", r"\1.input_layernorm."),
    (r"(language_model\.layers\.\d+)\.ffn_norm\.", r"\1.post_attention_layernorm."),
    (r"(language_model\.layers\.\d+)\.feed_forward\.w1\.", r"\1.mlp.gate_proj."),
    (r"(language_model\.layers\.\d+)\.feed_forward\.w3\.", r"\1.mlp.up_proj."),
    (r"(language_model\.layers\.\d+)\.feed_forward\.w2\.", r"\1.mlp.down_proj."),
    (r"(language_model\.layers\.\d+)\.attention\.wo\.", r"\1.self_attn.o_proj."),
    (r"(language_model\.layers\.\d+)\.attention\.", r"\1.self_attn."),
)


def native_weights(
    name: str, tensor: StoredTensor, text_config: Any
) -> Iterator[tuple[str, StoredTensor]]:
    """What one tensor of the original layout becomes; unknown names stay as they are.

    Args:
        name: Its name in the checkpoint.
        tensor: Its value.
        text_config: The language model's config, for the number of heads.
    """
    if name.endswith(".rotary_emb.inv_freq"):
        return
    renamed = native_name(name)
    if ".attention.qkv." in renamed:
        third = tensor.shape[0] // 3
        parts = tuple(tensor.rows(i * third, (i + 1) * third) for i in range(3))
    elif ".self_attn.wqkv." in renamed:
        parts = _ungrouped(tensor, text_config)
    else:
        yield renamed, tensor
        return
    for letter, part in zip("qkv", parts, strict=True):
        yield re.sub(r"\.w?qkv\.", f".{letter}_proj.", renamed), part


def native_name(name: str) -> str:
    """The name of a parameter in the transformers class; fused ones keep `qkv` in it."""
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement.replace("{vision}", "model.vision_tower."), name)
    return name


def _ungrouped(fused: StoredTensor, text_config: Any) -> tuple[StoredTensor, ...]:
    """Query, key and value rows of InternLM2's fused matrix.

    Per key-value head its rows hold the query heads that share it, then the key, then the value.
    """
    groups = int(text_config.num_key_value_heads)
    shared = int(text_config.num_attention_heads) // groups
    head = fused.shape[0] // (groups * (shared + 2))
    step = (shared + 2) * head
    cuts = ((0, shared * head), (shared * head, step - head), (step - head, step))
    return tuple(
        concatenated([fused.rows(i * step + a, i * step + b) for i in range(groups)])
        for a, b in cuts
    )
