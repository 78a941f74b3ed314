"""MiniCPM-V 4.6 and 4.7: an overview and slices, whose patches are merged on the way and after."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from vlmlens.sites import Axis, Rename, SiteTemplate
from vlmlens.tokens import AxisLayout, PatchGrid
from vlmlens.transformers import (
    SIGLIP_SITES,
    CropGeometry,
    PlacedImage,
    TransformersAdapter,
    grid_patches,
    joined,
    raster_layout,
)


class MiniCpmAdapter(TransformersAdapter):
    """`MiniCPMV4_6ForConditionalGeneration`, `MiniCPMV4_7ForConditionalGeneration`.

    The tower merges 2 x 2 patches after one of its blocks (unless the checkpoint keeps four times
    the tokens), the connector once more: later blocks have a quarter of the rows.
    """

    templates: ClassVar[Sequence[SiteTemplate]] = (
        *SIGLIP_SITES[:2],
        SiteTemplate("projector", ("model.merger",), Axis.PROJECTOR),
        *SIGLIP_SITES[2:],
    )
    renames: ClassVar[Sequence[Rename]] = (
        Rename(r"^llm\.lm_head$", "lm_head"),
        Rename(r"^llm\.model(?=\.|$)", "model.language_model"),
        Rename(r"^vpm(?=\.|$)", "model.vision_tower"),
    )

    @property
    def merged(self) -> int:
        """Patches along a side that become one token of the language model."""
        return 2 if self.config.downsample_mode == "4x" else 4

    def patch_grid(self, image: PlacedImage) -> PatchGrid | None:
        """See `TransformersAdapter.patch_grid`: the overview, then the slices by rows."""
        return self._views(image, self.merged)

    def image_layouts(
        self, images: Sequence[Sequence[PlacedImage]], grids: Sequence[PatchGrid | None]
    ) -> Mapping[Axis, AxisLayout]:
        """See `TransformersAdapter.image_layouts`."""
        levels = [
            raster_layout([joined([self._views(i, merged) for i in group]) for group in images])
            for merged in (1, 2)
        ]
        return {
            Axis.VISION: replace(levels[0], others=levels[1:]),
            Axis.PROJECTOR: raster_layout(grids),
        }

    def _views(self, image: PlacedImage, merged: int) -> PatchGrid | None:
        """All views of an image, where `merged x merged` patches are one token."""
        settings = self.processor.image_processor
        size, resolution = (image.height, image.width), settings.scale_resolution
        cut = settings.get_sliced_grid(size, settings.max_slice_nums, resolution)
        slices = cut if settings.slice_mode else None
        arguments = {
            "scale_resolution": resolution,
            "patch_size": settings.patch_size,
            "downsample_mode": settings.downsample_mode,
        }
        whole = settings.find_best_resize(size, allow_upscale=slices is None, **arguments)
        cell = merged * settings.patch_size
        views = list(_sliced(image.image, whole, (1, 1), cell, "global"))
        if slices is not None:
            canvas = settings.get_refine_size(size, slices, allow_upscale=True, **arguments)
            views += _sliced(image.image, canvas, slices, cell, "tile {}")
        return joined(views)


def _sliced(
    image: int, canvas: Sequence[int], slices: Sequence[int], cell: int, name: str
) -> Iterator[PatchGrid]:
    """The views of an image that is squashed onto a canvas and cut, by rows.

    Args:
        image: Number of the image in its sample.
        canvas: (height, width) in pixels.
        slices: (rows, columns) of views.
        cell: Side of a token in pixels.
        name: Of a view, with its number.
    """
    height, width = (size // cell for size in canvas)
    rows, cols = height // slices[0], width // slices[1]
    for number in range(slices[0] * slices[1]):
        row, col = divmod(number, slices[1])
        placed = CropGeometry(width, height, left=col * cols, top=row * rows)
        yield grid_patches(image, rows, cols, (1, 1), placed, name.format(number))
