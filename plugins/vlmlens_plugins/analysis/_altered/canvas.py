"""Hiding pixels of a sample's images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from vlmlens.errors import SelectorError, SpecError
from vlmlens.regions import ATTRIBUTE, Shape, check_inside, regions_of
from vlmlens.rows.sample_regions import read_mask
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._altered.alterations import OTHER, Alteration, Area
from vlmlens_plugins.analysis._statistics import generator

Pixels = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]

_COLORS = {"gray": 128, "black": 0, "white": 255}


def altered(
    sample: Sample, alteration: Alteration | None, others: Sequence[str | Image.Image] = ()
) -> Sample:
    """The sample with some pixels hidden; see `Canvas.altered`."""
    return Canvas(sample).altered(alteration, others)


class Canvas:
    """The images of a sample, opened once and altered several times.

    Args:
        sample: With images.
    """

    def __init__(self, sample: Sample) -> None:
        self.sample = sample
        self._fills: dict[tuple[int, str], Pixels] = {}

    @cached_property
    def pixels(self) -> list[Pixels]:
        """Each image, uint8 `[height, width, 3]`.

        Raises:
            ImageError: One cannot be read.
        """
        return [np.asarray(image) for image in self.sample.open_images()]

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(width, height) of each image."""
        return [(one.shape[1], one.shape[0]) for one in self.pixels]

    def inside(self, area: Area) -> list[Bools]:
        """Which pixels an area holds: per image, bool `[height, width]`.

        Raises:
            SelectorError: The sample has no such region.
            DataError: Its regions cannot be used.
            ImageError: A mask cannot be read.
        """
        found = [np.zeros(one.shape[:2], bool) for one in self.pixels]
        for name in area.regions:
            for shape in self._shapes(name):
                self._add(found[shape.image], shape)
        for image, *box in area.boxes:
            _fill_box(found[image], box)
        right, down = area.shift
        return [np.roll(one, (down, right), (0, 1)) for one in found] if right or down else found

    def altered(
        self, alteration: Alteration | None, others: Sequence[str | Image.Image] = ()
    ) -> Sample:
        """The sample with some pixels hidden. None: as it is, but opened.

        If an area is to be kept, images in which it holds no pixel are filled altogether.

        Args:
            alteration: What is hidden.
            others: The images for the fill "other", one for each of the sample's.

        Raises:
            SpecError: The fill is "other" and there are not as many other images.
            SelectorError: The sample has no such region.
            DataError: Its regions cannot be used.
            ImageError: An image or a mask cannot be read.
        """
        if alteration is None:
            return replace(self.sample, images=tuple(map(Image.fromarray, self.pixels)))
        fills = self._filled(alteration, others)
        made = []
        for pixels, inside, fill in zip(
            self.pixels, self.inside(alteration.area), fills, strict=True
        ):
            hidden = inside if alteration.hide is not None else ~inside
            shown = np.where(hidden[..., None], fill, pixels) if hidden.any() else pixels
            made.append(Image.fromarray(shown))
        return replace(self.sample, images=tuple(made))

    @cached_property
    def _regions(self) -> Mapping[str, Sequence[Shape]]:
        found = regions_of(self.sample.attributes.get(ATTRIBUTE), self.sample.id)
        check_inside(found, self.sizes, self.sample.id)
        return found

    def _shapes(self, name: str) -> Sequence[Shape]:
        if name not in self._regions:
            known = ", ".join(self._regions)
            raise SelectorError(
                f"The sample {self.sample.id!r} has no region {name!r}.",
                subject=name,
                hint=f"Its regions are {known}."
                if known
                else 'Give samples an attribute `regions`: {"NAME": [left, top, right, bottom]}, '
                "in pixels; see docs/extraction.md.",
            )
        return self._regions[name]

    def _add(self, found: Bools, shape: Shape) -> None:
        if shape.box is not None:
            _fill_box(found, shape.box)
        else:
            size = (found.shape[1], found.shape[0])
            found |= read_mask(str(shape.mask), size, self.sample.id)

    def _filled(
        self, alteration: Alteration, others: Sequence[str | Image.Image]
    ) -> Sequence[Pixels]:
        """Per image, what stands in place of hidden pixels; broadcasts to its shape."""
        if alteration.fill != OTHER:
            return [self._fill(number, alteration) for number in range(len(self.pixels))]
        if len(others) != len(self.pixels):
            raise SpecError(
                f"The sample {self.sample.id!r} has {len(self.pixels)} images, and "
                f"{len(others)} others to fill hidden parts with.",
                subject=self.sample.id,
                hint="Give one for each.",
            )
        donor = Canvas(replace(self.sample, images=tuple(others), attributes={}))
        if alteration.cleared is not None:
            donor = Canvas(donor.altered(Alteration(hide=alteration.cleared)))
        return [
            np.asarray(Image.fromarray(own).resize(size)) if (own.shape[1::-1] != size) else own
            for own, size in zip(donor.pixels, self.sizes, strict=True)
        ]

    def _fill(self, number: int, alteration: Alteration) -> Pixels:
        said = {"blur": f" {alteration.blur}", "noise": f" {alteration.seed}"}
        key = number, alteration.fill + said.get(alteration.fill, "")
        if key not in self._fills:
            self._fills[key] = _filling(self.pixels[number], number, alteration)
        return self._fills[key]


def _filling(pixels: Pixels, number: int, alteration: Alteration) -> Pixels:
    if alteration.fill == "mean":
        mean: Pixels = pixels.mean((0, 1)).round().astype(np.uint8)
        return mean
    if alteration.fill == "blur":
        radius = alteration.blur * max(pixels.shape[:2])
        return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius)))
    if alteration.fill == "noise":
        rng = generator(alteration.seed, "altered-noise", str(number))
        return rng.integers(0, 256, pixels.shape, np.uint8)
    return np.full(3, _COLORS[alteration.fill], np.uint8)


def _fill_box(found: Bools, box: Sequence[float]) -> None:
    left, top, right, bottom = box
    found[
        max(math.floor(top), 0) : max(math.ceil(bottom), 0),
        max(math.floor(left), 0) : max(math.ceil(right), 0),
    ] = True
