"""The key region among image rows, and the same shape at all other places: its control."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vlmlens.rows.image_rows import in_region
from vlmlens.rows.named import NamedRows
from vlmlens.tokens import PatchGrid, TokenLayout

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Place:
    """A region among a sample's image rows.

    Args:
        inside: bool `[image rows]`.
        elsewhere: float64 `[image rows]`: how often a row is inside when a region of the same
            shape stands at each place where it fits; it sums to the number of rows inside.
    """

    inside: Bools
    elsewhere: Floats

    @property
    def area(self) -> float:
        """Its share of the image rows."""
        return float(self.inside.mean())

    @classmethod
    def of(cls, layout: TokenLayout, name: str) -> Place | None:
        """The region of a sample; None if it has none, or where its rows lie is not known.

        Args:
            layout: The sample's layout.
            name: The region's name; "": the first one.

        Raises:
            DataError: The sample's regions cannot be used.
            ImageError: A mask cannot be read.
            SelectorError: No image row lies in the region.
        """
        grid, names = layout.patches, layout.names
        if grid is None or names is None or not len(grid):
            return None
        known = list(names.regions.shapes)
        if name not in (*known, "") or not known:
            return None
        inside = in_region(NamedRows("region", name or known[0]), grid, names)
        return cls(inside, moved(inside, grid))


def moved(inside: Bools, grid: PatchGrid) -> Floats:
    """How often each row is inside, over all places where the region fits into each view.

    The places are those of the smallest rectangle of patches that holds the region's part of the
    view. A region that fills a view has one place.

    Args:
        inside: bool `[image rows]`.
        grid: Where they lie.
    """
    found = np.zeros(len(inside))
    views = list(zip(grid.image.tolist(), grid.view, strict=True))
    for view in dict.fromkeys(views):
        where = np.array([i for i, each in enumerate(views) if each == view])
        row, col = grid.row[where], grid.col[where]
        field = np.zeros((row.max() + 1, col.max() + 1), bool)
        field[row, col] = inside[where]
        if not field.any():
            continue
        (top, bottom), (left, right) = (np.flatnonzero(field.any(axis))[[0, -1]] for axis in (1, 0))
        shape = field[top : bottom + 1, left : right + 1]
        down, across = (field.shape[i] - shape.shape[i] + 1 for i in (0, 1))
        sums = np.zeros(field.shape)
        for y in range(down):
            for x in range(across):
                sums[y : y + shape.shape[0], x : x + shape.shape[1]] += shape
        found[where] += (sums / (down * across))[row, col]
    return found
