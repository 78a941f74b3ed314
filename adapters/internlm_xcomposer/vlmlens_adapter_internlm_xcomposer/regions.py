"""Where in an image the tokens of its views lie, and which rows of the projector they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np

from vlmlens.hf import CropGeometry, crop_patches, grid_patches, joined
from vlmlens.hf.layouts import with_row_ends
from vlmlens.tokens import AxisLayout, PatchGrid, TokenKind, TokenLayout
from vlmlens_adapter_internlm_xcomposer.tiling import Canvas


def sequence_grid(image: int, placed: Canvas, side: int) -> PatchGrid:
    """The tokens of one image in the order of the sequence; row and view ends have NaN boxes.

    The whole (view "global") comes first, then all tiles as one raster (view "tiles").

    Args:
        image: Number of the image in its sample.
        placed: Its canvas.
        side: Tokens along a side of a tile.
    """
    step = placed.tile / side
    size = CropGeometry(placed.width, placed.height)
    rows, columns = placed.rows * side, placed.columns * side
    tiles = grid_patches(image, rows, columns, (step, step), size, "tiles")
    whole = _whole(image, placed, side)
    return cast(
        PatchGrid,
        joined(
            [with_row_ends(whole, image, side, side, 1), with_row_ends(tiles, image, rows, columns)]
        ),
    )


def tower_grid(image: int, placed: Canvas, side: int) -> PatchGrid:
    """The patches of one image in the order of the tower: view "global", then "tile 0", ...

    Args:
        image: Number of the image in its sample.
        placed: Its canvas.
        side: Patches along a side of a tile.
    """
    tiles = crop_patches(
        image, (side, side), CropGeometry(placed.width, placed.height),
        (placed.rows, placed.columns), step=placed.tile, patch=placed.tile / side,
    )  # fmt: skip
    return cast(PatchGrid, joined([_whole(image, placed, side), *tiles]))


def image_rows(grids: Sequence[PatchGrid | None]) -> AxisLayout:
    """The layout of a module whose rows are the image tokens of all samples, ends included.

    Args:
        grids: Per sample, its images' grids of the sequence; None without images.
    """
    layouts, first = [], 0
    for grid in grids:
        count = 0 if grid is None else len(grid)
        kinds, patches = np.full(count, TokenKind.IMAGE, np.uint8), grid
        if grid is not None:
            region = ~np.isnan(grid.box).any(1)
            kinds[~region] = TokenKind.SPECIAL
            patches = grid.take(np.flatnonzero(region))
        rows = np.arange(first, first + count, dtype=np.int64)
        layouts.append(TokenLayout(rows, kinds, patches=patches))
        first += count
    return AxisLayout(first, layouts)


def _whole(image: int, placed: Canvas, side: int) -> PatchGrid:
    """The canvas, white parts included, squashed into one tile."""
    step = placed.rows * placed.tile / side, placed.columns * placed.tile / side
    size = CropGeometry(placed.width, placed.height)
    return grid_patches(image, side, side, step, size, "global")
