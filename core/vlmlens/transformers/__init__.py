"""The base for families with a native transformers class.

A family subclasses `TransformersAdapter`, names its sites, and says how its image tokens lie.
"""

from vlmlens.transformers.adapter import TransformersAdapter
from vlmlens.transformers.layouts import (
    CropGeometry,
    PlacedImage,
    grid_patches,
    joined,
    tower_layout,
)
from vlmlens.transformers.raster import LLAVA_SITES, RasterAdapter, crop_geometry

__all__ = [
    "LLAVA_SITES",
    "CropGeometry",
    "PlacedImage",
    "RasterAdapter",
    "TransformersAdapter",
    "crop_geometry",
    "grid_patches",
    "joined",
    "tower_layout",
]
