"""Pixtral: a tower that takes images of any shape, all patches of a batch in one row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from vlmlens.hf import (
    LLAVA_RENAMES,
    LLAVA_SITES,
    CropGeometry,
    PlacedImage,
    TransformersAdapter,
    grid_patches,
)
from vlmlens.hf.layouts import packed_layout
from vlmlens.sites import Axis, Rename, SiteTemplate
from vlmlens.tokens import AxisLayout, PatchGrid
from vlmlens_adapter_pixtral import mistral
from vlmlens_adapter_pixtral.manifest import MANIFEST

_BLOCK = SiteTemplate(
    "vision.block.{i}", ("model.vision_tower.transformer.layers.{i}",), Axis.VISION
)


class PixtralAdapter(TransformersAdapter):
    """`LlavaForConditionalGeneration` with a `PixtralVisionModel`."""

    image_placeholders: ClassVar[Sequence[str]] = MANIFEST.placeholders
    shares_prefix: ClassVar[bool] = True
    shares_images: ClassVar[bool] = True
    reads_feature_layer: ClassVar[bool] = True
    templates: ClassVar[Sequence[SiteTemplate]] = (_BLOCK, *LLAVA_SITES[1:])
    renames: ClassVar[Sequence[Rename]] = (*LLAVA_RENAMES, *mistral.RENAMES)

    @classmethod
    def read_config(cls, model: str, arguments: Mapping[str, Any]) -> Any:
        """See `TransformersAdapter.read_config`."""
        files = mistral.find(model, arguments)
        return mistral.config(files) if files else super().read_config(model, arguments)

    @classmethod
    def read_module(cls, model: str, config: Any, arguments: Mapping[str, Any]) -> Any:
        """See `TransformersAdapter.read_module`."""
        files = mistral.find(model, arguments)
        if files is None:
            return super().read_module(model, config, arguments)
        return mistral.module(files, config, arguments)

    def read_processor(self, model: str, arguments: Mapping[str, Any]) -> Any:
        """See `LoadedModel.read_processor`."""
        files = mistral.find(model, arguments)
        return mistral.processor(files) if files else super().read_processor(model, arguments)

    def patch_grid(self, image: PlacedImage) -> PatchGrid:
        """See `TransformersAdapter.patch_grid`: the whole image, resized to whole patches."""
        patch = int(self.config.vision_config.patch_size)
        height, width = (int(n) for n in image.inputs["image_sizes"][image.index])
        rows, cols = height // patch, width // patch
        return grid_patches(image.image, rows, cols, (patch, patch), CropGeometry(width, height))

    def image_layouts(
        self, images: Sequence[Sequence[PlacedImage]], grids: Sequence[PatchGrid | None]
    ) -> Mapping[Axis, AxisLayout]:
        """See `TransformersAdapter.image_layouts`."""
        rows = [[np.arange(len(self.patch_grid(image))) for image in group] for group in images]
        packed = packed_layout(rows, grids)
        return {Axis.VISION: packed, Axis.PROJECTOR: packed}
