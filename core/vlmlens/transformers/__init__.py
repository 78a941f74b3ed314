"""The base for families with a native transformers class.

A family subclasses `TransformersAdapter`, names its sites, and says how its image tokens lie.
"""

from vlmlens.transformers.adapter import TransformersAdapter
from vlmlens.transformers.layouts import CropGeometry, PlacedImage, grid_patches, tower_layout

__all__ = ["CropGeometry", "PlacedImage", "TransformersAdapter", "grid_patches", "tower_layout"]
