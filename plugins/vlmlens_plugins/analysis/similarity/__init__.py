"""Similarity: how alike columns of one run, or of two, are: CKA, RSA, mutual neighbours."""

from __future__ import annotations

from vlmlens_plugins.analysis.similarity.analysis import Similarity

__all__ = ["Similarity"]
