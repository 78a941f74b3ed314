"""Ridge regression and nearest centroids from sums, exact: see `closed_form` for what they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg.lapack import dpotrf, dpotrs

from vlmlens_plugins.analysis.probe.large.partition import Bools
from vlmlens_plugins.analysis.probe.large.sums import Floats, Sums


@dataclass(frozen=True, slots=True)
class Linear:
    """Fitted linear probes of one column, for rows less `shift`, not scaled.

    Args:
        shift: float64 `[d]`.
        weights: float64 `[d, cells, outputs, fits]`.
        bias: float64 `[cells, outputs, fits]`.
        size: The root of the rows' mean squared distance from their mean.
    """

    shift: Floats
    weights: Floats
    bias: Floats
    size: float = 1.0


@dataclass(frozen=True, slots=True)
class Ridge:
    """Ridge regressions on standardized features, from the sums of a column.

    Args:
        sums: Of parts of the samples, with numbers as labels.
        learned: bool `[parts]`, those that some probe learns from; they give the scale.
    """

    sums: Sums
    learned: Bools

    def fit(self, train: Bools, strengths: Sequence[float], columns: slice) -> list[Linear]:
        """One probe per strength C, of the rows of the parts `train` `[parts]`.

        Args:
            train: bool `[parts]`.
            strengths: Inverse strengths C.
            columns: Which of the label columns.
        """
        sums = self.sums
        _, factor = sums.scaling(self.learned)
        count = float(sums.count[train].sum())
        labels = sums.labels[train].sum(0)[columns] / count
        total = sums.total[train].sum(0)
        right = sums.with_labels[train].sum(0)[:, columns] - total[:, None] * labels
        right *= factor[:, None]
        work = np.empty((len(factor), len(factor)), order="F")
        return [
            self._solved(train, factor, right, labels, total / count, c, work) for c in strengths
        ]

    def _solved(
        self,
        train: Bools,
        factor: Floats,
        right: Floats,
        labels: Floats,
        mean: Floats,
        c: float,
        work: Floats,
    ) -> Linear:
        matrix = self.sums.centred(train, work)
        matrix *= factor[:, None]
        matrix *= factor
        matrix[np.diag_indices(len(matrix))] += 1 / c
        found, failed = dpotrf(matrix, lower=1, overwrite_a=1, clean=0)
        if failed:
            raise np.linalg.LinAlgError("The products of a column are not positive definite.")
        weights, _ = dpotrs(found, right, lower=1)
        weights *= factor[:, None]
        bias = labels - mean @ weights
        return Linear(self.sums.shift, weights[:, None, None], bias[None, None])

    def strengths(self, train: Bools, inner: Bools, grid: Sequence[float]) -> Floats:
        """float64 `[cells]`: C with the least squared error on inner parts, as in memory.

        Args:
            train: bool `[cells, parts]`.
            inner: bool `[cells, inner parts, parts]`, what is learned from where each inner part
                is left out.
            grid: Values of C.
        """
        lost = np.zeros((len(train), len(grid)))
        for cell, learns in enumerate(inner):
            for learn in learns:
                made = self.fit(learn, grid, slice(0, 1))
                lost[cell] += [self._lost(train[cell] & ~learn, one) for one in made]
        return chosen(lost, grid)

    def _lost(self, held: Bools, made: Linear) -> float:
        """The summed squared error over the rows of parts."""
        sums, weights, bias = self.sums, made.weights[:, 0, 0, 0], float(made.bias[0, 0, 0])
        y, square = float(sums.labels[held, 0].sum()), float(sums.label_squares[held, 0].sum())
        total, products = sums.total[held].sum(0), sums.with_labels[held, :, 0].sum(0)
        count = float(sums.count[held].sum())
        told = count * bias**2 + 2 * bias * float(weights @ total) + sums.squared(held, weights)
        return square - 2 * (bias * y + float(weights @ products)) + told


def chosen(lost: Floats, grid: Sequence[float]) -> Floats:
    """float64 `[cells]`: the C with the least loss `[cells, grid]`.

    From the strongest regularization on; stops where a weaker one is better nowhere.
    """
    order = np.argsort(grid)
    least = np.full(len(lost), np.inf)
    best = np.full(len(lost), float(np.min(grid)))
    for i in order.tolist():
        better = lost[:, i] < least
        if not better.any():
            break
        best, least = np.where(better, grid[i], best), np.where(better, lost[:, i], least)
    return best


def centroids(sums: Sums, learned: Bools, train: Bools, classes: int) -> Linear:
    """Nearest centroids of standardized rows.

    Args:
        sums: Of parts, with classes as labels, class by class.
        learned: bool `[parts]`, those that give the scale.
        train: bool `[cells, parts]`.
        classes: Number of classes.
    """
    middle, factor = sums.scaling(learned)
    share = train.astype(np.float64)
    counts = (share @ sums.labels).reshape(len(train), classes, -1)
    totals = np.tensordot(sums.with_labels, share, (0, 1))
    totals = np.moveaxis(totals, 2, 1).reshape(len(factor), *counts.shape)
    centre = totals / np.maximum(counts, 1) - middle[:, None, None, None] * (counts > 0)
    centre *= factor[:, None, None, None]
    half = np.where(counts > 0, -0.5 * np.einsum("dcof,dcof->cof", centre, centre), -np.inf)
    if classes == 2:
        centre, half = centre[:, :, 1:] - centre[:, :, :1], half[:, 1:] - half[:, :1]
    weights = centre * factor[:, None, None, None]
    bias = half - np.tensordot(middle, weights, 1)
    return Linear(sums.shift, weights, bias, sums.size)
