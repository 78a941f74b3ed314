"""Probes with a closed form: ridge regression, and nearest centroids.

Both are linear, and computed for all training parts and label vectors of a column together: ridge
from the inner products of rows (or of features, where those are fewer), centroids from sums over
the training rows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vlmlens_plugins.analysis.probe.linear import LinearFits, gram, one_hot


def fit_ridge(z: Tensor, y: Tensor, train: Tensor, c: Tensor) -> LinearFits:
    """Ridge regressions, `||y - X w - b||^2 + ||w||^2 / C`, of `columns x cells x fits`.

    A. Hoerl and R. Kennard, "Ridge regression: biased estimation for nonorthogonal problems",
    Technometrics 12 (1970).

    Args:
        z: float32 `[columns, n, features]`, about standardized.
        y: float32 `[n, fits]`, numbers.
        train: bool `[cells, n]`, the rows to learn from.
        c: `[columns, cells]`, inverse strengths C, above 0.
    """
    found = [_ridge(z[k], y, train, 1 / c[k]) for k in range(len(z))]
    weights = torch.stack([one for one, _ in found])
    bias = torch.stack([one for _, one in found])
    converged = torch.ones(len(z), len(train), y.shape[1], dtype=torch.bool, device=z.device)
    return LinearFits(weights[:, :, :, None], bias[:, :, None], converged, numbers=True)


def fit_centroids(z: Tensor, y: Tensor, train: Tensor, *, classes: int) -> LinearFits:
    """Nearest-centroid classifiers of `columns x cells x fits`, by Euclidean distance.

    With two classes the direction is the difference of the class means. A class that a training
    part lacks is never predicted.

    Args:
        z: float32 `[columns, n, features]`, about standardized.
        y: int64 `[n, fits]`, class numbers.
        train: bool `[cells, n]`, the rows to learn from.
        classes: Number of classes, at least 2.
    """
    known = one_hot(y, classes)
    if classes == 2:
        known = torch.cat([1 - known, known], 1)
    share = train.to(z.dtype)
    counts = torch.einsum("cn,nof->cof", share, known)
    sums = _training_sums(z, known, train)
    centre = sums.div_(counts.clamp(min=1))
    half = centre.square().sum(1).mul_(-0.5)
    half = torch.where(counts > 0, half, -torch.inf)
    converged = torch.ones(len(z), len(train), y.shape[1], dtype=torch.bool, device=z.device)
    if classes == 2:
        centre = centre[:, :, :, 1:] - centre[:, :, :, :1]
        half = half[:, :, 1:] - half[:, :, :1]
    return LinearFits(centre, half, converged)


def _training_sums(z: Tensor, known: Tensor, train: Tensor) -> Tensor:
    """`[columns, features, cells, classes, fits]`: sums of each class's training rows.

    Those of all rows without those of the rows that are left out, which are fewer.
    """
    every = z.mT @ known.flatten(1)
    sums = every[:, :, None].repeat(1, 1, len(train), 1)
    for i, kept in enumerate(train):
        left = torch.nonzero(~kept)[:, 0]
        sums[:, :, i] -= z[:, left].mT @ known[left].flatten(1)
    return sums.view(*sums.shape[:3], *known.shape[1:])


def _ridge(z: Tensor, y: Tensor, train: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
    """Weights `[features, cells, fits]` and bias `[cells, fits]` of one column."""
    if int(train.sum(1).max()) >= z.shape[1]:
        parts = [_primal(z, y, rows, a) for rows, a in zip(train, alpha, strict=True)]
        weights = torch.stack([w for w, _ in parts], 1)
        return weights, torch.stack([b for _, b in parts])
    right = torch.cat([y, torch.ones_like(y[:, :1])], 1)[:, None] * train.T[:, :, None]
    if bool((alpha == alpha[0]).all()):
        solved = _all_but(gram(z), right, train, float(alpha[0]))
    else:
        solved = _each(gram(z), right, train, alpha)
    bias = solved[:, :, :-1].sum(0) / solved[:, :, -1:].sum(0)
    solved = solved[:, :, :-1] - solved[:, :, -1:] * bias
    return (z.T @ solved.flatten(1)).view(-1, *solved.shape[1:]), bias


def _all_but(inner: Tensor, right: Tensor, train: Tensor, alpha: float) -> Tensor:
    """Solve `(K + alpha) a = b` for every training part, from one inverse for all of them.

    With G the inverse over all rows and B the rows that are left out, the solution over the others
    is `G (b - E_B G_BB^-1 (G b)_B)`, which is 0 on B.

    Args:
        inner: Inner products of all rows `[n, n]`; overwritten.
        right: `[n, cells, fits]`, 0 where a row is left out.
        train: bool `[cells, n]`.
        alpha: The penalty.
    """
    inner.diagonal().add_(alpha)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(inner)).mT
    first = (inverse @ right.flatten(1)).view_as(right)
    for i, kept in enumerate(train):
        left = torch.nonzero(~kept)[:, 0]
        if len(left):
            block = torch.linalg.cholesky(inverse[left][:, left])
            right[left, i] -= torch.cholesky_solve(first[left, i], block)
    return (inverse @ right.flatten(1)).view_as(right)


def _each(inner: Tensor, right: Tensor, train: Tensor, alpha: Tensor) -> Tensor:
    """As `_all_but` where penalties differ: a factorization for every training part."""
    solved = torch.zeros_like(right)
    for i, kept in enumerate(train):
        rows = torch.nonzero(kept)[:, 0]
        part = inner[rows][:, rows]
        part.diagonal().add_(alpha[i])
        solved[rows, i] = torch.cholesky_solve(right[rows, i], torch.linalg.cholesky(part))
    return solved


def _primal(z: Tensor, y: Tensor, used: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
    """Weights `[features, fits]` and bias `[fits]`."""
    x, right = z[used], y[used]
    mean, middle = x.mean(0), right.mean(0)
    x = x - mean
    matrix = x.T @ x
    matrix.diagonal().add_(alpha)
    weights = torch.cholesky_solve(x.T @ (right - middle), torch.linalg.cholesky(matrix))
    return weights, middle - mean @ weights
