"""Sweeps: many edits of the same samples, and what each does to the answer.

A `Cell` is one or several edits at once; an `Item` is a sample with the answers that are followed
and, for edits that take rows from elsewhere, its donor. `sweep` runs all cells on all items as
units of model work and gives the numbers as arrays; `effects` turns them into effects with
intervals and tests. Each causal analysis only chooses cells and words.
"""

from vlmlens_plugins.analysis._sweeps.cells import Cell, Change, Item
from vlmlens_plugins.analysis._sweeps.sweeping import SweepOptions, check_cost, sweep
from vlmlens_plugins.analysis._sweeps.swept import Swept
from vlmlens_plugins.analysis._sweeps.work import CellOptions

__all__ = ["Cell", "CellOptions", "Change", "Item", "SweepOptions", "Swept", "check_cost", "sweep"]
