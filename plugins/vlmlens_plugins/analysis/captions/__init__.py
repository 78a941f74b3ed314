"""Captions: which objects generated texts name, and which of these are not there."""

from vlmlens_plugins.analysis.captions.analysis import Captions

__all__ = ["Captions"]
