"""Pictures of samples, made small and each embedded in the page once."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from vlmlens.errors import ImageError
from vlmlens.report._embed import data_block
from vlmlens.report._markup import Markup
from vlmlens.sample_table import SampleTable
from vlmlens.samples import Sample

if TYPE_CHECKING:
    from PIL.Image import Image

TINY, SMALL, MIDDLE, LARGE = 96, 192, 256, 448
"""Longest sides in pixels: of a point, beside a question, of a feature, under a map of patches."""
_TIMES = {TINY: 6, MIDDLE: 5}
"""How many times as many pictures of a size are embedded."""
_SHOWN = 4
_PIXELS = 96
"""Pictures up to this size are kept exact and shown with hard pixels."""


def is_small(image: Image) -> bool:
    """Whether single pixels of the picture are to be seen."""
    return max(image.size) <= _PIXELS


def to_show(sample: Sample) -> Sequence[int]:
    """Numbers of the pictures that stand for a sample: the first ones; of a video, some of all."""
    count = len(sample.images)
    if sample.video is None or count <= _SHOWN:
        return range(min(count, _SHOWN))
    return [(2 * i + 1) * count // (2 * _SHOWN) for i in range(_SHOWN)]


def thumbnail(image: Image, side: int = SMALL) -> str:
    """The image as a `data:` URI, at most `side` pixels long: PNG where it is small, else JPEG."""
    content, kind = encoded(image, side)
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def encoded(image: Image, side: int) -> tuple[bytes, str]:
    """The image as a file, at most `side` pixels long, and its media type."""
    made = image.convert("RGB")
    made.thumbnail((side, side))
    kind = "PNG" if is_small(image) else "JPEG"
    buffer = io.BytesIO()
    made.save(buffer, kind, **({"optimize": True} if kind == "PNG" else {"quality": 82}))
    return buffer.getvalue(), f"image/{kind.lower()}"


class Pictures:
    """The pictures that the page's script shows, by number.

    Args:
        samples: Whose pictures these are.
        most: How many pictures are embedded at most of each size; five times as many of features,
            six times as many of points.
    """

    def __init__(self, samples: Sequence[Sample], most: int = 48) -> None:
        self.samples = SampleTable.of(samples)
        self._most = most
        self._made: dict[int, int] = {}
        self._numbers: dict[tuple[object, int], int | None] = {}
        self._listed: list[tuple[str, int, int]] = []

    def number(self, sample: str, image: int = 0, side: int = SMALL) -> int | None:
        """The number of a sample's picture; None if it has none, or if the page holds enough."""
        known = self.samples.get(sample)
        images = () if known is None else known.images
        if known is None or not 0 <= image < len(images):
            return None
        source = images[image]
        key = (source if isinstance(source, str) else id(source), side)
        if key not in self._numbers:
            if self._made.get(side, 0) >= self._most * _TIMES.get(side, 1):
                return None
            self._numbers[key] = self._add(known, image, side)
        return self._numbers[key]

    def shown(self, number: int) -> tuple[str, int, int]:
        """A picture's `data:` URI, width and height."""
        return self._listed[number]

    def block(self) -> Markup:
        """All pictures as data."""
        return data_block(self._listed, "pictures-data")

    def _add(self, sample: Sample, image: int, side: int) -> int | None:
        try:
            alone = replace(sample, images=sample.images[image : image + 1], video=None)
            (opened,) = alone.open_images()
        except ImageError:
            return None
        return self._listed_as(thumbnail(opened, side), opened.size, side)

    def _listed_as(self, source: str, size: tuple[int, int], side: int) -> int:
        """The number of one more picture of a size."""
        self._made[side] = self._made.get(side, 0) + 1
        self._listed.append((source, *size))
        return len(self._listed) - 1
