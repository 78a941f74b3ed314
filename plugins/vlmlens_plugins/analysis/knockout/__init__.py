"""Knockout: which rows must read which, and in which layers."""

from vlmlens_plugins.analysis.knockout.analysis import Knockout
from vlmlens_plugins.analysis.knockout.options import KnockoutOptions

__all__ = ["Knockout", "KnockoutOptions"]
