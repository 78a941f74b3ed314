"""Hallucination from inside: which internal signals tell that an answer is wrong."""

from vlmlens_plugins.analysis.hallucination.analysis import Hallucination

__all__ = ["Hallucination"]
