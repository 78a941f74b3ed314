"""The global image encoder: a CLIP tower; the projector reads its second-to-last block."""

from __future__ import annotations

import torch
from torch import nn
from transformers import CLIPVisionModel
from transformers.modeling_outputs import BaseModelOutput

from vlmlens_adapter_glamm.config import REGION_STEP, GlammConfig


class ClipTower(CLIPVisionModel):
    """transformers' CLIP tower, returning all hidden states as its blocks passed them on.

    transformers collects them by hooks, which miss the changes of later hooks.
    """

    def forward(self, pixel_values: torch.Tensor) -> BaseModelOutput:
        """Hidden states `[images, 1 + patches, width]`: what enters the blocks, then each block's.

        Args:
            pixel_values: `[images, 3, size, size]`.
        """
        hidden = self.pre_layrnorm(self.embeddings(pixel_values))
        states = [hidden]
        for block in self.encoder.layers:
            hidden = block(hidden, None)
            states.append(hidden)
        return BaseModelOutput(last_hidden_state=hidden, hidden_states=tuple(states))


class GlobalEncoder(nn.Module):
    """The parts of the tower's output that projector and region encoder read."""

    def __init__(self, config: GlammConfig) -> None:
        super().__init__()
        self.vision_tower = ClipTower(config.vision_config)
        self.layer, self.levels = config.vision_feature_layer, config.num_region_levels

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """The patches' features, and those of several depths as maps.

        Args:
            pixel_values: `[images, 3, size, size]`.

        Returns:
            `[images, patches, width]` of the chosen layer, and for each level of the region
            encoder, from an early block to the chosen one, `[images, width, side, side]`.
        """
        states = self.vision_tower(pixel_values).hidden_states
        patches = [state[:, 1:] for state in states[self.layer :: -REGION_STEP]]
        side = round(patches[0].shape[1] ** 0.5)
        chosen = patches[: self.levels][::-1]
        maps = [level.transpose(1, 2).unflatten(2, (side, side)) for level in chosen]
        return patches[0], maps
