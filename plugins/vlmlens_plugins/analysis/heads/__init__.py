"""Heads by role: previous token, duplicate token, induction, and those that look at the image."""

from vlmlens_plugins.analysis.heads.analysis import Heads

__all__ = ["Heads"]
