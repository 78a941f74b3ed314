"""Patch grids of an image that is cut into an overview and slices."""

from __future__ import annotations

from collections.abc import Sequence

from vlmlens.hf import CropGeometry, crop_patches
from vlmlens.tokens import PatchGrid


def sliced_views(
    image: int, canvas: Sequence[int], slices: Sequence[int], cell: int, name: str
) -> list[PatchGrid]:
    """The views of an image that is resized to a canvas and cut, by rows.

    Args:
        image: Number of the image in its sample.
        canvas: (height, width) in pixels.
        slices: (rows, columns) of views.
        cell: Side of a token in pixels.
        name: Of a view, with its number.
    """
    height, width = (size // cell for size in canvas)
    patches = (height // slices[0], width // slices[1])
    crops = (slices[0], slices[1])
    return crop_patches(image, patches, CropGeometry(width, height), crops, name=name)
