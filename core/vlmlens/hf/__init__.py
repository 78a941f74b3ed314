"""The base for families with a native transformers class.

A family subclasses `TransformersAdapter`, names its sites, and says how its image tokens lie.
"""

from vlmlens.hf.adapter import TransformersAdapter
from vlmlens.hf.layouts import (
    CropGeometry,
    PlacedImage,
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
from vlmlens.hf.tiles import best_canvas, tiled_patches

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
    "grid_patches",
    "joined",
    "packed_layout",
    "raster_layout",
    "tiled_patches",
    "tower_layout",
]
