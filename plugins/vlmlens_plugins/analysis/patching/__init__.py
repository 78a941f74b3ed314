"""Activation patching: which rows at which sites carry the answer from one run into another."""

from vlmlens_plugins.analysis.patching.analysis import Patching

__all__ = ["Patching"]
