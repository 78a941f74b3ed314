"""Pixels as InternLM-XComposer 2.5 sees them: an image on a canvas of tiles, and as a whole."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from vlmlens.errors import DataError
from vlmlens.hf.image_processing import normalised

_WHITE = (255, 255, 255)


@dataclass(frozen=True, slots=True)
class Canvas:
    """How an image is placed on its tiles: in the upper left corner, on white.

    Args:
        rows: Of tiles.
        columns: Of tiles.
        height: Of the resized image in pixels; `width` likewise.
        tile: Side of a tile in pixels.
    """

    rows: int
    columns: int
    height: int
    width: int
    tile: int

    def tokens(self, side: int) -> int:
        """Positions of the image in the sequence, ends of rows included.

        Args:
            side: Tokens along a side of a tile.
        """
        rows = (self.rows + 1) * side
        return (self.rows * self.columns + 1) * side**2 + 1 + rows


def most_tiles(images: int) -> int:
    """The largest number of tiles per image, by the number of images in a sample."""
    return 24 if images <= 1 else 6


def canvas(width: int, height: int, tile: int, most: int) -> Canvas:
    """The canvas of an image.

    The longer side gets as many tiles as the image has pixels for, and as `most` allows; the other
    side follows.

    Args:
        width: Of the original image in pixels.
        height: Likewise.
        tile: Side of a tile in pixels.
        most: Largest number of tiles.

    Raises:
        DataError: See `laid_out`.

    >>> canvas(640, 480, 560, 24)
    Canvas(rows=2, columns=2, height=840, width=1120, tile=560)
    """
    long, short = max(width, height), min(width, height)
    number = 1
    while number * math.ceil(number / (long / short)) <= most:
        number += 1
    return laid_out(width, height, tile, min(math.ceil(long / tile), number - 1))


def laid_out(width: int, height: int, tile: int, number: int) -> Canvas:
    """The canvas of an image whose longer side fills that many tiles.

    Args:
        width: Of the original image in pixels.
        height: Likewise.
        tile: Side of a tile in pixels.
        number: Tiles along the longer side.

    Raises:
        DataError: The image is so narrow that nothing of it would be left.
    """
    length = number * tile
    breadth = int(length / (max(width, height) / min(width, height)))
    if not breadth:
        raise DataError(
            f"An image of {width} x {height} pixels is too narrow for tiles of {tile}.",
            hint="Crop it, or leave it out.",
        )
    other = math.ceil(breadth / tile)
    if width < height:
        return Canvas(number, other, length, breadth, tile)
    return Canvas(other, number, breadth, length, tile)


class TileImages:
    """Makes the pixel values.

    Args:
        tile: Side of a tile in pixels.
    """

    backend = "pil"

    def __init__(self, tile: int) -> None:
        self.tile = tile

    def __call__(self, groups: Sequence[Sequence[Any]]) -> dict[str, torch.Tensor]:
        """The model's inputs for the images of each sample; empty without images.

        Args:
            groups: Per sample, its images.

        Returns:
            float32 `pixel_values` `[views, 3, tile, tile]` and int64 `image_grids` `[images, 2]`.
        """
        found = [
            (image, canvas(image.width, image.height, self.tile, most_tiles(len(group))))
            for group in groups
            for image in group
        ]
        if not found:
            return {}
        seen = [views(pixels(image, placed), placed) for image, placed in found]
        grids = torch.tensor([(placed.rows, placed.columns) for _, placed in found])
        return {"pixel_values": torch.cat(seen), "image_grids": grids}


def pixels(image: Image.Image, placed: Canvas) -> torch.Tensor:
    """The canvas with an image on it, normalised: float32 `[3, rows * tile, columns * tile]`.

    An upright image is resized lying on its side, as upstream does.
    """
    image = image.convert("RGB")
    upright, size = image.width < image.height, (placed.width, placed.height)
    if upright:
        image = image.transpose(Image.Transpose.TRANSPOSE)
        size = size[::-1]
    image = image.resize(size, Image.Resampling.BILINEAR)
    if upright:
        image = image.transpose(Image.Transpose.TRANSPOSE)
    sheet = Image.new("RGB", (placed.columns * placed.tile, placed.rows * placed.tile), _WHITE)
    sheet.paste(image, (0, 0))
    array = torch.from_numpy(np.array(sheet)).permute(2, 0, 1).contiguous()
    return normalised(array.float().div(255), OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)


def views(sheet: torch.Tensor, placed: Canvas) -> torch.Tensor:
    """The whole canvas at the size of a tile, then its tiles in raster order.

    Args:
        sheet: float32 `[3, rows * tile, columns * tile]`.
        placed: Its canvas.

    Returns:
        float32 `[1 + rows * columns, 3, tile, tile]`.
    """
    side = placed.tile
    whole = torch.nn.functional.interpolate(
        sheet[None], size=(side, side), mode="bicubic", align_corners=False
    )
    cut = sheet.unflatten(2, (placed.columns, side)).unflatten(1, (placed.rows, side))
    tiles = cut.permute(1, 3, 0, 2, 4).flatten(0, 1)
    return torch.cat([whole, tiles])
