"""Samples whose images show nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image

from vlmlens.samples import Sample
from vlmlens_plugins.analysis._statistics import generator
from vlmlens_plugins.analysis.blind_test.options import Blank

_COLORS = {"gray": (128, 128, 128), "black": (0, 0, 0), "white": (255, 255, 255)}
_ORIENTATION = 0x0112
_TURNED = 5


def blanked(sample: Sample, blank: Blank, seed: int) -> Sample:
    """The sample with every image replaced by a blank one of its size, or by none.

    Noise is uniform, drawn anew for each sample id.
    """
    if blank == "none":
        return replace(sample, images=())
    rng = generator(seed, "blind-noise", sample.id)
    images = tuple(_blank_image(size, blank, rng) for size in image_sizes(sample))
    return replace(sample, images=images)


def image_sizes(sample: Sample) -> list[tuple[int, int]]:
    """(width, height) of each image as it is shown, read without decoding files."""
    return [_size(image) for image in sample.images]


def _blank_image(size: tuple[int, int], blank: Blank, rng: np.random.Generator) -> Image.Image:
    if blank == "noise":
        return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    return Image.new("RGB", size, _COLORS[blank])


def _size(image: str | Image.Image) -> tuple[int, int]:
    if isinstance(image, str):
        with Image.open(image) as opened:
            return _upright_size(opened)
    return _upright_size(image)


def _upright_size(image: Image.Image) -> tuple[int, int]:
    width, height = image.size
    turned = image.getexif().get(_ORIENTATION, 1) >= _TURNED
    return (height, width) if turned else (width, height)
