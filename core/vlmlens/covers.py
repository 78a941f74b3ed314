"""Covers: rectangles of a picture that are hidden before the model sees it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vlmlens.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

    from vlmlens.samples import Sample

COVERED = "covered"
"""The attribute that says which parts of a sample's picture are hidden."""

_EXAMPLE = "Give four fractions of the picture's width and height: 0.25,0,0.5,0.5."


@dataclass(frozen=True, slots=True)
class Cover:
    """A rectangle of a picture that is filled with the picture's mean color.

    Args:
        left, top, right, bottom: Its edges, as fractions of width and height, 0 to 1.

    Raises:
        DataError: The edges are no such numbers, or enclose nothing.

    >>> Cover.parse("0.25, 0, 0.5, 1")
    Cover(left=0.25, top=0.0, right=0.5, bottom=1.0)
    """

    left: float
    top: float
    right: float
    bottom: float

    def __post_init__(self) -> None:
        if not all(math.isfinite(edge) and 0 <= edge <= 1 for edge in self.edges):
            raise DataError(
                f"The cover {self} has an edge that is not between 0 and 1.",
                subject="cover",
                hint=_EXAMPLE,
            )
        if self.left >= self.right or self.top >= self.bottom:
            raise DataError(
                f"The cover {self} encloses nothing: it goes from left, top to right, bottom.",
                subject="cover",
                hint=_EXAMPLE,
            )

    @classmethod
    def parse(cls, text: str) -> Cover:
        """The cover that is written `LEFT,TOP,RIGHT,BOTTOM`.

        Raises:
            DataError: It has another form.
        """
        try:
            return cls.of([float(edge) for edge in text.split(",")])
        except ValueError as error:
            raise DataError(f"{text!r} is no cover.", subject="cover", hint=_EXAMPLE) from error

    @classmethod
    def of(cls, edges: Cover | Sequence[float]) -> Cover:
        """The cover with these edges: left, top, right, bottom.

        Raises:
            DataError: They are not four numbers.
        """
        if isinstance(edges, Cover):
            return edges
        if isinstance(edges, str) or len(edges) != len(cls.__slots__):
            raise DataError(f"{edges!r} is no cover.", subject="cover", hint=_EXAMPLE)
        return cls(*map(float, edges))

    def __str__(self) -> str:
        return ",".join(
            f"{edge:g}" if float(f"{edge:g}") == edge else repr(edge) for edge in self.edges
        )

    @property
    def edges(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom."""
        return self.left, self.top, self.right, self.bottom

    def pixels(self, width: int, height: int) -> tuple[int, int, int, int]:
        """(left, top, right, bottom) in pixels: the nearest ones, and at least one each way."""
        left = min(round(self.left * width), width - 1)
        top = min(round(self.top * height), height - 1)
        right = max(round(self.right * width), left + 1)
        return left, top, right, max(round(self.bottom * height), top + 1)


def covered(sample: Sample, covers: Sequence[Cover]) -> Sample:
    """The sample with parts of its first picture hidden; the same sample without covers.

    What stands there is the mean color of the whole picture, as in `occlusion`.

    Args:
        sample: With a picture.
        covers: What is hidden.

    Raises:
        DataError: It has no picture, or a video whose frames are not chosen yet.
        ImageError: The picture cannot be read.
    """
    if not covers:
        return sample
    if not sample.images:
        raise DataError(
            f"Sample {sample.id!r} has no picture of which a part could be covered.",
            subject="cover",
            hint="Leave the covers out.",
        )
    first, *rest = sample.open_images()
    return replace(sample, images=(_filled(first, covers), *rest))


def _filled(picture: Image, covers: Sequence[Cover]) -> Image:
    import numpy as np
    from PIL import Image as PILImage

    pixels = np.array(picture)
    mean = pixels.mean((0, 1)).round().astype(np.uint8)
    height, width = pixels.shape[:2]
    for cover in covers:
        left, top, right, bottom = cover.pixels(width, height)
        pixels[top:bottom, left:right] = mean
    return PILImage.fromarray(pixels)
