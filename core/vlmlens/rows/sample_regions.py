"""The regions of one sample's images, and which boxes overlap them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vlmlens.errors import ImageError, SelectorError
from vlmlens.images import UNREADABLE, open_image
from vlmlens.regions import ATTRIBUTE, Shape, check_inside, regions_of

if TYPE_CHECKING:
    from vlmlens.samples import Sample

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

_NEGLIGIBLE = 0.01
"""An overlap of fewer pixels than this along a side is rounding."""


class SampleRegions:
    """The regions of a sample, read when they are asked for.

    Args:
        sample: The sample.
        sizes: (width, height) of each of its images, upright.
    """

    def __init__(self, sample: Sample, sizes: Sequence[tuple[int, int]]) -> None:
        self.sample = sample.id
        self._given = sample.attributes.get(ATTRIBUTE)
        self._sizes = [(width, height) for width, height in sizes]
        self._inside: dict[str, npt.NDArray[np.int64]] = {}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SampleRegions):
            return NotImplemented
        return self._known() == other._known()

    def __hash__(self) -> int:
        return hash(self.sample)

    def _known(self) -> tuple[Any, ...]:
        return self.sample, self._given, self._sizes

    @cached_property
    def shapes(self) -> Mapping[str, Sequence[Shape]]:
        """The shapes of each region, by name; none if the sample has no regions.

        Raises:
            DataError: They cannot be used.
        """
        found = regions_of(self._given, self.sample)
        check_inside(found, self._sizes, self.sample)
        return found

    def named(self, name: str, selector: str) -> list[Shape]:
        """The shapes of a region; of all regions for the name "".

        Args:
            name: The region's name.
            selector: The selector that asks for it, for messages.

        Raises:
            SelectorError: There is no such region.
            DataError: The regions cannot be used.
        """
        check_known(self.shapes, name, self.sample, selector)
        return [s for key, shapes in self.shapes.items() if name in ("", key) for s in shapes]

    def overlaps(self, shape: Shape, boxes: Floats) -> Bools:
        """Which boxes share area with a shape: bool `[n]`.

        Args:
            shape: Of the image in which the boxes lie.
            boxes: `[n, 4]`, (left, top, right, bottom) as fractions of the image.

        Raises:
            ImageError: A mask cannot be read.
        """
        width, height = self._sizes[shape.image]
        left, top, right, bottom = (boxes * (width, height, width, height)).T
        if shape.box is not None:
            low, high, end, under = shape.box
            across = np.minimum(right, end) - np.maximum(left, low)
            down = np.minimum(bottom, under) - np.maximum(top, high)
            found: Bools = (across > _NEGLIGIBLE) & (down > _NEGLIGIBLE)
            return found
        sums = self._sums(str(shape.mask), (width, height))
        x0, y0 = (np.floor(v + _NEGLIGIBLE).astype(int) for v in (left, top))
        x1, y1 = (np.ceil(v - _NEGLIGIBLE).astype(int) for v in (right, bottom))
        x0, x1 = (np.clip(x, 0, width) for x in (x0, x1))
        y0, y1 = (np.clip(y, 0, height) for y in (y0, y1))
        held = sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0]
        inside: Bools = (held > 0) & (x1 > x0) & (y1 > y0)
        return inside

    def _sums(self, path: str, size: tuple[int, int]) -> npt.NDArray[np.int64]:
        """int64 `[height + 1, width + 1]`: how many pixels above and left of each are inside."""
        if path not in self._inside:
            mask = read_mask(path, size, self.sample)
            self._inside[path] = np.pad(mask.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        return self._inside[path]


def check_known(regions: Mapping[str, Any], name: str, sample: str, selector: str) -> None:
    """Raise an error if a sample has no such region; for the name "", if it has none at all.

    Raises:
        SelectorError: It has not.
    """
    if name in regions or (not name and regions):
        return
    what = f"no region {name!r}" if regions else "no regions"
    raise SelectorError(
        f"{selector!r}: the sample {sample!r} has {what}.",
        subject=selector,
        hint=f"Its regions are {', '.join(regions)}."
        if regions
        else 'Give samples an attribute `regions`: {"NAME": [left, top, right, bottom]}, in '
        "pixels; see docs/extraction.md.",
    )


def read_mask(path: str, size: tuple[int, int], sample: str) -> Bools:
    """The pixels of a mask that are not zero: bool `[height, width]`.

    Raises:
        ImageError: It cannot be read, or has another size than its image.
    """
    from PIL import Image as PILImage
    from PIL import ImageOps

    try:
        with open_image(path) as opened:
            upright = ImageOps.exif_transpose(opened)
            if upright.size != size:
                raise _bad_mask(path, sample, "is {} x {} pixels".format(*upright.size), size)
            bands = np.asarray(upright)
            colors = [i for i, band in enumerate(upright.getbands()) if band not in "aA"]
    except (*UNREADABLE, PILImage.DecompressionBombError) as error:
        raise _bad_mask(path, sample, f"cannot be read ({error})", size) from error
    found: Bools = (bands != 0) if bands.ndim == 2 else (bands[..., colors] != 0).any(-1)
    return found


def _bad_mask(path: str, sample: str, what: str, size: tuple[int, int]) -> ImageError:
    return ImageError(
        f"Sample {sample!r}: the mask {path!r} {what}.",
        subject=path,
        hint="A mask is an image of {} x {} pixels, like its image.".format(*size),
    )
