"""Areas under the ROC curve: of many features at once, and of resampled samples."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
_AT_ONCE = 2**23


def areas(scores: npt.NDArray[np.floating], positive: Bools) -> Floats:
    """The chance that a positive sample scores higher than a negative one; ties count half.

    D. Bamber, "The area above the ordinal dominance graph", J. Math. Psychol. 12 (1975).

    Args:
        scores: `[samples, features]`.
        positive: `[samples, values]`: for each value, which samples have it.

    Returns:
        float64 `[values, features]`; NaN where all samples are positive, or none is.

    >>> scores, positive = np.array([[1.0], [2.0], [2.0]]), np.array([[False], [True], [False]])
    >>> float(areas(scores, positive)[0, 0])
    0.75
    """
    count = positive.sum(0).astype(np.float64)[:, None]
    others = len(positive) - count
    found = np.empty((positive.shape[1], scores.shape[1]))
    step = max(1, _AT_ONCE // max(1, len(scores)))
    for start in range(0, scores.shape[1], step):
        ranks = rankdata(scores[:, start : start + step], axis=0)
        found[:, start : start + step] = positive.T.astype(np.float64) @ ranks
    with np.errstate(divide="ignore", invalid="ignore"):
        result: Floats = (found - count * (count + 1) / 2) / (count * others)
    return result


def resampled(scores: npt.NDArray[np.floating], positive: Bools, weights: Floats) -> Floats:
    """The area of one score in resampled samples.

    Args:
        scores: `[samples]`.
        positive: `[samples]`.
        weights: `[draws, samples]`: how often each sample stands in each resample.

    Returns:
        float64 `[draws]`; NaN where a resample lacks positive or negative samples.
    """
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    first = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    above = np.add.reduceat((weights * positive)[:, order], first, axis=1)
    below = np.add.reduceat((weights * ~positive)[:, order], first, axis=1)
    won = (above * (np.cumsum(below, 1) - below / 2)).sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Floats = won / (above.sum(1) * below.sum(1))
    return found
