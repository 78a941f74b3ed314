"""The two vision towers: SigLIP from timm (2), and in the style of NaViT (2.6).

Both take all slices of a batch at once, as rows of patches that are filled up on the right:
`[slices, patches, ...]`. Modules are named as upstream names them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from torch.nn.functional import interpolate, linear, pad
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.idefics2.configuration_idefics2 import Idefics2VisionConfig
from transformers.models.idefics2.modeling_idefics2 import (
    Idefics2Encoder,
    Idefics2VisionMLP,
    eager_attention_forward,
)

Size = tuple[int, int]
"""Rows and columns of patches of a slice."""


class PatchRows(nn.Conv2d):
    """The patch embedding's convolution, on patches that were cut out already.

    It outputs rows, `[slices, patches, width]`; a convolution would output a grid.
    """

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """`[slices, patches, channels * side * side]` -> `[slices, patches, width]`."""
        return linear(patches.to(self.weight.dtype), self.weight.flatten(1), self.bias)


def patch_rows(config: Any) -> PatchRows:
    """The patch embedding of a tower's config."""
    side = config.patch_size
    return PatchRows(config.num_channels, config.hidden_size, side, stride=side)


def real_rows(sizes: Sequence[Size], length: int) -> torch.Tensor:
    """Which rows are patches: bool `[slices, length]`, False where a slice is filled up."""
    counts = torch.tensor([rows * columns for rows, columns in sizes])
    return torch.arange(length) < counts[:, None]


class TimmPatchEmbed(nn.Module):
    """Patches without their positions."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.proj = patch_rows(config)

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """As `PatchRows`."""
        rows: torch.Tensor = self.proj(patches)
        return rows


class TimmAttention(nn.Module):
    """Attention with one matrix for queries, keys and values."""

    is_causal = False

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config, self.num_heads = config, config.num_attention_heads
        self.scaling = (config.hidden_size // self.num_heads) ** -0.5
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self, hidden: torch.Tensor, mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The mixed rows and, with eager attention, the weights.

        Args:
            hidden: `[slices, patches, width]`.
            mask: From `create_bidirectional_mask`.

        Returns:
            `[slices, patches, width]`, and `[slices, heads, patches, patches]` or None.
        """
        fused = self.qkv(hidden).unflatten(-1, (3, self.num_heads, -1))
        query, key, value = fused.permute(2, 0, 3, 1, 4)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        mixed, weights = attend(self, query, key, value, mask, scaling=self.scaling)
        return self.proj(mixed.flatten(-2)), weights


class TimmBlock(nn.Module):
    """Attention and MLP, each behind a norm."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attn = TimmAttention(config)
        self.norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = Idefics2VisionMLP(config)

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """`[slices, patches, width]` -> the same."""
        mixed, _ = self.attn(self.norm1(hidden), mask)
        hidden = hidden + mixed
        output: torch.Tensor = hidden + self.mlp(self.norm2(hidden))
        return output


class Tower(PreTrainedModel):
    """The base of both towers, so that transformers picks their attention."""

    config_class = Idefics2VisionConfig
    main_input_name = "patches"
    _supports_sdpa = True


class TimmTower(Tower):
    """MiniCPM-V 2's tower: a grid of positions that is resampled to each slice's."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.side = config.image_size // config.patch_size
        self.patch_embed = TimmPatchEmbed(config)
        self.pos_embed = nn.Parameter(torch.zeros(1, self.side**2, config.hidden_size))
        self.blocks = nn.ModuleList(TimmBlock(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()  # type: ignore[no-untyped-call]

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)  # type: ignore[no-untyped-call]
        if module is self:
            init.zeros_(self.pos_embed)

    def forward(self, patches: torch.Tensor, sizes: Sequence[Size]) -> torch.Tensor:
        """Features of all slices.

        Args:
            patches: `[slices, patches, channels * side * side]`.
            sizes: Of each slice.

        Returns:
            `[slices, patches, width]`; rows beyond a slice's own mean nothing.
        """
        length = patches.shape[1]
        places = [pad(self.places(*size), (0, 0, 0, length - size[0] * size[1])) for size in sizes]
        hidden = self.patch_embed(patches) + torch.stack(places)
        mask = _mask(self.config, hidden, sizes)
        for block in self.blocks:
            hidden = block(hidden, mask)
        output: torch.Tensor = self.norm(hidden)
        return output

    def places(self, rows: int, columns: int) -> torch.Tensor:
        """`[rows * columns, width]`: positions, resampled in float32."""
        table: torch.Tensor = self.pos_embed[0]
        if (rows, columns) == (self.side, self.side):
            return table
        grid = table.float().unflatten(0, (self.side, self.side)).permute(2, 0, 1)[None]
        resampled = interpolate(grid, (rows, columns), mode="bicubic", antialias=True)
        return resampled[0].flatten(1).T.to(table.dtype)


class NavitEmbeddings(nn.Module):
    """Patches with learned positions, taken from the nearest place in a fixed grid."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.side = config.image_size // config.patch_size
        self.patch_embedding = patch_rows(config)
        self.position_embedding = nn.Embedding(self.side**2, config.hidden_size)

    def forward(self, patches: torch.Tensor, sizes: Sequence[Size]) -> torch.Tensor:
        """`[slices, patches, width]`; arguments: see `TimmTower.forward`."""
        rows: torch.Tensor = self.patch_embedding(patches)
        ids = torch.stack([self._ids(*size, rows.shape[1]) for size in sizes])
        table = self.position_embedding
        output: torch.Tensor = rows + table(ids.to(table.weight.device))
        return output

    def _ids(self, rows: int, columns: int, length: int) -> torch.Tensor:
        """int64 `[length]`: position ids of a slice; 0 where it is filled up."""
        row, column = (torch.tensor(buckets(n, self.side)) for n in (rows, columns))
        ids = (row[:, None] * self.side + column).flatten()
        return pad(ids, (0, length - len(ids)))


@lru_cache(maxsize=1024)
def buckets(patches: int, side: int) -> tuple[int, ...]:
    """Which of the positions along a side of the grid each patch along a side of a slice takes.

    In float32 as upstream computes it, on the CPU: rounding decides where a patch stands exactly
    on a boundary (transformers' Idefics2 decides otherwise for 49 and 58 patches of 70).

    Args:
        patches: Along a side of the slice.
        side: Of the grid.

    >>> buckets(3, 70)
    (0, 23, 46)
    """
    step = float(1 / torch.tensor(patches, dtype=torch.int32, device="cpu"))
    places = torch.arange(0, 1 - 1e-6, step, device="cpu")
    bounds = torch.arange(1 / side, 1.0, 1 / side, device="cpu")
    return tuple(torch.bucketize(places, bounds, right=True).tolist())


class NavitTower(Tower):
    """MiniCPM-V 2.6's tower."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.embeddings = NavitEmbeddings(config)
        self.encoder = Idefics2Encoder(config)
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(self, patches: torch.Tensor, sizes: Sequence[Size]) -> torch.Tensor:
        """See `TimmTower.forward`."""
        hidden = self.embeddings(patches, sizes)
        mask = _mask(self.config, hidden, sizes)
        output: torch.Tensor = self.post_layernorm(self.encoder(hidden, mask).last_hidden_state)
        return output


def _mask(config: Any, hidden: torch.Tensor, sizes: Sequence[Size]) -> Any:
    """Hides the padding rows of each slice."""
    real = real_rows(sizes, hidden.shape[1]).to(hidden.device)
    return create_bidirectional_mask(config=config, inputs_embeds=hidden, attention_mask=real)
