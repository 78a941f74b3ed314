"""The language model: Llama layers with separate weights for image rows.

Every position goes through one of two experts, for the projections of attention and for the MLP;
attention itself and the norms are shared. An expert gets only its own rows, as in upstream's code:
its modules output `[rows, width]`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import (
    LlamaMLP,
    apply_rotary_pos_emb,
    eager_attention_forward,
)
from transformers.models.olmo2.modeling_olmo2 import Olmo2RMSNorm


class CogVLMAttention(nn.Module):
    """Causal attention over text and image rows alike, with projections per expert."""

    is_causal = True
    num_key_value_groups = 1

    def __init__(self, config: Any, layer_idx: int) -> None:
        super().__init__()
        self.config, self.layer_idx = config, layer_idx
        self.num_heads = config.num_attention_heads
        self.head_dim = config.hidden_size // self.num_heads
        self.scaling = self.head_dim**-0.5
        width = config.hidden_size
        self.joined_heads = nn.Identity()  # so that heads have one site before both experts
        self.vision_expert_query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.vision_expert_dense = nn.Linear(width, width, bias=False)
        self.language_expert_query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.language_expert_dense = nn.Linear(width, width, bias=False)

    def forward(
        self,
        hidden: torch.Tensor,
        image: torch.Tensor,
        rotation: tuple[torch.Tensor, torch.Tensor],
        attention_mask: torch.Tensor | None,
        past_key_values: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The mixed rows and, with eager attention, the weights `[samples, heads, rows, seen]`.

        Args:
            hidden: `[samples, rows, width]`.
            image: bool `[samples, rows]`, which rows take the vision expert.
            rotation: Cosines and sines of the rows' positions.
            attention_mask: From `create_causal_mask`.
            past_key_values: transformers' cache, or None.
        """
        fused = routed(
            hidden, image, self.vision_expert_query_key_value, self.language_expert_query_key_value
        )
        query, key, value = fused.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        query, key = apply_rotary_pos_emb(query, key, *rotation)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        mixed, weights = attend(self, query, key, value, attention_mask, scaling=self.scaling)
        mixed = self.joined_heads(mixed.flatten(-2))
        return routed(mixed, image, self.vision_expert_dense, self.language_expert_dense), weights


class CogVLMExperts(nn.Module):
    """Two MLPs; each row goes through one of them."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.language_mlp = LlamaMLP(config)
        self.vision_mlp = LlamaMLP(config)

    def forward(self, hidden: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """`[samples, rows, width]` -> the same; `image` as for attention."""
        return routed(hidden, image, self.vision_mlp, self.language_mlp)


class CogVLMDecoderLayer(nn.Module):
    """Attention and MLP, each behind a norm that both experts share."""

    def __init__(self, config: Any, layer_idx: int) -> None:
        super().__init__()
        width, epsilon = config.hidden_size, config.rms_norm_eps
        self.self_attn = CogVLMAttention(config, layer_idx)
        self.mlp = CogVLMExperts(config)
        self.input_layernorm = Olmo2RMSNorm(width, eps=epsilon)
        self.post_attention_layernorm = Olmo2RMSNorm(width, eps=epsilon)

    def forward(
        self,
        hidden: torch.Tensor,
        image: torch.Tensor,
        rotation: tuple[torch.Tensor, torch.Tensor],
        attention_mask: torch.Tensor | None,
        past_key_values: Any,
    ) -> torch.Tensor:
        """`[samples, rows, width]` -> the same; arguments: see `CogVLMAttention`."""
        normed = self.input_layernorm(hidden)
        mixed, _ = self.self_attn(normed, image, rotation, attention_mask, past_key_values)
        hidden = hidden + mixed
        output: torch.Tensor = hidden + self.mlp(self.post_attention_layernorm(hidden), image)
        return output


def routed(
    hidden: torch.Tensor, image: torch.Tensor, vision: nn.Module, language: nn.Module
) -> torch.Tensor:
    """Each row through its expert.

    Args:
        hidden: `[samples, rows, width]`.
        image: bool `[samples, rows]`, which rows take `vision`.
        vision: `[rows, width] -> [rows, other width]`; called even where no row takes it.
        language: Likewise, for all other rows.
    """
    seen, said = vision(hidden[image]), language(hidden[~image])
    output: torch.Tensor = said.new_empty(*hidden.shape[:-1], said.shape[-1])
    output[image], output[~image] = seen, said
    return output
