"""Images cut into cells: where a map is high, and which pixels are hidden first.

Maps have patches of any size, so they are compared on one grid: every image is cut into as many
cells along each side. A cell's value is the mean of the patches over it, by overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vlmlens.tokens import PatchGrid
from vlmlens_plugins.analysis._altered import Area
from vlmlens_plugins.analysis._maps.maps import PatchMap

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
_LEAST = 1e-9


@dataclass(frozen=True, slots=True)
class Cells:
    """The cells of a sample's images, image by image, row by row.

    Args:
        sizes: (width, height) of each image, in pixels.
        side: How many cells there are along each side.
    """

    sizes: Sequence[tuple[int, int]]
    side: int

    def __len__(self) -> int:
        return len(self.sizes) * self.side**2

    @property
    def grid(self) -> PatchGrid:
        """The cells as a grid of patches."""
        one = np.arange(self.side)
        image, row, col = (
            each.ravel() for each in np.meshgrid(range(len(self.sizes)), one, one, indexing="ij")
        )
        edges = np.stack([col, row, col + 1, row + 1], 1) / self.side
        sides = np.full(len(image), self.side)
        names = ("image",) * len(image)
        return PatchGrid(image, names, row, col, sides, sides, edges.astype(np.float32))

    def area(self, numbers: Ints) -> Area:
        """The pixels of some cells; neighbours as one box."""
        chosen = np.zeros((len(self.sizes), self.side, self.side), np.int8)
        chosen.ravel()[numbers] = 1
        found: list[tuple[int, int, int, int, int]] = []
        for image, rows in enumerate(chosen):
            above: dict[tuple[int, int], int] = {}
            turns = np.diff(rows, axis=1, prepend=0, append=0).tolist()
            for y, line in enumerate(turns):
                begin, end = ([x for x, turn in enumerate(line) if turn == to] for to in (1, -1))
                tops = {run: above.get(run, y) for run in zip(begin, end, strict=True)}
                ended = {run: top for run, top in above.items() if run not in tops}
                found += [(image, a, top, b, y) for (a, b), top in ended.items()]
                above = tops
            found += [(image, a, top, b, self.side) for (a, b), top in above.items()]
        return Area(boxes=tuple(self._box(*box) for box in found))

    def windows(self, size: int) -> list[Ints]:
        """The cells of each window of `size` x `size` cells that is moved cell by cell.

        Windows go over the edges, so that each cell is in equally many: `size` squared.
        """
        numbers = np.arange(len(self)).reshape(-1, self.side, self.side)
        starts = range(1 - size, self.side)
        return [
            one[max(0, y) : y + size, max(0, x) : x + size].ravel()
            for one in numbers
            for y in starts
            for x in starts
        ]

    def of_windows(self, values: Sequence[float], size: int) -> Floats:
        """float64 `[cells]`: the mean value of the windows over each cell.

        Windows count the more, the nearer the cell is to their middle: else all cells that the same
        windows cover would be equal, and a large window would have no peak.
        """
        side = self.side + size - 1
        by_window = np.array(values, np.float64).reshape(-1, side, side)
        views = np.lib.stride_tricks.sliding_window_view(by_window, (size, size), (1, 2))
        near = np.minimum(np.arange(size), np.arange(size)[::-1]) + 1.0
        weights = np.outer(near, near) / near.sum() ** 2
        mean: Floats = (views * weights).sum((-2, -1)).ravel()
        return mean

    def values(self, found: PatchMap) -> Floats:
        """float64 `[cells]`: the mean of a map's patches over each cell; NaN without one."""
        grid = found.grid
        placed = np.flatnonzero(~np.isnan(grid.box).any(1))
        box = grid.box[placed].astype(np.float64)
        across, down = (_overlaps(box[:, [k, k + 2]], self.side) for k in (0, 1))
        total, weight = np.zeros((2, len(self.sizes), self.side, self.side))
        for image in range(len(self.sizes)):
            own = grid.image[placed] == image
            total[image] = (down[own] * found.values[placed[own], None]).T @ across[own]
            weight[image] = down[own].T @ across[own]
        with np.errstate(divide="ignore", invalid="ignore"):
            mean: Floats = np.where(weight > _LEAST, total / weight, np.nan).ravel()
        return mean

    def order(self, values: Floats, rng: np.random.Generator) -> Ints:
        """int64 `[cells]`: the cells from the highest value down, equal ones in random order.

        Cells without a value come last.
        """
        ranked = np.where(np.isnan(values), -np.inf, values)
        return np.lexsort((rng.permutation(len(values)), -ranked))

    def centrality(self) -> Floats:
        """float64 `[cells]`: the prior that what matters is in the middle of the image."""
        box = self.grid.box.astype(np.float64)
        return -np.hypot((box[:, 0] + box[:, 2]) / 2 - 0.5, (box[:, 1] + box[:, 3]) / 2 - 0.5)

    def _box(
        self, image: int, left: int, top: int, right: int, bottom: int
    ) -> tuple[int, float, float, float, float]:
        """In whole pixels, so that no pixel is in two cells."""
        width, height = self.sizes[image]
        x, y = (left * width, right * width), (top * height, bottom * height)
        (a, c), (b, d) = ((round(k / self.side) for k in ends) for ends in (x, y))
        return image, a, b, c, d


def _overlaps(spans: Floats, side: int) -> Floats:
    """`[n, cells]`: how much of each cell along one side lies in each span `[n, (from, to)]`."""
    edges = np.arange(side + 1) / side
    low = np.maximum(spans[:, :1], edges[None, :-1])
    high = np.minimum(spans[:, 1:], edges[None, 1:])
    found: Floats = np.clip(high - low, 0, None)
    return found
