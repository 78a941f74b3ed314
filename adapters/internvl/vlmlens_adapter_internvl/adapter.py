"""InternVL: an InternViT over square tiles, a projector that merges 2 x 2 patches, an LLM.

Checkpoints come in two layouts: transformers' own ("-hf"), and the original one of
`OpenGVLab/InternVL2_5-*`, which `original` reads into the same transformers class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

from vlmlens.hf import (
    LLAVA_SITES,
    CropGeometry,
    PlacedImage,
    TransformersAdapter,
    best_canvas,
    frame_patches,
    grid_patches,
    joined,
    tiled_patches,
    tower_layout,
)
from vlmlens.hf.load_options import hub_arguments
from vlmlens.sites import Axis, Rename, SiteTemplate
from vlmlens.tokens import AxisLayout, PatchGrid
from vlmlens_adapter_internvl import original
from vlmlens_adapter_internvl.chat import IMAGE_CONTEXT, ChatProcessor
from vlmlens_adapter_internvl.manifest import MANIFEST
from vlmlens_adapter_internvl.paths import RENAMES
from vlmlens_adapter_internvl.tokenizer import load_tokenizer


class InternVLAdapter(TransformersAdapter):
    """`InternVLForConditionalGeneration`."""

    image_placeholders: ClassVar[Sequence[str]] = MANIFEST.placeholders
    video_processors: ClassVar[Mapping[str, str]] = {"internvl": "InternVLVideoProcessor"}
    shares_prefix: ClassVar[bool] = True
    reads_feature_layer: ClassVar[bool] = True
    templates: ClassVar[Sequence[SiteTemplate]] = (
        SiteTemplate("vision.block.{i}", ("model.vision_tower.encoder.layer.{i}",), Axis.VISION),
        *LLAVA_SITES[1:],
    )
    renames: ClassVar[Sequence[Rename]] = RENAMES

    @classmethod
    def read_config(cls, model: str, arguments: Mapping[str, Any]) -> Any:
        """See `TransformersAdapter.read_config`."""
        said = original.read_json(model, arguments)
        if said is None:
            return super().read_config(model, arguments)
        return original.native_config(said, model)

    @classmethod
    def read_module(cls, model: str, config: Any, arguments: Mapping[str, Any]) -> Any:
        """See `TransformersAdapter.read_module`."""
        if original.read_json(model, arguments) is None:
            return super().read_module(model, config, arguments)
        return original.load(model, config, arguments)

    @cached_property
    def original(self) -> Mapping[str, Any] | None:
        """The config of a checkpoint in the original layout, else None."""
        return original.read_json(self.model_name(self.request), hub_arguments(self.request))

    def read_processor(self, model: str, arguments: Mapping[str, Any]) -> Any:
        """See `LoadedModel.read_processor`."""
        if self.original is None:
            return super().read_processor(model, arguments)
        return ChatProcessor(load_tokenizer(model, arguments), self.original, model)

    @cached_property
    def image_token_id(self) -> int:
        """See `TransformersAdapter.image_token_id`; the original config does not name it."""
        if self.original is None:
            return int(self.config.image_token_id)
        return int(self.tokenizer.convert_tokens_to_ids(IMAGE_CONTEXT))

    @property
    def stacked_frames(self) -> tuple[str, int] | None:
        """See `SampleEncoding.stacked_frames`: frames are tiles among the others."""
        return "pixel_values", 0

    def patch_grid(self, image: PlacedImage) -> PatchGrid:
        """See `TransformersAdapter.patch_grid`."""
        return self._patches(image, self._tower_side // self._merged)

    def image_layouts(
        self, images: Sequence[Sequence[PlacedImage]], grids: Sequence[PatchGrid | None]
    ) -> Mapping[Axis, AxisLayout]:
        """See `TransformersAdapter.image_layouts`: the tower sees tiles, each with a CLS token."""
        fine, coarse = self._tower_side**2, (self._tower_side // self._merged) ** 2
        tiles = [len(grid) // coarse if grid else 0 for grid in grids]
        seen = [joined([self._patches(i, self._tower_side) for i in group]) for group in images]
        return {
            Axis.VISION: tower_layout(tiles, fine, seen, special=1),
            Axis.PROJECTOR: tower_layout(tiles, coarse, grids),
        }

    @property
    def _tower_side(self) -> int:
        """Patches along a side of a tile in the vision tower."""
        tile, patch = self.processor.image_processor.size, self.config.vision_config.patch_size
        return int(tile["height"]) // int(patch[0])

    @property
    def _merged(self) -> int:
        """How many patches along a side the projector merges into one token."""
        return round(1 / float(self.config.downsample_ratio))

    def _patches(self, image: PlacedImage, side: int) -> PatchGrid:
        """The patches of all tiles; each frame of a video is one tile, squashed to a square."""
        if image.frames:
            frame = grid_patches(0, side, side, (1, 1), CropGeometry(side, side))
            return frame_patches(frame, image.frames, image.frames)
        canvas = best_canvas(self.processor.image_processor, image.height, image.width)
        return tiled_patches(image.image, side, canvas, overview="last")
