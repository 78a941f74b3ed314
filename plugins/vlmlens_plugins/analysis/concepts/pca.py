"""Principal components, from blocks of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vlmlens_plugins.analysis.concepts.rows import Rows, parts

Floats = npt.NDArray[np.float64]
WIDEST = 8192
"""Wider rows would need too large a covariance matrix."""
_SMALL = 512
_PANEL = 2048


@dataclass(frozen=True, slots=True)
class Components:
    """The first principal components of rows.

    Args:
        mean: float64 `[width]`.
        axes: float64 `[components, width]`, of length 1; the largest entry of each is positive.
        shares: float64 `[components]`, of the variance that each explains.
        rows: How many rows they are of.
    """

    mean: Floats
    axes: Floats
    shares: Floats
    rows: int

    def place(self, rows: Rows) -> Floats:
        """float64 `[n, components]`: coordinates of rows `[n, width]`, centred and not whitened."""
        found: Floats = (rows - self.mean) @ self.axes.T
        return found


def of_rows(rows: Rows, count: int) -> Components:
    """Components of rows in memory, from the smaller of their Gram and covariance matrices."""
    mean = rows.mean(0, dtype=np.float64)
    wide = rows.shape[1] > len(rows)
    matrix = _gram(rows, mean) if wide else _covariance(rows, mean)
    values, vectors = _largest(matrix, count)
    axes = vectors.T
    if wide:
        axes = sum((vectors[p].T @ (rows[p] - mean) for p in parts(rows)), np.zeros(()))
    return _made(mean, axes, values, float(np.trace(matrix)), len(rows))


def of_blocks(blocks: Callable[[], Iterator[Rows]], width: int, count: int) -> Components:
    """Components of any number of rows, read twice: for the mean, and for the covariance matrix.

    Memory: a matrix float64 `[width, width]` and a block.
    """
    total, rows, largest = np.zeros(width), 0, 0.0
    for block in blocks():
        total += block.sum(0, dtype=np.float64)
        rows += len(block)
        largest = max(largest, float(block.max()), -float(block.min()))
    mean, scale = total / rows, largest or 1.0
    matrix = np.zeros((width, width))
    for block in blocks():
        wide = block - mean
        wide /= scale
        moved = wide.astype(np.float32)
        for first in range(0, width, _PANEL):
            some = slice(first, first + _PANEL)
            matrix[:, some] += moved.T @ moved[:, some]
    values, vectors = _largest(matrix, count)
    return _made(mean, vectors.T, values, float(np.trace(matrix)), rows)


def _gram(rows: Rows, mean: Floats) -> Floats:
    """float64 `[n, n]`, of rows less their mean."""
    matrix = np.empty((len(rows), len(rows)))
    for part in parts(rows):
        own = rows[part] - mean
        for other in parts(rows):
            matrix[part, other] = own @ (own if other == part else rows[other] - mean).T
    return matrix


def _covariance(rows: Rows, mean: Floats) -> Floats:
    """float64 `[width, width]`, of rows less their mean, times their number."""
    matrix = np.zeros((rows.shape[1],) * 2)
    for part in parts(rows):
        own = rows[part] - mean
        matrix += own.T @ own
    return matrix


def _largest(matrix: Floats, count: int) -> tuple[Floats, Floats]:
    """The largest eigenvalues, falling, and their vectors `[n, count]`."""
    if len(matrix) <= _SMALL or len(matrix) <= count + 1:
        values, vectors = np.linalg.eigh(matrix)
    else:
        from scipy.sparse.linalg import eigsh

        start = np.random.default_rng(0).normal(size=len(matrix))
        values, vectors = eigsh(matrix, count, v0=start)
    order = np.argsort(-values, kind="stable")[:count]
    return values[order], vectors[:, order]


def _made(mean: Floats, axes: Floats, values: Floats, total: float, rows: int) -> Components:
    norms = np.linalg.norm(axes, axis=1, keepdims=True)
    axes = axes / np.where(norms > 0, norms, 1)
    largest = np.take_along_axis(axes, np.abs(axes).argmax(1, keepdims=True), 1)
    axes = axes * np.where(largest < 0, -1, 1)
    shares = np.clip(values, 0, None) / total if total > 0 else np.zeros(len(values))
    return Components(mean, axes, shares, rows)
