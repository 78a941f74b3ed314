"""Adapters for models of the `transformers` library: the base classes that a family builds on.

- For: loading, encoding, running and reading such a model; a family adds names and token layouts.
- May use: `abc` and what lies below it, torch and transformers; never a single family's names.
- Add here: what two families need. Token layouts go to `layouts`, `raster` and `tiles`; checkpoint
  files to `weights`; tokenizers and image processing to modules of their own.
"""

import vlmlens.hf._bars  # noqa: F401  before anything imports transformers
from vlmlens.hf.adapter import TransformersAdapter
from vlmlens.hf.layouts import (
    CropGeometry,
    PlacedImage,
    frame_patches,
    grid_patches,
    joined,
    packed_layout,
    raster_layout,
    tower_layout,
)
from vlmlens.hf.raster import (
    LLAVA_RENAMES,
    LLAVA_SITES,
    SIGLIP_SITES,
    RasterAdapter,
    crop_geometry,
)
from vlmlens.hf.tiles import best_canvas, crop_patches, tiled_patches

__all__ = [
    "LLAVA_RENAMES",
    "LLAVA_SITES",
    "SIGLIP_SITES",
    "CropGeometry",
    "PlacedImage",
    "RasterAdapter",
    "TransformersAdapter",
    "best_canvas",
    "crop_geometry",
    "crop_patches",
    "frame_patches",
    "grid_patches",
    "joined",
    "packed_layout",
    "raster_layout",
    "tiled_patches",
    "tower_layout",
]
