"""H-POPE: is the object there, and does it have this attribute? (arXiv 2411.04077).

No file of the authors' questions is public. `pictures` reads objects with attributes, `negatives`
and `building` make the questions of them; `dataset` also reads rows that are questions already.
"""

from vlmlens_plugins.benchmarks.hpope.card import CARD
from vlmlens_plugins.benchmarks.hpope.dataset import HPope, HPopeOptions

__all__ = ["CARD", "HPope", "HPopeOptions"]
