"""Attention: what it goes to by block and head, and maps over the picture that are made of it."""

from vlmlens_plugins.analysis.attention.analysis import AttentionAnalysis

__all__ = ["AttentionAnalysis"]
