"""Patch grids of images that are cut into tiles, with the whole image as an overview."""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import Any, Literal

from vlmlens.hf.layouts import CropGeometry, grid_patches, joined
from vlmlens.tokens import PatchGrid


def tiled_patches(
    image: int, side: int, canvas: tuple[int, int], *, overview: Literal["first", "last"]
) -> PatchGrid:
    """The patches of an image that is resized to a canvas of tiles, and to one more tile.

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
    size = CropGeometry(columns * side, rows * side)
    tiles = crop_patches(image, (side, side), size, (rows, columns))
    return joined([whole, *tiles] if overview == "first" else [*tiles, whole]) or whole


def crop_patches(
    image: int,
    patches: tuple[int, int],
    canvas: CropGeometry,
    crops: tuple[int, int],
    *,
    name: str = "tile {}",
    step: int | None = None,
    patch: float = 1,
) -> list[PatchGrid]:
    """The patches of equally large crops, crop by crop, row by row.

    Args:
        image: Number of the image in its sample.
        patches: (rows, columns) of patches in a crop.
        canvas: The size of the image, and where the first crop begins in it.
        crops: (rows, columns) of crops.
        name: Of a view, with its number.
        step: Distance between crops, in units of the canvas; None: crops do not overlap.
        patch: Side of a patch in units of the canvas.
    """
    grids = []
    for number in range(crops[0] * crops[1]):
        row, column = divmod(number, crops[1])
        down, right = (step or int(patch * count) for count in patches)
        placed = replace(canvas, left=canvas.left + column * right, top=canvas.top + row * down)
        grids.append(grid_patches(image, *patches, (patch, patch), placed, name.format(number)))
    return grids


def best_canvas(image_processor: Any, height: int, width: int) -> tuple[int, int]:
    """(columns, rows) of tiles into which an image processor like GOT-OCR2's cuts an image.

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
