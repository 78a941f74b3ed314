"""Permutation tests of many samples: fewer draws, whose null is taken as normal.

Over many groups it is (W. Hoeffding, "A combinatorial central limit theorem", Ann. Math. Stat. 22,
1951).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from vlmlens_plugins.analysis._statistics import permutation_p

_PERMUTED = 1_000_000_000
"""Labels that are exchanged at most by all draws together, unless that is fewer than 1000 draws."""
_FEWER = 1000


def shown(draws: int, samples: int) -> int:
    """How many of the draws are made."""
    return draws if draws * samples <= _PERMUTED else min(draws, _FEWER)


def null_p(observed: float, null: npt.NDArray[np.float64], draws: int) -> float:
    """One-sided p-value by the draws that were made, never below what `draws` could show.

    >>> null_p(3.0, np.arange(4.0), 4), null_p(9.0, np.arange(4.0), 1000) > 1e-8
    (0.4, True)
    """
    deviation = float(null.std(ddof=1))
    if len(null) >= draws or deviation == 0:
        return permutation_p(observed, null)
    return max(float(ndtr((null.mean() - observed) / deviation)), 1 / (1 + draws))
