"""Aya Vision: SigLIP over tiles, a projector that joins patches four by four, and Cohere 2.

Cohere 2 runs attention and MLP side by side, behind one norm: a block has no
`post_attention_layernorm`. Its own class multiplies logits by `logit_scale`; Aya Vision's does not
(transformers 5), so neither does the readout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from vlmlens.hf import (
    LLAVA_RENAMES,
    SIGLIP_SITES,
    PlacedImage,
    RasterAdapter,
    best_canvas,
    joined,
    tiled_patches,
    tower_layout,
)
from vlmlens.sites import Axis, Rename, SiteTemplate
from vlmlens.tokens import AxisLayout, PatchGrid
from vlmlens_adapter_aya_vision.manifest import MANIFEST


class AyaVisionAdapter(RasterAdapter):
    """`AyaVisionForConditionalGeneration`: tiles in raster order, then the whole image.

    The projector reads the last tower block; `vision.norm` runs, and nothing reads it.
    """

    image_placeholders: ClassVar[Sequence[str]] = MANIFEST.placeholders
    shares_prefix: ClassVar[bool] = True
    reads_feature_layer: ClassVar[bool] = True
    templates: ClassVar[Sequence[SiteTemplate]] = SIGLIP_SITES
    renames: ClassVar[Sequence[Rename]] = LLAVA_RENAMES

    @property
    def image_mark(self) -> str:
        """See `TransformersAdapter.image_mark`."""
        return str(self.processor.image_token)

    @property
    def joined_side(self) -> int:
        """Patches along a side of a tile, after the projector."""
        return self.side // int(self.config.downsample_factor)

    def patch_grid(self, image: PlacedImage) -> PatchGrid:
        """See `TransformersAdapter.patch_grid`."""
        return self._tiles(image, self.joined_side)

    def image_layouts(
        self, images: Sequence[Sequence[PlacedImage]], grids: Sequence[PatchGrid | None]
    ) -> Mapping[Axis, AxisLayout]:
        """See `TransformersAdapter.image_layouts`; the tower's patches are the finer ones."""
        fine = [joined([self._tiles(image, self.side) for image in group]) for group in images]
        tiles = [0 if grid is None else len(grid) // self.side**2 for grid in fine]
        return {
            Axis.VISION: tower_layout(tiles, self.side**2, fine),
            Axis.PROJECTOR: tower_layout(tiles, self.joined_side**2, grids),
        }

    def _tiles(self, image: PlacedImage, side: int) -> PatchGrid:
        canvas = best_canvas(self.processor.image_processor, image.height, image.width)
        return tiled_patches(image.image, side, canvas, overview="last")
