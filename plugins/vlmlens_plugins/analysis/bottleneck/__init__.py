"""Bottleneck: where errors come from: eye, alignment, language, reasoning, or a prior."""

from vlmlens_plugins.analysis.bottleneck.analysis import Bottleneck

__all__ = ["Bottleneck"]
