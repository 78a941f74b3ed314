"""Runs side by side: models, checkpoints or layers, with tests on their differences."""

from __future__ import annotations

from vlmlens.comparison._page import compare_runs, write_comparison
from vlmlens.comparison._sides import Side, read_side, read_sides
from vlmlens.comparison._tests import compare

__all__ = ["Side", "compare", "compare_runs", "read_side", "read_sides", "write_comparison"]
