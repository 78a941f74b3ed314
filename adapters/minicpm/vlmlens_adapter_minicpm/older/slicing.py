"""How the older generations cut an image: an overview, and slices of a grid beside it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vlmlens.hf import joined
from vlmlens.tokens import PatchGrid
from vlmlens_adapter_minicpm.views import sliced_views


@dataclass(frozen=True, slots=True)
class Slicing:
    """The settings of a checkpoint.

    Args:
        resolution: Side of the square whose area each slice has about, in pixels.
        patch: Side of a patch in pixels; sides of slices are multiples of it.
        most: Largest number of slices.
    """

    resolution: int
    patch: int
    most: int

    def cut(self, width: int, height: int) -> Cut:
        """How an image is cut.

        >>> Slicing(448, 14, 9).cut(1024, 768)
        Cut(source=(518, 392), grid=(2, 2), size=(518, 392))
        """
        wanted = min(math.ceil(width * height / self.resolution**2), self.most)
        if wanted <= 1:
            return Cut(self.fit(width, height, enlarge=True))
        columns, rows = grid = self._grid(width / height, wanted)
        part = _multiple(width, columns) / columns, _multiple(height, rows) / rows
        return Cut(self.fit(width, height, enlarge=False), grid, self.fit(*part, enlarge=True))

    def fit(self, width: float, height: float, *, enlarge: bool) -> tuple[int, int]:
        """(width, height) in whole patches of about the wanted area, or smaller.

        Args:
            width: Of what is to be resized, in pixels.
            height: Likewise.
            enlarge: Whether what is smaller is enlarged.
        """
        if enlarge or width * height > self.resolution**2:
            ratio = width / height
            height = int(self.resolution / math.sqrt(ratio))
            width = int(height * ratio)
        return _multiple(width, self.patch), _multiple(height, self.patch)

    def _grid(self, ratio: float, wanted: int) -> tuple[int, int]:
        """(columns, rows) of the grid whose shape is nearest to the image's; the first if tied."""
        counts = [n for n in (wanted - 1, wanted, wanted + 1) if 1 < n <= self.most]
        grids = [(m, n // m) for n in counts for m in range(1, n + 1) if n % m == 0]
        return min(grids, key=lambda grid: abs(math.log(ratio) - math.log(grid[0] / grid[1])))


@dataclass(frozen=True, slots=True)
class Cut:
    """An image as it is cut; all sizes are (width, height) in pixels.

    Args:
        source: Of the overview.
        grid: (columns, rows) of slices; None: there is only the overview.
        size: Of a slice.
    """

    source: tuple[int, int]
    grid: tuple[int, int] | None = None
    size: tuple[int, int] = (0, 0)

    @property
    def canvas(self) -> tuple[int, int]:
        """The size to which the image is resized before it is cut into slices."""
        columns, rows = self.grid or (0, 0)
        return columns * self.size[0], rows * self.size[1]

    def patches(self, patch: int) -> list[tuple[int, int]]:
        """(rows, columns) of patches per view, the overview first, then slices by rows."""
        columns, rows = self.grid or (0, 0)
        sizes = [self.source, *[self.size] * (columns * rows)]
        return [(height // patch, width // patch) for width, height in sizes]

    def views(self, image: int, patch: int) -> PatchGrid | None:
        """Where the patches of all views lie: "global", then "tile 0", "tile 1", ...

        Args:
            image: Number of the image in its sample.
            patch: Side of a patch in pixels.
        """
        found = sliced_views(image, self.source[::-1], (1, 1), patch, "global")
        if self.grid is not None:
            canvas, grid = self.canvas[::-1], self.grid[::-1]
            found += sliced_views(image, canvas, grid, patch, "tile {}")
        return joined(found)


def _multiple(length: float, of: int) -> int:
    """The multiple that is nearest to a length, at least one."""
    return max(round(length / of) * of, of)
