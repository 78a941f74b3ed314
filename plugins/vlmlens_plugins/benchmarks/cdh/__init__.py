"""CDH-Bench (arXiv 2603.27982): pairs of a common and an odd picture, asked the same.

`dataset` reads, `rows` knows the file, `parsing` holds the answer rules, `metrics` compares common
and odd pictures, `card` what the authors fixed.
"""

from vlmlens_plugins.benchmarks.cdh.card import CARD
from vlmlens_plugins.benchmarks.cdh.dataset import CdhBench, CdhOptions

__all__ = ["CARD", "CdhBench", "CdhOptions"]
