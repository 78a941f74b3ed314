"""Rows of a column as a matrix `[n, n]` of what is alike: kernels, ranks, neighbours."""

from __future__ import annotations

from typing import Literal

import numpy as np

from vlmlens.cka import Floats

Distance = Literal["cosine", "euclidean"]

_TIE = 1e-6
"""Similarities that differ by less, where 1 is their scale, are equal."""


def closeness(rows: Floats, distance: Distance) -> Floats:
    """`[n, n]`: how close rows less their mean are, 1 at most; larger is closer.

    Args:
        rows: `[n, width]`.
        distance: "cosine": their cosine; "euclidean": 1 less the distance over the mean distance.
    """
    own = rows - rows.mean(0)
    if distance == "cosine":
        lengths = np.linalg.norm(own, axis=1, keepdims=True)
        unit = own / np.where(lengths > 0, lengths, 1.0)
        cosines: Floats = unit @ unit.T
        return cosines
    squares = np.square(own).sum(1)
    apart = np.sqrt(np.maximum(squares[:, None] + squares[None, :] - 2 * (own @ own.T), 0.0))
    np.fill_diagonal(apart, 0.0)
    mean = apart.mean()
    found: Floats = 1 - apart / (mean if mean > 0 else 1.0)
    return found


def centred_kernel(rows: Floats) -> Floats:
    """`[n, n]`: the linear kernel without its diagonal, centred so that HSIC_1 is an inner product.

    G. Székely and M. Rizzo, "Partial distance correlation with methods for dissimilarities", Ann.
    Stat. 42 (2014), name it U-centering; HSIC_1 of two kernels is the sum of the products over
    `n (n - 3)`.
    """
    own = rows - rows.mean(0)
    kernel: Floats = own @ own.T
    np.fill_diagonal(kernel, 0.0)
    n = len(kernel)
    sums = kernel.sum(0)
    kernel -= (sums[:, None] + sums[None, :]) / (n - 2) - sums.sum() / ((n - 1) * (n - 2))
    np.fill_diagonal(kernel, 0.0)
    return kernel


def ranks(close: Floats) -> Floats:
    """`[n, n]`: the rank of each pair of rows among all pairs, less the mean rank; ties share one.

    Pearson's correlation of two such matrices is Spearman's of the dissimilarities.

    Args:
        close: `[n, n]`, as `closeness` gives it. The diagonal does not count, and is 0 here.
    """
    n = len(close)
    upper = np.triu_indices(n, 1)
    _, number, counts = np.unique(close[upper], return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    shared = last - (counts - 1) / 2
    found = np.zeros((n, n))
    found[upper] = shared[number] - (len(number) + 1) / 2
    found += found.T
    return found


def neighbours(close: Floats, count: int) -> Floats:
    """`[n, n]`: 1 where a row (second axis) is among the nearest of another (first), else 0.

    Rows that are equally far share what room is left: each counts as a part of a neighbour.

    Args:
        close: `[n, n]`, as `closeness` gives it.
        count: Neighbours of each row, fewer than n.
    """
    near = close.copy()
    np.fill_diagonal(near, -np.inf)
    limit = np.partition(near, -count, axis=1)[:, -count, None]
    surely = near > limit + _TIE
    tied = np.abs(near - limit) <= _TIE
    room = count - surely.sum(1, keepdims=True)
    found: Floats = surely + tied * (room / tied.sum(1, keepdims=True))
    return found
