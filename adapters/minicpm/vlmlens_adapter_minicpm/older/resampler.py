"""The resampler: learned queries read the patches of a slice by cross-attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.functional import linear, pad
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.idefics2.modeling_idefics2 import eager_attention_forward

from vlmlens_adapter_minicpm.older.config import HEAD
from vlmlens_adapter_minicpm.older.towers import Size, real_rows

_EPSILON = 1e-6
_BASE = 10000.0


class ResamplerAttention(nn.Module):
    """Attention of queries to patches, with weights as torch's `MultiheadAttention` stores them.

    Slices come first in its tensors, as everywhere else; upstream has them second.
    """

    is_causal = False

    def __init__(self, config: Any, width: int) -> None:
        super().__init__()
        self.config, self.heads, self.scaling = config, width // HEAD, HEAD**-0.5
        self.in_proj_weight = nn.Parameter(torch.zeros(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
    ) -> torch.Tensor:
        """The output of each query, `[slices, queries, width]`.

        Args:
            query: `[slices, queries, width]`.
            key: `[slices, patches, width]`.
            value: Likewise.
            mask: From `create_bidirectional_mask`.
        """
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        parts = [
            linear(part, weight, bias).unflatten(-1, (self.heads, HEAD)).transpose(1, 2)
            for part, weight, bias in zip((query, key, value), weights, biases, strict=True)
        ]
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        mixed, _ = attend(self, *parts, mask, scaling=self.scaling)
        output: torch.Tensor = self.out_proj(mixed.flatten(-2))
        return output


class Resampler(nn.Module):
    """Turns a slice of any shape into a fixed number of tokens.

    Args:
        config: The model's.
        placed: Whether the queries have positions of their own (2).
    """

    def __init__(self, config: Any, *, placed: bool) -> None:
        super().__init__()
        width, wide = config.text_config.hidden_size, config.vision_config.hidden_size
        self.config = config.text_config
        self.query = nn.Parameter(torch.zeros(config.query_num, width))
        self.pos_embed = nn.Parameter(torch.zeros(config.query_num, width)) if placed else None
        self.kv_proj = nn.Linear(wide, width, bias=False)
        self.attn = ResamplerAttention(config.text_config, width)
        self.ln_q = nn.LayerNorm(width, eps=_EPSILON)
        self.ln_kv = nn.LayerNorm(width, eps=_EPSILON)
        self.ln_post = nn.LayerNorm(width, eps=_EPSILON)
        self.proj = nn.Parameter(torch.zeros(width, width))

    def forward(self, features: torch.Tensor, sizes: Sequence[Size]) -> torch.Tensor:
        """Tokens `[slices, queries, width]`.

        Args:
            features: `[slices, patches, vision width]`, filled up on the right.
            sizes: Of each slice.
        """
        values = self.ln_kv(self.kv_proj(features))
        length, width = values.shape[1:]
        places = [
            pad(sine_table(*size, width), (0, 0, 0, length - size[0] * size[1])) for size in sizes
        ]
        keys = values + torch.stack(places).to(values)
        queries = self.ln_q(self.query)
        if self.pos_embed is not None:
            queries = queries + self.pos_embed
        mixed = self.attn(
            queries.expand(len(values), -1, -1), keys, values, self._mask(keys, sizes)
        )
        output: torch.Tensor = self.ln_post(mixed) @ self.proj
        return output

    def _mask(self, keys: torch.Tensor, sizes: Sequence[Size]) -> Any:
        queries = keys.new_empty(len(keys), len(self.query), 0)
        return create_bidirectional_mask(
            config=self.config,
            inputs_embeds=queries,
            attention_mask=real_rows(sizes, keys.shape[1]).to(keys.device),
            encoder_hidden_states=keys,
        )


def sine_table(rows: int, columns: int, width: int) -> torch.Tensor:
    """float32 `[rows * columns, width]`: sines and cosines of the column, then of the row.

    Args:
        rows: Of patches.
        columns: Likewise.
        width: A multiple of 4.
    """
    quarter = width // 4
    speeds = _BASE ** -(torch.arange(quarter, dtype=torch.float32) / quarter)
    row, column = (
        torch.cat([angles.sin(), angles.cos()], 1)
        for angles in (
            torch.arange(n, dtype=torch.float32)[:, None] * speeds for n in (rows, columns)
        )
    )
    halves = column.expand(rows, -1, -1), row[:, None].expand(-1, columns, -1)
    return torch.cat(halves, -1).flatten(0, 1)
