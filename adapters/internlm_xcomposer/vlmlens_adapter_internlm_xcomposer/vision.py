"""The vision side: a CLIP tower over views; 2 x 2 patches become one token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import CLIPVisionModel

if TYPE_CHECKING:
    from vlmlens_adapter_internlm_xcomposer.config import XComposerConfig


class XComposerTower(nn.Module):
    """CLIP below the name that it has in checkpoints."""

    def __init__(self, config: XComposerConfig) -> None:
        super().__init__()
        vision: Any = config.vision_config
        self.vision_model = CLIPVisionModel(vision)

    def forward(self, pixel_values: torch.Tensor) -> Any:
        """`[views, 3, side, side]` -> CLIP's output; the last block's is not normed again."""
        return self.vision_model(pixel_values)


class XComposerVision(nn.Module):
    """The tower, and its tokens in the order of the language model's sequence."""

    def __init__(self, config: XComposerConfig) -> None:
        super().__init__()
        self.side = config.merged_side
        self.vision_tower = XComposerTower(config)

    def forward(
        self,
        pixel_values: torch.Tensor,
        grids: torch.Tensor,
        global_end: torch.Tensor,
        row_end: torch.Tensor,
    ) -> torch.Tensor:
        """The tokens of all images of a batch.

        Args:
            pixel_values: `[views, 3, side, side]`: of each image the whole, then its tiles in
                raster order.
            grids: int64 `[images, 2]`, rows and columns of tiles.
            global_end: `[1, 1, 4 * width]`, put after the whole image.
            row_end: `[1, 1, 1, 4 * width]`, put after every row.

        Returns:
            `[1, tokens, 4 * width]`.
        """
        patches = self.vision_tower(pixel_values).last_hidden_state[:, 1:]
        views, first = merged(patches, self.side), 0
        placed: list[torch.Tensor] = []
        for rows, columns in grids.tolist():
            last = first + 1 + rows * columns
            whole, tiles = views[first], views[first + 1 : last]
            canvas = joined_tiles(tiles, rows, columns)
            parts = (with_ends(whole, row_end), global_end[0], with_ends(canvas, row_end))
            placed.extend(parts)
            first = last
        return torch.cat(placed)[None]


def merged(patches: torch.Tensor, side: int) -> torch.Tensor:
    """2 x 2 patches in one token: `[views, 4 * side**2, c]` -> `[views, side, side, 4 * c]`.

    The four stand in raster order.
    """
    split: torch.Tensor = patches.unflatten(1, (side, 2, side, 2))
    return split.permute(0, 1, 3, 2, 4, 5).flatten(3)


def joined_tiles(tiles: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Tiles in raster order as one picture: `[tiles, h, w, c]` -> `[rows * h, columns * w, c]`."""
    grid: torch.Tensor = tiles.unflatten(0, (rows, columns))
    return grid.permute(0, 2, 1, 3, 4).flatten(2, 3).flatten(0, 1)


def with_ends(tokens: torch.Tensor, row_end: torch.Tensor) -> torch.Tensor:
    """`[rows, columns, c]` -> `[rows * (columns + 1), c]`, each row with its end."""
    ends = row_end[0].expand(len(tokens), -1, -1)
    return torch.cat([tokens, ends], 1).flatten(0, 1)
