"""Concepts: what lies near what in stored columns, and the directions between."""

from vlmlens_plugins.analysis.concepts.analysis import Concepts
from vlmlens_plugins.analysis.concepts.projecting import coordinates

__all__ = ["Concepts", "coordinates"]
