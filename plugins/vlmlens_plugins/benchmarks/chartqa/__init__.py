"""ChartQA (arXiv 2203.10244): questions on charts, with the charts' tables.

`dataset` reads, `folders` knows the official layout, `tables` other forms, `parsing` holds the
rules of relaxed accuracy, `metrics` counts, `card` what the authors and toolkits fixed.
"""

from vlmlens_plugins.benchmarks.chartqa.card import CARD
from vlmlens_plugins.benchmarks.chartqa.dataset import ChartQa, ChartQaOptions

__all__ = ["CARD", "ChartQa", "ChartQaOptions"]
