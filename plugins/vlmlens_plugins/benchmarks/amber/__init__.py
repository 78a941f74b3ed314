"""AMBER: captions and yes/no questions on hallucination (J. Wang et al. 2023, 2311.07397)."""

from vlmlens_plugins.benchmarks.amber.card import CARD
from vlmlens_plugins.benchmarks.amber.dataset import Amber

__all__ = ["CARD", "Amber"]
