"""CLEVR (arXiv 1612.06890): questions on drawn scenes of which every object is known.

`dataset` reads, `files` knows the layout, `questions` the questions and their types, `scenes` says
in words what a scene holds, `parsing` holds the answer rules, `card` what the authors fixed.
"""

from vlmlens_plugins.benchmarks.clevr.card import CARD
from vlmlens_plugins.benchmarks.clevr.dataset import Clevr, ClevrOptions

__all__ = ["CARD", "Clevr", "ClevrOptions"]
