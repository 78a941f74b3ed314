"""The pointing game: whether the peak of a map lies in the region that it should lie in.

J. Zhang et al., "Top-down Neural Attention by Excitation Backprop", ECCV 2016, arXiv 1608.00507,
without their tolerance of 15 pixels: the middle of the highest patch counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vlmlens.errors import SpecError
from vlmlens.regions import ATTRIBUTE, regions_of
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._altered import Area, Canvas
from vlmlens_plugins.analysis._maps.maps import PatchMap

Bools = npt.NDArray[np.bool_]

KEY = "region"
"""The attribute of a sample that names the region which its answer is about."""
ALL_REGIONS = "*"


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


def regions_for(samples: Sequence[Sample], wanted: str | None) -> list[Region | None]:
    """Where the peak of each sample's map should lie; None where it is not known.

    Without a wish, samples name their regions by the attribute `region`. In a task in which none
    does, all regions of a sample together are meant.

    Args:
        samples: The samples.
        wanted: A name, several joined by +, or `*` for all.

    Raises:
        SpecError: No sample has the wanted region.
        SelectorError: A sample names a region that it does not have.
        DataError: The regions of a sample cannot be used.
        ImageError: An image or a mask cannot be read.
    """
    naming = {sample.task for sample in samples if sample.attributes.get(KEY)}
    found: list[Region | None] = []
    for sample in samples:
        known = tuple(regions_of(sample.attributes.get(ATTRIBUTE), sample.id))
        own = sample.attributes.get(KEY) if sample.task in naming else ALL_REGIONS
        names = _named(str(own or "") if wanted is None else wanted, known)
        if wanted is not None and not set(names) <= set(known):
            names = ()
        found.append(Region.of(sample, names) if names else None)
    if wanted not in (None, ALL_REGIONS) and not any(found):
        raise SpecError(
            f"No sample has a region {wanted!r}.",
            subject=wanted,
            hint='Samples say where they are by an attribute `regions`: {"NAME": [left, top, '
            "right, bottom]}, in pixels; see docs/extraction.md.",
        )
    return found


def _named(text: str, known: Sequence[str]) -> tuple[str, ...]:
    if text == ALL_REGIONS:
        return tuple(known)
    return (text,) if text in known else tuple(n for n in map(str.strip, text.split("+")) if n)


def _at(inside: Bools, x: float, y: float) -> bool:
    height, width = inside.shape
    if not (0 <= x < 1 and 0 <= y < 1):
        return False
    return bool(inside[int(y * height), int(x * width)])
