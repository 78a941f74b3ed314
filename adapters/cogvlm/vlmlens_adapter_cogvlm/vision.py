"""The vision side: the EVA2-CLIP-E tower, the GLU adapter, and the rows around an image.

Modules have upstream's names, so paths and weights need no renaming.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.functional import silu
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.clip.modeling_clip import CLIPMLP
from transformers.models.llama.modeling_llama import eager_attention_forward


class CogVLMPatchEmbedding(nn.Module):
    """Patches in raster order after a CLS row, with learned positions for all."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        size = config.patch_size
        self.proj = nn.Conv2d(config.in_channels, config.hidden_size, size, stride=size)
        self.cls_embedding = nn.Parameter(torch.zeros(1, config.hidden_size))
        self.position_embedding = nn.Embedding(config.num_positions, config.hidden_size)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """`[images, 3, side, side]` -> `[images, 1 + patches, width]`."""
        patches = self.proj(pixel_values.to(self.proj.weight.dtype)).flatten(2).transpose(1, 2)
        first = self.cls_embedding.expand(len(patches), 1, -1)
        rows: torch.Tensor = torch.cat([first, patches], 1) + self.position_embedding.weight
        return rows


class CogVLMVisionAttention(nn.Module):
    """Attention of every row to every row, without positions."""

    is_causal = False
    num_key_value_groups = 1

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.num_heads = config.num_heads
        self.scaling = (config.hidden_size // config.num_heads) ** -0.5
        self.query_key_value = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.output_dropout = nn.Dropout(config.dropout_prob)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """`[images, rows, width]` -> the same."""
        fused = self.query_key_value(hidden).unflatten(-1, (3, self.num_heads, -1))
        query, key, value = fused.permute(2, 0, 3, 1, 4)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        mixed, _ = attend(self, query, key, value, None, scaling=self.scaling)
        output: torch.Tensor = self.output_dropout(self.dense(mixed.flatten(-2)))
        return output


class CogVLMVisionBlock(nn.Module):
    """A block whose norms follow attention and MLP, inside the residual branches."""

    norm_after = True

    def __init__(self, config: Any) -> None:
        super().__init__()
        width, epsilon = config.hidden_size, config.layer_norm_eps
        self.input_layernorm = nn.LayerNorm(width, eps=epsilon)
        self.attention = CogVLMVisionAttention(config)
        self.mlp = CLIPMLP(config)
        self.post_attention_layernorm = nn.LayerNorm(width, eps=epsilon)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """`[images, rows, width]` -> the same."""
        hidden = hidden + self.input_layernorm(self.attention(hidden))
        output: torch.Tensor = hidden + self.post_attention_layernorm(self.mlp(hidden))
        return output


class CogVLMVisionTransformer(nn.Module):
    """The blocks, one after the other; no norm follows them."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            CogVLMVisionBlock(config) for _ in range(config.num_hidden_layers)
        )

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """`[images, rows, width]` -> the same."""
        for layer in self.layers:
            hidden = layer(hidden)
        return hidden


class CogVLMProjector(nn.Module):
    """From the tower's width to the language model's: a linear layer, a norm, a gated MLP."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        width, inner = config.hidden_size, config.intermediate_size
        self.linear_proj = nn.Linear(config.vision_config.hidden_size, width, bias=False)
        self.norm1 = nn.LayerNorm(width)
        self.act1 = nn.GELU()
        self.dense_h_to_4h = nn.Linear(width, inner, bias=False)
        self.gate_proj = nn.Linear(width, inner, bias=False)
        self.dense_4h_to_h = nn.Linear(inner, width, bias=False)

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """`[images, patches, tower's width]` -> `[images, patches, width]`."""
        hidden = self.act1(self.norm1(self.linear_proj(patches)))
        gated = silu(self.gate_proj(hidden)) * self.dense_h_to_4h(hidden)
        output: torch.Tensor = self.dense_4h_to_h(gated)
        return output


class CogVLMVision(nn.Module):
    """From pixels to the rows of the language model's sequence.

    Args:
        config: A `CogVLMConfig`.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.patch_embedding = CogVLMPatchEmbedding(config.vision_config)
        self.transformer = CogVLMVisionTransformer(config.vision_config)
        self.linear_proj = CogVLMProjector(config)
        self.boi = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.eoi = nn.Parameter(torch.zeros(1, 1, config.hidden_size))

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """`[images, 3, side, side]` -> `[images, patches + 2, width]`: boi, patches, eoi."""
        tower = self.transformer(self.patch_embedding(pixel_values))
        rows = self.linear_proj(tower[:, 1:])
        ends = [row.to(rows.device).expand(len(rows), 1, -1) for row in (self.boi, self.eoi)]
        return torch.cat([ends[0], rows, ends[1]], 1)
