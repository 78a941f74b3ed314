"""Removal: objects are taken out of image rows; hallucinated ones should go, true ones stay."""

from vlmlens_plugins.analysis.removal.analysis import Removal

__all__ = ["Removal"]
