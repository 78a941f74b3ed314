"""PerceptionLM: a thumbnail and tiles through a PE tower (timm), pooled patches, a Llama."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch

from vlmlens.errors import MissingDependency
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
from vlmlens.sites import Axis, SiteTemplate
from vlmlens.tokens import AxisLayout, PatchGrid
from vlmlens_adapter_plm.images import PlmImages, tiling
from vlmlens_adapter_plm.manifest import MANIFEST

_TIMM = "model.vision_tower.timm_model"


class PlmAdapter(TransformersAdapter):
    """`PerceptionLMForConditionalGeneration`: tiles of all samples are one batch of the tower."""

    image_placeholders: ClassVar[Sequence[str]] = MANIFEST.placeholders
    shares_prefix: ClassVar[bool] = True
    templates: ClassVar[Sequence[SiteTemplate]] = (
        SiteTemplate("vision.block.{i}", (f"{_TIMM}.blocks.{{i}}",), Axis.VISION),
        SiteTemplate("vision.norm", (f"{_TIMM}.norm",), Axis.VISION),
        *LLAVA_SITES,
    )
    image_processor_class: ClassVar[type[Any] | None] = PlmImages
    return_tensors: ClassVar[str | None] = None

    @classmethod
    def check_config(cls, config: Any) -> None:
        """See `TransformersAdapter.check_config`: timm imports torchvision."""
        if config.vision_config.model_type != "timm_wrapper":
            return
        wanted = ("timm", "torchvision")
        missing = [name for name in wanted if importlib.util.find_spec(name) is None]
        if missing:
            raise MissingDependency(
                f"PerceptionLM's vision tower needs {' and '.join(missing)}, not installed here.",
                subject=missing[0],
                hint=f"pip install {' '.join(missing)} (the torchvision for this torch).",
            )

    def process(self, prompts: Sequence[str], images: Sequence[Sequence[Any]]) -> dict[str, Any]:
        """See `TransformersAdapter.process`: images may have different numbers of tiles."""
        inputs = super().process(prompts, images)
        tiles = inputs.pop("pixel_values", None)
        tensors: dict[str, Any] = {name: torch.tensor(value) for name, value in inputs.items()}
        if tiles is not None:
            tensors["pixel_values"] = torch.cat(list(tiles))[None]
        return tensors

    @property
    def side(self) -> int:
        """Patches along a side of a tile, in the tower."""
        return int(self.processor.image_processor.tile_size) // int(self.processor.patch_size)

    def patch_grid(self, image: PlacedImage) -> PatchGrid | None:
        """See `TransformersAdapter.patch_grid`."""
        return self._views(image, self.side // int(self.config.projector_pooling_ratio))

    def image_layouts(
        self, images: Sequence[Sequence[PlacedImage]], grids: Sequence[PatchGrid | None]
    ) -> Mapping[Axis, AxisLayout]:
        """See `TransformersAdapter.image_layouts`."""
        patches = self.side**2
        fine = [joined([self._views(image, self.side) for image in group]) for group in images]
        tiles = [0 if grid is None else len(grid) // patches for grid in fine]
        special = int(self.config.vision_use_cls_token)
        before_pooling = _patch_first(raster_layout(fine), patches)
        return {
            Axis.VISION: tower_layout(tiles, patches, fine, special=special),
            Axis.PROJECTOR: replace(raster_layout(grids), others=(before_pooling,)),
        }

    def block_widths(self) -> Mapping[str, int]:
        """See `TransformersAdapter.block_widths`."""
        tower = int(self.config.vision_config.model_args["embed_dim"])
        of_tower = {s.path: tower for s in self.sites.canonical.values() if s.axis is Axis.VISION}
        return {**super().block_widths(), **of_tower}

    def _views(self, image: PlacedImage, side: int) -> PatchGrid | None:
        """The thumbnail, then the tiles by rows, each with `side x side` tokens."""
        settings = self.processor.image_processor
        whole = grid_patches(image.image, side, side, (1, 1), CropGeometry(side, side), "global")
        if settings.vision_input_type != "thumb+tile":
            return whole
        cols, rows = tiling(
            image.width, image.height, tile=settings.tile_size, most=settings.max_num_tiles
        )
        canvas = CropGeometry(side * cols, side * rows)
        return joined([whole, *crop_patches(image.image, (side, side), canvas, (rows, cols))])


def _patch_first(layout: AxisLayout, patches: int) -> AxisLayout:
    """The layout of the projector's linear layers: `[patches, tiles, width]`, not tiles first."""
    tiles = layout.total // patches
    samples = [
        replace(one, rows=one.rows % patches * tiles + one.rows // patches)
        for one in layout.samples
    ]
    return AxisLayout(layout.total, samples)
