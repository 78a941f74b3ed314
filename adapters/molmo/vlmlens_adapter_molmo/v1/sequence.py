"""The image's part of the sequence: which tokens, and which cell of which crop is added where."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from vlmlens_adapter_molmo.images import Canvas
from vlmlens_adapter_molmo.v1.config import POOLED

NOWHERE = -100
"""Where a cell goes that a neighbouring crop shows better."""


@dataclass(frozen=True, slots=True)
class ImageTokens:
    """The token ids in an image's part of the sequence.

    Args:
        start: Begins a raster; `end` ends it.
        patch: Stands for a cell.
        column: Ends a row of a raster.
    """

    start: int
    end: int
    patch: int
    column: int

    def raster(self, rows: int, cols: int) -> list[int]:
        """The ids of one raster of cells."""
        row = [self.patch] * cols + [self.column]
        return [self.start, *row * rows, self.end]


def raster_size(canvas: Canvas) -> tuple[int, int]:
    """(rows, columns) of the cells over all crops."""
    return canvas.height // POOLED, canvas.width // POOLED


def image_sequence(canvas: Canvas, tokens: ImageTokens) -> list[int]:
    """The ids of an image: the raster of the whole, then one over all crops."""
    side = canvas.side // POOLED
    return tokens.raster(side, side) + tokens.raster(*raster_size(canvas))


def image_input_idx(canvas: Canvas) -> torch.Tensor:
    """int64 `[1 + crops, cells]`: the place in `image_sequence` of each cell, or `NOWHERE`."""
    side, step = canvas.side // POOLED, canvas.step // POOLED
    place = np.arange(side)
    whole = 1 + place[:, None] * (side + 1) + place
    first = side * (side + 1) + 3
    wide = raster_size(canvas)[1] + 1
    views = [whole]
    for a in range(canvas.rows):
        for b in range(canvas.cols):
            inside = _kept(canvas, a, canvas.rows)[:, None] & _kept(canvas, b, canvas.cols)
            index = first + (a * step + place)[:, None] * wide + b * step + place
            views.append(np.where(inside, index, NOWHERE))
    return torch.from_numpy(np.stack(views).reshape(len(views), -1))


def _kept(canvas: Canvas, crop: int, crops: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which cells along a side of a crop belong to it and not to its neighbours."""
    side, step, before = (n // POOLED for n in (canvas.side, canvas.step, canvas.margin))
    place = np.arange(side)
    begin = 0 if crop == 0 else before
    end = side if crop == crops - 1 else before + step
    return (place >= begin) & (place < end)
