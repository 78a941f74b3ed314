"""The order of rows in Qwen-VL's tower, as row numbers; no tensor is moved."""

from __future__ import annotations

import numpy as np

from vlmlens.tokens import Ints


def merged_rows(rows: int, cols: int, window: int) -> Ints:
    """int64 `[rows * cols]`: the row of each merged token, in raster order.

    Args:
        rows: Rows of the image's grid of merged tokens.
        cols: Columns of that grid.
        window: Side of a window in merged tokens; 0: raster order. Windows follow each other in
            raster order, and so do the tokens within each; those at the right and lower edge may
            be smaller.

    >>> merged_rows(2, 3, 2).tolist()
    [0, 1, 4, 2, 3, 5]
    """
    row, col = _raster(rows, cols)
    side = window or max(rows, cols)
    in_tower_order = np.lexsort((col, row, col // side, row // side))
    return np.argsort(in_tower_order)


def patch_rows(rows: int, cols: int, merge: int, window: int) -> Ints:
    """int64 `[rows * cols]`: the row of each patch, in raster order.

    The `merge * merge` patches of a merged token stand together, in raster order.

    Args:
        rows: Rows of the image's grid of patches, a multiple of `merge`.
        cols: Columns of that grid, likewise.
        merge: Side of a merged token in patches.
        window: Side of a window in merged tokens; 0: none.

    >>> patch_rows(2, 4, 2, 0).tolist()
    [0, 1, 4, 5, 2, 3, 6, 7]
    """
    row, col = _raster(rows, cols)
    merged = merged_rows(rows // merge, cols // merge, window)
    token: Ints = merged[(row // merge) * (cols // merge) + col // merge]
    found: Ints = token * merge**2 + (row % merge) * merge + col % merge
    return found


def _raster(rows: int, cols: int) -> tuple[Ints, Ints]:
    row, col = np.mgrid[0:rows, 0:cols].reshape(2, -1)
    return row, col
