"""Weights of the original layout under the names and in the shapes of the transformers class."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from vlmlens.hf.renames import native_name
from vlmlens.hf.weights import StoredTensor, concatenated
from vlmlens.sites import Rename
from vlmlens_adapter_internvl.paths import RENAMES

_RENAMES = (
    *RENAMES,
    Rename(r"\.embeddings\.class_embedding$", ".embeddings.cls_token"),
    Rename(r"\.embeddings\.position_embedding$", ".embeddings.position_embeddings"),
    Rename(r"(encoder\.layer\.\d+)\.ls([12])$", r"\1.lambda_\2"),
)


def native_weights(
    name: str, tensor: StoredTensor, text_config: Any
) -> Iterator[tuple[str, StoredTensor]]:
    """The native tensors of one tensor in the original layout; unknown names are kept.

    Args:
        name: Its name in the checkpoint.
        tensor: Its value.
        text_config: The language model's config, for the number of heads.
    """
    if name.endswith(".rotary_emb.inv_freq"):
        return
    renamed = native_name(name, _RENAMES)
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
