"""Molmo's language models: transformers' Qwen2, Olmo2 and Olmoe, with fused projections.

Upstream projects queries, keys and values in one matrix (`att_proj`), and the two halves of the
feed-forward network in another (`ff_proj`). They stay fused, so that their outputs can be read and
edited; `q_proj`, `gate_proj` and so on give their columns, and the rest is transformers' own.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import torch
from torch import nn
from torch.nn.functional import silu
from transformers import Olmo2Model, OlmoeModel, PreTrainedConfig, PreTrainedModel, Qwen2Model
from transformers.models.olmo2.modeling_olmo2 import Olmo2Attention
from transformers.models.olmoe.modeling_olmoe import OlmoeAttention
from transformers.models.qwen2.modeling_qwen2 import Qwen2Attention


class Columns(nn.Module):
    """Some columns of a fused projection's output.

    Args:
        start: The first.
        stop: The one after the last.
    """

    def __init__(self, start: int, stop: int) -> None:
        super().__init__()
        self.start, self.out_features = start, stop - start

    def forward(self, fused: torch.Tensor) -> torch.Tensor:
        """`[..., stop - start]` of `[..., columns]`."""
        return fused.narrow(-1, self.start, self.out_features)


class _Fused(nn.Module):
    """A transformers attention with one fused projection; list it first in the bases."""

    q_proj: Any
    k_proj: Any
    v_proj: Any

    def __init__(self, config: PreTrainedConfig, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        parts = (self.q_proj, self.k_proj, self.v_proj)
        ends = list(accumulate(part.out_features for part in parts))
        bias = self.q_proj.bias is not None
        self.att_proj = nn.Linear(self.q_proj.in_features, ends[-1], bias=bias)
        self.q_proj = Columns(0, ends[0])
        self.k_proj = Columns(ends[0], ends[1])
        self.v_proj = Columns(ends[1], ends[2])

    def forward(self, hidden_states: torch.Tensor, **kwargs: Any) -> Any:
        """As in transformers, which only projects `hidden_states`."""
        return super().forward(self.att_proj(hidden_states), **kwargs)


class MolmoQwen2Attention(_Fused, Qwen2Attention):  # type: ignore[misc]
    """7B-D and 72B: biases, and fewer heads of keys and values."""


class MolmoOlmo2Attention(_Fused, Olmo2Attention):  # type: ignore[misc]
    """7B-O: queries and keys are normed over all heads."""


class MolmoOlmoeAttention(_Fused, OlmoeAttention):  # type: ignore[misc]
    """MolmoE: likewise."""


class Gated(nn.Module):
    """`silu(gate) * up`."""

    def forward(self, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        """`[..., width]` of two of the same shape."""
        return silu(gate) * up


class MolmoMLP(nn.Module):
    """A gated feed-forward network; of the fused projection the second half is the gate."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.ff_proj = nn.Linear(width, 2 * inner, bias=False)
        self.up_proj = Columns(0, inner)
        self.gate_proj = Columns(inner, 2 * inner)
        self.act = Gated()
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """`[..., width]` of the same shape."""
        fused = self.ff_proj(hidden)
        inner: torch.Tensor = self.act(self.gate_proj(fused), self.up_proj(fused))
        out: torch.Tensor = self.down_proj(inner)
        return out


_CLASSES: dict[str, tuple[type[Any], type[Any]]] = {
    "qwen2": (Qwen2Model, MolmoQwen2Attention),
    "olmo2": (Olmo2Model, MolmoOlmo2Attention),
    "olmoe": (OlmoeModel, MolmoOlmoeAttention),
}


def language_model(config: Any) -> PreTrainedModel:
    """The model of a text config, of transformers, with the projections fused."""
    model_class, attention_class = _CLASSES[config.model_type]
    model: Any = model_class(config)
    for i, layer in enumerate(model.layers):
        layer.self_attn = attention_class(config, i)
        if config.model_type != "olmoe":
            layer.mlp = MolmoMLP(config.hidden_size, config.intermediate_size)
    found: PreTrainedModel = model
    return found
