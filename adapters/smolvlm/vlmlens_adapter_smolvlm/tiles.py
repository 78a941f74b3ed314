"""Where the patches of an image lie that the processor cuts into square tiles.

The image is scaled to a canvas of whole tiles, without regard to its aspect ratio, and once more to
a single tile, the global view. A patch that does not fit into a tile any more is left out by the
tower: in a tile of 384 pixels, 27 patches of 14 pixels cover 378.
"""

from __future__ import annotations

import importlib
import math
from typing import Any

import numpy as np

from vlmlens.hf import CropGeometry, crop_patches, grid_patches, joined
from vlmlens.tokens import PatchGrid


def tile_side(image_processor: Any) -> int:
    """Pixels along a side of a tile."""
    return int(image_processor.max_image_size["longest_edge"])


def canvas(image_processor: Any, height: int, width: int) -> tuple[int, int]:
    """(rows, columns) of tiles into which the processor cuts an image; (1, 1) if it does not.

    Args:
        image_processor: Of Idefics3 or SmolVLM.
        height: Of the original image, in pixels.
        width: Likewise.
    """
    if not image_processor.do_image_splitting:
        return 1, 1
    if image_processor.do_resize:
        height, width = _scaled(image_processor, height, width)
    side, ratio = tile_side(image_processor), width / height
    if width >= height:
        columns = math.ceil(width / side)
        return math.ceil(int(columns * side / ratio) / side), columns
    rows = math.ceil(height / side)
    return rows, math.ceil(int(rows * side * ratio) / side)


def patches(
    image: int, size: tuple[int, int], tile: int, patch: int, *, merged: int = 1
) -> PatchGrid:
    """The patches of all tiles of an image, tile by tile and row by row, then of the global view.

    Args:
        image: Number of the image in its sample.
        size: (rows, columns) of tiles, see `canvas`; a single one is the global view.
        tile: Pixels along a side of a tile.
        patch: Pixels along a side of a patch of the tower.
        merged: How many patches along a side the connector puts into one token.
    """
    side, pixels = tile // patch // merged, patch * merged
    square, rows, columns = CropGeometry(tile, tile), *size
    whole = grid_patches(image, side, side, (pixels, pixels), square, "global")
    if rows * columns == 1:
        return whole
    placed = CropGeometry(columns * tile, rows * tile)
    crops = crop_patches(image, (side, side), placed, size, step=tile, patch=pixels)
    return joined([*crops, whole]) or whole


def _scaled(image_processor: Any, height: int, width: int) -> tuple[int, int]:
    """Height and width after the processor's first resizing, as its own module computes them."""
    size = image_processor.size
    if not size["longest_edge"]:
        return int(size["height"]), int(size["width"])
    module = importlib.import_module(type(image_processor).__module__)
    blank = np.broadcast_to(np.uint8(0), (3, height, width))
    found = module.get_resize_output_image_size(blank, size["longest_edge"])
    return int(found[0]), int(found[1])
