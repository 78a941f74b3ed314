"""CHAIR: objects in captions of COCO that are not there (A. Rohrbach et al. 2018, 1809.02156)."""

from vlmlens_plugins.benchmarks.chair.card import CARD
from vlmlens_plugins.benchmarks.chair.dataset import Chair

__all__ = ["CARD", "Chair"]
