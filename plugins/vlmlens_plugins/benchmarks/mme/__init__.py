"""MME (arXiv 2306.13394): two yes/no questions on each image, in 14 tasks.

`dataset` reads, `folders` knows the official layout, `tables` the hub's columns and VLMEvalKit's
table, `parsing` holds the answer rules, `metrics` the scores, `card` what authors and toolkits
fixed.
"""

from vlmlens_plugins.benchmarks.mme.card import CARD
from vlmlens_plugins.benchmarks.mme.dataset import Mme

__all__ = ["CARD", "Mme"]
