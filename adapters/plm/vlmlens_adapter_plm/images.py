"""PerceptionLM's images: a thumbnail, then tiles; also without torchvision."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from transformers.image_utils import IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD
from transformers.processing_utils import ImagesKwargs

from vlmlens.hf.image_processing import TensorImageProcessor, normalised, resized

Grid = tuple[int, int]
"""Columns and rows of tiles."""


def tiling(width: int, height: int, *, tile: int, most: int) -> Grid:
    """Columns and rows of tiles that an image is stretched over.

    Of the grids that hold the image without making it smaller, that in which its shorter side
    could become longest; where none does, the one of the nearest shape.

    Args:
        width: Of the original image, in pixels.
        height: Likewise.
        tile: Side of a tile in pixels.
        most: Largest number of tiles.
    """
    grids = _grids(most)
    large = [grid for grid in grids if grid[0] * tile >= width and grid[1] * tile >= height]
    if not large:
        return _nearest_shape(width / height, grids)
    lengths = [_shorter_side(width, height, cols * tile, rows * tile) for cols, rows in large]
    return max(zip(lengths, range(len(large)), large, strict=True))[2]


def _grids(most: int) -> list[Grid]:
    """All grids of at most so many tiles, by shape; of equally good ones the last is taken."""
    by_shape: dict[float, list[Grid]] = {}
    for count in range(most, 0, -1):
        for cols in range(1, count + 1):
            if count % cols == 0:
                by_shape.setdefault(cols / (count // cols), []).append((cols, count // cols))
    return [grid for group in by_shape.values() for grid in group]


def _shorter_side(width: int, height: int, canvas_width: int, canvas_height: int) -> float:
    """Of the image, if it kept its shape while it fills the canvas."""
    factor, shape = min(canvas_width / width, canvas_height / height), width / height
    if shape > 1:
        return math.floor(factor * width / shape)
    return math.floor(factor * height * shape) if shape < 1 else factor * height


def _nearest_shape(shape: float, grids: Sequence[Grid]) -> Grid:
    shapes = {cols / rows for cols, rows in grids}
    if shape >= 1:
        near = max(s for s in shapes if s <= shape)
        return max((grid for grid in grids if grid[0] / grid[1] == near), key=lambda grid: grid[0])
    near = min((s for s in shapes if s > shape), key=lambda s: abs(1 / s - 1 / shape))
    return max((grid for grid in grids if grid[0] / grid[1] == near), key=lambda grid: grid[1])


class PlmImageSettings(ImagesKwargs, total=False):
    """PerceptionLM's settings beside those of every image processor.

    Args:
        vision_input_type: "thumb+tile", or anything else for the thumbnail alone.
        tile_size: Side of a tile in pixels.
        max_num_tiles: Largest number of tiles beside the thumbnail.
    """

    vision_input_type: str | None
    tile_size: int
    max_num_tiles: int


class PlmImages(TensorImageProcessor):
    """The pixel values of transformers' `PerceptionLMImageProcessor`, without torchvision."""

    valid_kwargs = PlmImageSettings
    model_input_names = ["pixel_values"]  # noqa: RUF012  transformers' own form
    resample = 3
    image_mean = IMAGENET_STANDARD_MEAN
    image_std = IMAGENET_STANDARD_STD
    do_resize = do_rescale = do_normalize = do_convert_rgb = True
    vision_input_type = "thumb+tile"
    tile_size = 448
    max_num_tiles = 36
    size = {"width": 448, "height": 448}  # noqa: RUF012  likewise

    def features(self, images: Sequence[torch.Tensor], **settings: Any) -> dict[str, Any]:
        """See `TensorImageProcessor.features`: `pixel_values`, a tensor of views per image."""
        mean, std = settings["image_mean"], settings["image_std"]
        pixels = [
            normalised(views(image, **settings), mean, std, factor=settings["rescale_factor"])
            for image in images
        ]
        return {"pixel_values": pixels}


def views(
    image: torch.Tensor,
    *,
    tile_size: int,
    max_num_tiles: int,
    vision_input_type: str,
    resample: int,
    **ignored: Any,
) -> torch.Tensor:
    """uint8 `[1 + tiles, 3, tile_size, tile_size]`: the squashed image, then its tiles by rows."""
    del ignored

    def stretched(cols: int, rows: int) -> torch.Tensor:
        height, width = rows * tile_size, cols * tile_size
        return resized(image, height, width, resample=resample, antialias=True)

    thumbnail = stretched(1, 1)[None]
    if vision_input_type != "thumb+tile":
        return thumbnail
    height, width = image.shape[-2:]
    cols, rows = tiling(width, height, tile=tile_size, most=max_num_tiles)
    cut = stretched(cols, rows).reshape(3, rows, tile_size, cols, tile_size)
    tiles = cut.permute(1, 3, 0, 2, 4).reshape(-1, 3, tile_size, tile_size)
    return torch.cat([thumbnail, tiles])
