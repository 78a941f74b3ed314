"""Occlusion: where in the image the answer's evidence lies, and how faithful maps of it are."""

from vlmlens_plugins.analysis.occlusion.analysis import Occlusion

__all__ = ["Occlusion"]
