"""Images that are cut into square tiles, with the whole image beside them as an overview."""

from __future__ import annotations

import importlib
from typing import Any, Literal

from vlmlens.hf.layouts import CropGeometry, grid_patches, joined
from vlmlens.tokens import PatchGrid


def tiled_patches(
    image: int, side: int, canvas: tuple[int, int], *, overview: Literal["first", "last"]
) -> PatchGrid:
    """The patches of an image that is squashed onto a canvas of tiles, and onto one tile more.

    A canvas of one tile is the overview itself. Views are "tile 0", "tile 1", ... in raster order,
    and "global".

    Args:
        image: Number of the image in its sample.
        side: Patches along a side of a tile.
        canvas: (columns, rows) of tiles.
        overview: Whether the whole image comes before or after its tiles.
    """
    columns, rows = canvas
    whole = grid_patches(image, side, side, (1, 1), CropGeometry(side, side), "global")
    if columns * rows == 1:
        return whole
    tiles = [
        _tile(image, side, canvas, row, column) for row in range(rows) for column in range(columns)
    ]
    return joined([whole, *tiles] if overview == "first" else [*tiles, whole]) or whole


def best_canvas(image_processor: Any, height: int, width: int) -> tuple[int, int]:
    """(columns, rows) of the tiles that an image processor of GOT-OCR2's kind cuts an image into.

    Args:
        image_processor: With `size` (of a tile), `min_patches` and `max_patches` (of tiles).
        height: Of the original image, in pixels.
        width: Likewise.
    """
    module = importlib.import_module(type(image_processor).__module__)
    tile = (image_processor.size["height"], image_processor.size["width"])
    fewest, most = image_processor.min_patches, image_processor.max_patches
    columns, rows = module.get_optimal_tiled_canvas((height, width), tile, fewest, most)
    return int(columns), int(rows)


def _tile(image: int, side: int, canvas: tuple[int, int], row: int, column: int) -> PatchGrid:
    columns, rows = canvas
    placed = CropGeometry(columns * side, rows * side, left=column * side, top=row * side)
    return grid_patches(image, side, side, (1, 1), placed, f"tile {row * columns + column}")
