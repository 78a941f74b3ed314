"""A map: one number per patch of a sample's images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vlmlens.errors import CompositionError
from vlmlens.tokens import PatchGrid, TokenKind, TokenLayout

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PatchMap:
    """One number per patch: the larger, the more the patch speaks for the answer.

    Args:
        values: float64 `[n]`; finite.
        grid: Where each of the n patches lies in the sample's images. Patches may overlap; those
            whose box is NaN lie nowhere, and count for nothing.
    """

    values: Floats
    grid: PatchGrid

    @classmethod
    def of(cls, values: Floats, layout: TokenLayout) -> PatchMap:
        """The map of a sample's image rows.

        Args:
            values: `[image rows]`; or `[rows]`, of which those of images are taken.
            layout: The sample's layout on the axis of the values.

        Raises:
            CompositionError: Image rows have no place in the image, or there are none.
        """
        grid = layout.patches
        if grid is None or not len(grid):
            raise CompositionError(
                "Image rows have no place in the image on this axis, so there is no map of them: "
                "they are learned queries, the language model reads the image another way, or the "
                "family's grid is not known.",
                subject="methods",
                hint="Use the method occlusion, which hides pixels.",
            )
        if len(values) == len(layout):
            values = values[layout.positions(TokenKind.IMAGE)]
        return cls(np.asarray(values, np.float64), grid)

    def to_json(self) -> dict[str, Any]:
        """The map as JSON, for results of model work."""
        grid = self.grid
        return {
            "values": self.values.tolist(),
            "image": grid.image.tolist(),
            "view": list(grid.view),
            "places": np.stack([grid.row, grid.col, grid.rows, grid.cols], 1).tolist(),
            "box": [[round(float(edge), 6) for edge in box] for box in grid.box],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PatchMap:
        """The inverse of `to_json`."""
        row, col, rows, cols = np.array(data["places"], np.int64).reshape(-1, 4).T
        box = np.array(data["box"], np.float32).reshape(-1, 4)
        image = np.array(data["image"], np.int64)
        grid = PatchGrid(image, tuple(data["view"]), row, col, rows, cols, box)
        return cls(np.array(data["values"], np.float64), grid)
