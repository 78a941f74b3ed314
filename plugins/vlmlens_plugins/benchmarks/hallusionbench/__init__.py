"""HallusionBench (arXiv 2310.14566): questions on original and edited figures, or on none.

`dataset` reads, `forms` knows the columns, `metrics` counts by question, figure and pair, `blame`
tells errors of language from errors of sight, `card` holds what the authors and toolkits fixed.
"""

from vlmlens_plugins.benchmarks.hallusionbench.card import CARD
from vlmlens_plugins.benchmarks.hallusionbench.dataset import HallusionBench, HallusionOptions

__all__ = ["CARD", "HallusionBench", "HallusionOptions"]
