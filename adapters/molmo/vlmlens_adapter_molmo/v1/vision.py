"""Molmo's vision side: a tower of CLIP blocks, and the connector that makes tokens of patches."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.clip.modeling_clip import CLIPEncoderLayer, eager_attention_forward

from vlmlens_adapter_molmo.v1.config import POOLED, MolmoConfig
from vlmlens_adapter_molmo.v1.language import Gated


class MolmoAttention(nn.Module):
    """Attention without a mask, always in float32, as in upstream's code.

    Args:
        config: Of the model; width and heads are the tower's.
        inputs: Width of what it reads.
    """

    is_causal = False
    num_key_value_groups = 1

    def __init__(self, config: MolmoConfig, inputs: int) -> None:
        super().__init__()
        vision: Any = config.vision_config
        self.config = config
        self.head_dim = vision.hidden_size // vision.num_attention_heads
        self.wq = nn.Linear(inputs, vision.hidden_size)
        self.wk = nn.Linear(inputs, vision.hidden_size)
        self.wv = nn.Linear(inputs, vision.hidden_size)
        self.wo = nn.Linear(vision.hidden_size, vision.hidden_size)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        key_value_states: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Float `[n, queries, width]`, and the attention weights where they are computed.

        Args:
            hidden_states: `[n, queries, inputs]`.
            attention_mask: None.
            key_value_states: `[n, keys, inputs]`; None: the queries themselves.
            kwargs: For transformers' attention function.
        """
        seen = hidden_states if key_value_states is None else key_value_states
        parts = (self.wq(hidden_states), self.wk(seen), self.wv(seen))
        heads = [part.unflatten(-1, (-1, self.head_dim)).transpose(1, 2).float() for part in parts]
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        mixed, weights = attend(
            self, *heads, attention_mask, scaling=self.head_dim**-0.5, dropout=0.0, **kwargs
        )
        return self.wo(mixed.flatten(-2).to(parts[0].dtype)), weights


class MolmoVisionTower(nn.Module):
    """Blocks of CLIP without a norm after them; some of their outputs are the features."""

    def __init__(self, config: MolmoConfig) -> None:
        super().__init__()
        vision: Any = config.vision_config
        width, patches = vision.hidden_size, (vision.image_size // vision.patch_size) ** 2
        self.vit_layers = list(config.vit_layers)
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.positional_embedding = nn.Parameter(torch.empty(patches + 1, width))
        self.patch_embedding = nn.Linear(3 * vision.patch_size**2, width, bias=False)
        self.pre_ln = nn.LayerNorm(width, eps=vision.layer_norm_eps)
        self.layers = nn.ModuleList(
            CLIPEncoderLayer(vision) for _ in range(vision.num_hidden_layers)
        )
        for layer in self.layers:
            layer.self_attn = MolmoAttention(config, width)

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        """Features `[crops, patches, len(vit_layers) * width]`.

        Args:
            crops: `[crops, patches, 3 * patch * patch]`; a patch by rows, columns, colours.
        """
        patches = self.patch_embedding(crops.to(self.class_embedding.dtype))
        first = self.class_embedding.expand(len(crops), 1, -1)
        hidden = self.pre_ln(torch.cat([first, patches], 1) + self.positional_embedding)
        outputs = []
        for layer in self.layers:
            hidden = layer(hidden, None)
            outputs.append(hidden)
        return torch.cat([outputs[i] for i in self.vit_layers], -1)[:, 1:]


class MolmoImageProjector(nn.Module):
    """A gated network without biases; upstream's names."""

    def __init__(self, inputs: int, inner: int, outputs: int) -> None:
        super().__init__()
        self.w1 = nn.Linear(inputs, inner, bias=False)
        self.w2 = nn.Linear(inner, outputs, bias=False)
        self.w3 = nn.Linear(inputs, inner, bias=False)
        self.act = Gated()

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """`[..., outputs]` of `[..., inputs]`."""
        out: torch.Tensor = self.w2(self.act(self.w1(hidden), self.w3(hidden)))
        return out


class MolmoConnector(nn.Module):
    """From patches to tokens: padding is marked, 2 x 2 patches are pooled, then projected."""

    def __init__(self, config: MolmoConfig) -> None:
        super().__init__()
        vision: Any = config.vision_config
        text: Any = config.text_config
        features = vision.hidden_size * len(config.vit_layers)
        self.side = vision.image_size // vision.patch_size
        self.pad_embed = nn.Parameter(torch.empty(2, features))
        self.image_pooling_2d = MolmoAttention(config, features)
        self.image_projector = MolmoImageProjector(
            vision.hidden_size, config.projector_size, text.hidden_size
        )

    def forward(self, features: torch.Tensor, masks: torch.Tensor | None) -> torch.Tensor:
        """Tokens `[samples, crops, cells, width of the language model]`.

        Args:
            features: `[samples, crops, patches, width]`.
            masks: `[samples, crops, patches]`, how much of a patch is no padding; None: all.
                The rows are used as they come. Upstream's processor leaves out the whole image,
                so that each stands one crop too early: the checkpoints were trained with that.
        """
        if masks is not None:
            features = features + self._padding(masks.to(features.device))
        windows = self._windows(features)
        queries = windows.mean(-2, keepdim=True)
        pooled, _ = self.image_pooling_2d(queries, key_value_states=windows)
        tokens: torch.Tensor = self.image_projector(
            pooled.reshape(*features.shape[:2], -1, pooled.shape[-1])
        )
        return tokens

    def _padding(self, masks: torch.Tensor) -> torch.Tensor:
        """The vectors added to patches that are padding, and to those that partly are."""
        empty = masks == 0
        partial = (masks < 1) & ~empty
        whole, part = self.pad_embed
        added: torch.Tensor = (
            empty[..., None].to(whole) * whole + partial[..., None].to(part) * part
        )
        return added

    def _windows(self, features: torch.Tensor) -> torch.Tensor:
        """`[samples * crops * cells, 4, width]`, a window by rows."""
        raster: Any = features.unflatten(2, (self.side, self.side)).flatten(0, 1)
        cut = raster.unflatten(2, (-1, POOLED)).unflatten(1, (-1, POOLED))
        windows: torch.Tensor = cut.transpose(2, 3).flatten(0, 2).flatten(1, 2)
        return windows
