"""Molmo2: a small view and overlapping crops, pooled by attention, added to token embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from vlmlens.hf import (
    LLAVA_SITES,
    CropGeometry,
    PlacedImage,
    TransformersAdapter,
    crop_patches,
    grid_patches,
    joined,
    raster_layout,
    tower_layout,
)
from vlmlens.hf.checkpoints import read_config_json
from vlmlens.sites import Axis, Rename, SiteTemplate
from vlmlens.tokens import AxisLayout, PatchGrid
from vlmlens_adapter_molmo.generations import check_generation
from vlmlens_adapter_molmo.images import Canvas, Molmo2Images, canvas_of, pooled
from vlmlens_adapter_molmo.manifest import MANIFEST


class Molmo2Adapter(TransformersAdapter):
    """`Molmo2ForConditionalGeneration`: image tokens see each other both ways.

    `mm_token_type_ids` says which they are; without it the model computes something else.
    """

    image_placeholders: ClassVar[Sequence[str]] = MANIFEST.placeholders
    templates: ClassVar[Sequence[SiteTemplate]] = (
        SiteTemplate("vision.block.{i}", ("model.vision_tower.layers.{i}",), Axis.VISION),
        *LLAVA_SITES,
    )
    renames: ClassVar[Sequence[Rename]] = (
        Rename(r"^model\.transformer\.blocks(?=\.|$)", "model.language_model.layers"),
        Rename(r"^model\.transformer\.ln_f$", "model.language_model.norm"),
        Rename(r"^model\.transformer\.wte$", "model.language_model.embed_tokens"),
        Rename(
            r"^model\.vision_backbone\.image_vit\.transformer\.resblocks(?=\.|$)",
            "model.vision_tower.layers",
        ),
        Rename(
            r"^model\.vision_backbone\.(image_pooling_2d|image_projector)(?=\.|$)",
            r"model.multi_modal_projector.\1",
        ),
    )
    image_processor_class: ClassVar[type[Any] | None] = Molmo2Images
    shares_images: ClassVar[bool] = True

    @property
    def tower_states(self) -> Sequence[int]:
        """See `TransformersAdapter.tower_states`; the config numbers blocks, not states."""
        numbers = self.config.adapter_config.vision_feature_layer
        return [number + 1 if number >= 0 else number for number in numbers]

    @classmethod
    def read_config(cls, model: str, arguments: Mapping[str, Any]) -> Any:
        """See `TransformersAdapter.read_config`; the first Molmo has an adapter of its own."""
        check_generation(read_config_json(model, arguments), "molmo2", model)
        return super().read_config(model, arguments)

    def patch_grid(self, image: PlacedImage) -> PatchGrid | None:
        """See `TransformersAdapter.patch_grid`: the small view, then all crops as one grid."""
        canvas = self._canvas(image)
        window = self.processor.image_processor.pooling_size
        small = pooled_patches(image.image, canvas.side, canvas.side, window, "global")
        large = pooled_patches(image.image, canvas.height, canvas.width, window, "crops")
        return joined([small, large])

    def image_layouts(
        self, images: Sequence[Sequence[PlacedImage]], grids: Sequence[PatchGrid | None]
    ) -> Mapping[Axis, AxisLayout]:
        """See `TransformersAdapter.image_layouts`."""
        fine = [joined([self._views(image) for image in group]) for group in images]
        settings = self.processor.image_processor
        patches = (settings.size["height"] // settings.patch_size) ** 2
        views = [0 if grid is None else len(grid) // patches for grid in fine]
        return {
            Axis.VISION: tower_layout(views, patches, fine),
            Axis.PROJECTOR: raster_layout(grids),
        }

    def _canvas(self, image: PlacedImage) -> Canvas:
        return canvas_of(self.processor.image_processor, image.height, image.width)

    def _views(self, image: PlacedImage) -> PatchGrid | None:
        """The patches of the vision tower: the small view's, then crop by crop."""
        canvas = self._canvas(image)
        side = canvas.side
        whole = CropGeometry(side, side)
        small = grid_patches(image.image, side, side, (1, 1), whole, "global")
        crops = crop_patches(
            image.image, (side, side), CropGeometry(canvas.width, canvas.height),
            (canvas.rows, canvas.cols), name="crop {}", step=canvas.step,
        )  # fmt: skip
        return joined([small, *crops])


def pooled_patches(
    image: int, height: int, width: int, window: Sequence[int], view: str
) -> PatchGrid:
    """The tokens of a raster of patches, pooled in windows; those at the edge may be smaller.

    Args:
        image: Number of the image in its sample.
        height: Rows of the raster.
        width: Its columns.
        window: (rows, columns) of patches in a token.
        view: Name of the view.
    """
    windows = pooled(np.arange(height * width).reshape(height, width), *window)
    rows, cols = windows.shape[:2]
    numbers = windows.reshape(rows * cols, -1)
    y, x = (np.ma.masked_where(numbers < 0, place) for place in divmod(numbers, width))
    edges = [x.min(1) / width, y.min(1) / height, (x.max(1) + 1) / width, (y.max(1) + 1) / height]
    grid = grid_patches(image, rows, cols, (1, 1), CropGeometry(cols, rows), view)
    return replace(grid, box=np.stack(edges, 1).astype(np.float32))
