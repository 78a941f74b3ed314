"""POPE: is the object there? (arXiv 2305.10355), in every form in which people have it.

`dataset` reads, `forms` knows the columns and files, `editions` tells the editions apart, `parsing`
holds the answer rules, `metrics` the figures, `card` all that the authors and toolkits fixed.
"""

from vlmlens_plugins.benchmarks.pope.card import CARD
from vlmlens_plugins.benchmarks.pope.dataset import Pope, PopeOptions
from vlmlens_plugins.benchmarks.pope.joining import carried_over

__all__ = ["CARD", "Pope", "PopeOptions", "carried_over"]
