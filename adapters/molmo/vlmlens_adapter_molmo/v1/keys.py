"""Renames weights to our modules' names, fused matrices included, and joins experts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch

from vlmlens.hf.weights import StoredTensor, concatenated, renamed
from vlmlens_adapter_molmo.v1.paths import renames

_EXPERT = re.compile(
    r"model\.transformer\.blocks\.(\d+)\.mlp\.experts\.(\d+)\.(gate|up|down)_proj\.weight"
)
_TABLE = "model.transformer.wte."


def native_weights(
    weights: Mapping[str, StoredTensor], config: Any, dtype: torch.dtype | None
) -> dict[str, StoredTensor]:
    """A checkpoint's weights by our state dict's names; unknown names are kept.

    Args:
        weights: By upstream's names.
        config: Of the model.
        dtype: Of the joined experts and embedding table; None: as they are stored.
    """
    plain = {name: tensor for name, tensor in weights.items() if not _EXPERT.fullmatch(name)}
    whole = {**_with_table(plain, dtype), **_experts(weights, dtype)}
    return renamed(whole, renames(config.text_config.model_type == "olmo2"))


def _with_table(
    weights: dict[str, StoredTensor], dtype: torch.dtype | None
) -> dict[str, StoredTensor]:
    """The weights with one embedding table, the additional tokens at its end."""
    parts = [weights.get(_TABLE + name) for name in ("embedding", "new_embedding")]
    found = [part for part in parts if part is not None]
    if len(found) < len(parts) or found[0].shape[1:] != found[1].shape[1:]:
        return weights
    rest = {name: tensor for name, tensor in weights.items() if not name.startswith(_TABLE)}
    table = concatenated(found, dtype=dtype)
    return {**rest, "model.language_model.embed_tokens.weight": table}


def _experts(
    weights: Mapping[str, StoredTensor], dtype: torch.dtype | None
) -> dict[str, StoredTensor]:
    """The experts of each layer as transformers has them: all gates and ups, and all downs.

    If one is missing or has another shape, they are not joined.
    """
    layers: dict[int, dict[tuple[int, str], tuple[str, StoredTensor]]] = {}
    for name, tensor in weights.items():
        if match := _EXPERT.fullmatch(name):
            layer, expert, part = int(match[1]), int(match[2]), match[3]
            layers.setdefault(layer, {})[expert, part] = (name, tensor)
    found: dict[str, StoredTensor] = {}
    for layer, experts in layers.items():
        number = 1 + max(expert for expert, _ in experts)
        head = f"model.language_model.layers.{layer}.mlp.experts."
        for name, parts in (("gate_up_proj", ("gate", "up")), ("down_proj", ("down",))):
            wanted = [(expert, part) for expert in range(number) for part in parts]
            known = [experts[place] for place in wanted if place in experts]
            tensors = [tensor for _, tensor in known]
            if len(known) < len(wanted) or len({tensor.shape for tensor in tensors}) > 1:
                found.update(known)
                continue
            rows, *rest = tensors[0].shape
            shape = (number, rows * len(parts), *rest)
            found[head + name] = concatenated(tensors, shape, dtype)
    return found
