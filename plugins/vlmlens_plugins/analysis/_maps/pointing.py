"""The pointing game: whether the peak of a map lies in the region that it should lie in.

J. Zhang et al., "Top-down Neural Attention by Excitation Backprop", ECCV 2016, arXiv 1608.00507,
without their tolerance of 15 pixels: the middle of the highest patch counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vlmlens.samples import Sample
from vlmlens_plugins.analysis._altered import Area, Canvas
from vlmlens_plugins.analysis._maps.maps import PatchMap

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Region:
    """The region of a sample that its answer should rest on.

    Args:
        inside: Per image, bool `[height, width]`: which pixels are in it.
    """

    inside: Sequence[Bools]

    @classmethod
    def of(cls, sample: Sample, names: Sequence[str]) -> Region:
        """The named regions of a sample together.

        Raises:
            SelectorError: There is none of such a name.
            DataError: The regions cannot be used.
            ImageError: An image or a mask cannot be read.
        """
        return cls(Canvas(sample).inside(Area(tuple(names))))

    @property
    def share(self) -> float:
        """Its share of all pixels: how often a random pixel lies in it."""
        return sum(int(one.sum()) for one in self.inside) / sum(one.size for one in self.inside)

    @property
    def centre(self) -> float:
        """How often the middle of an image lies in it."""
        return float(np.mean([_at(one, 0.5, 0.5) for one in self.inside]))

    def hit(self, found: PatchMap) -> float:
        """Whether the peak of a map lies in it, 0 or 1; the mean over patches that are as high."""
        box = found.grid.box.astype(np.float64)
        placed = ~np.isnan(box).any(1)
        highest = np.flatnonzero(placed & (found.values >= found.values[placed].max()))
        middles = (box[:, :2] + box[:, 2:]) / 2
        hits = [_at(self.inside[found.grid.image[i]], *middles[i]) for i in highest]
        return float(np.mean(hits))


def _at(inside: Bools, x: float, y: float) -> bool:
    height, width = inside.shape
    if not (0 <= x < 1 and 0 <= y < 1):
        return False
    return bool(inside[int(y * height), int(x * width)])
