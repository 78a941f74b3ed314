"""Activating: which samples drive a coordinate of a column, and which of their patches or words."""

from vlmlens_plugins.analysis.activating.analysis import Activating

__all__ = ["Activating"]
