"""LLaVA-NeXT: an image squashed into one square, then the same image in tiles."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

from transformers.image_processing_utils import select_best_resolution

from vlmlens.hf import (
    LLAVA_RENAMES,
    CropGeometry,
    PlacedImage,
    RasterAdapter,
    crop_patches,
    grid_patches,
    joined,
    tower_layout,
)
from vlmlens.hf.layouts import with_row_ends
from vlmlens.sites import Axis, Rename
from vlmlens.tokens import AxisLayout, PatchGrid
from vlmlens_adapter_llavanext.manifest import MANIFEST


@dataclass(frozen=True, slots=True)
class Canvas:
    """The tiled view of one image, in pixels: the image, scaled into the middle of a canvas."""

    height: int
    width: int
    geometry: CropGeometry


class LlavaNextAdapter(RasterAdapter):
    """`LlavaNextForConditionalGeneration`."""

    image_placeholders: ClassVar[Sequence[str]] = MANIFEST.placeholders
    shares_prefix: ClassVar[bool] = True
    shares_images: ClassVar[bool] = True
    reads_feature_layer: ClassVar[bool] = True
    renames: ClassVar[Sequence[Rename]] = LLAVA_RENAMES

    def patch_grid(self, image: PlacedImage) -> PatchGrid:
        """See `TransformersAdapter.patch_grid`: the global view, then the tiles without padding.

        Every row of the tiles ends in a newline feature.
        """
        canvas, patch = self.canvas(image), self.patch
        height, width = canvas.height // patch, canvas.width // patch
        top, left = _padding(image, height, width)
        geometry = CropGeometry(
            canvas.geometry.width,
            canvas.geometry.height,
            left=canvas.geometry.left + left * patch,
            top=canvas.geometry.top + top * patch,
        )
        rows, cols = height - 2 * top, width - 2 * left
        tiles = grid_patches(image.image, rows, cols, (patch, patch), geometry, "tiles")
        views = [self.global_grid(image), with_row_ends(tiles, image.image, rows, cols)]
        return cast(PatchGrid, joined(views))

    def image_layouts(
        self, images: Sequence[Sequence[PlacedImage]], grids: Sequence[PatchGrid | None]
    ) -> Mapping[Axis, AxisLayout]:
        """See `TransformersAdapter.image_layouts`: tile after tile, the global one first."""
        del grids
        tiles = [[grid for image in group for grid in self.tile_grids(image)] for group in images]
        counts, together = [len(group) for group in tiles], [joined(group) for group in tiles]
        patches = self.side**2
        return {
            Axis.VISION: tower_layout(counts, patches, together, special=self.tower_special),
            Axis.PROJECTOR: tower_layout(counts, patches, together),
        }

    def global_grid(self, image: PlacedImage) -> PatchGrid:
        """The grid of the whole image, squashed into one square."""
        side = self.side
        return grid_patches(image.image, side, side, (1, 1), CropGeometry(side, side), "global")

    def tile_grids(self, image: PlacedImage) -> list[PatchGrid]:
        """The grid of every tile that the vision tower sees, padding included."""
        canvas, side, edge = self.canvas(image), self.side, self.side * self.patch
        crops = (canvas.height // edge, canvas.width // edge)
        tiles = crop_patches(image.image, (side, side), canvas.geometry, crops, patch=self.patch)
        return [self.global_grid(image), *tiles]

    def canvas(self, image: PlacedImage) -> Canvas:
        """How the image lies in the best of the checkpoint's resolutions."""
        pinpoints = self.config.image_grid_pinpoints
        height, width = select_best_resolution((image.height, image.width), pinpoints)
        across, down = width / image.width, height / image.height
        if across < down:
            new_height, new_width = min(math.ceil(image.height * across), height), width
        else:
            new_height, new_width = height, min(math.ceil(image.width * down), width)
        left, top = (width - new_width) // 2, (height - new_height) // 2
        return Canvas(height, width, CropGeometry(new_width, new_height, left=-left, top=-top))


def _padding(image: PlacedImage, height: int, width: int) -> tuple[int, int]:
    """Rows at the top and columns at the left that the model takes off the tiles as padding.

    It counts them in patches and from the aspect ratio alone, so that a patch at the edge may lie
    partly in the padding. Rounding: `unpad_image` in transformers' LLaVA-NeXT.
    """
    if image.width / image.height > width / height:
        return (height - int(round(image.height * (width / image.width), 7))) // 2, 0
    return 0, (width - int(round(image.width * (height / image.height), 7))) // 2
