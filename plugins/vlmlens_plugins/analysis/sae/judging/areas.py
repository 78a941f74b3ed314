"""Areas under the ROC curve: of many features at once, and of resampled samples."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.sparse import csc_array, csr_array

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def areas(scores: csr_array, positive: Bools) -> Floats:
    """The chance that a positive sample scores higher than a negative one; ties count half.

    D. Bamber, "The area above the ordinal dominance graph", J. Math. Psychol. 12 (1975). Only what
    is not zero is sorted: all zeros of a feature share a rank.

    Args:
        scores: Sparse `[samples, features]`.
        positive: `[samples, values]`: for each value, which samples have it.

    Returns:
        float64 `[values, features]`; NaN where all samples are positive, or none is.

    >>> scores, positive = csr_array([[0.0], [2.0], [2.0]]), np.array([[False], [True], [False]])
    >>> float(areas(scores, positive)[0, 0])
    0.75
    """
    table = csc_array(scores, copy=True)
    table.eliminate_zeros()
    own, zeros = _ranks(table)
    count = positive.sum(0).astype(np.float64)[:, None]
    others = len(positive) - count
    above = csc_array((own - np.repeat(zeros, np.diff(table.indptr)), table.indices, table.indptr),
                      shape=table.shape)  # fmt: skip
    total = np.asarray((above.T @ positive.astype(np.float64)).T) + count * zeros
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Floats = (total - count * (count + 1) / 2) / (count * others)
    return found


def _ranks(table: csc_array) -> tuple[Floats, Floats]:
    """The rank of each stored value among all of its column, and of each column's zeros."""
    stored = np.diff(table.indptr)
    column = np.repeat(np.arange(table.shape[1]), stored)
    order = np.lexsort((table.data, column))
    values, columns = table.data[order], column[order]
    new = np.r_[True, (values[1:] != values[:-1]) | (columns[1:] != columns[:-1])][: len(values)]
    run = np.cumsum(new) - 1
    place = np.arange(len(values)) - table.indptr[columns] + 1.0
    mean = np.bincount(run, place) / np.maximum(np.bincount(run), 1)
    ranks = np.empty(len(values))
    ranks[order] = mean[run]
    none = table.shape[0] - stored
    below = np.bincount(column[table.data < 0], minlength=table.shape[1])
    ranks += np.where(table.data > 0, none[column], 0)
    return ranks, below + (none + 1) / 2


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
