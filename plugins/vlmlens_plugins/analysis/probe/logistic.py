"""L2-regularized logistic regression of many columns, training parts and label vectors at once.

The objective is scikit-learn's, `C * sum(loss) + ||W||^2 / 2` with a free intercept: binomial for
two classes, multinomial for more. With fewer training rows than features, weights are combinations
of the rows and only the rows' inner products are needed, which all parts share.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from vlmlens_plugins.analysis.probe.cross_validation import Tick, silent
from vlmlens_plugins.analysis.probe.lbfgs import Vector, minimize
from vlmlens_plugins.analysis.probe.linear import Fold, LinearFits, gram, joined, one_hot

_TOLERANCE = 5e-6
ROUGH = 2e-4
"""The tolerance that is enough to choose a strength of regularization."""
_MILD = 1e5
_POWERS = 8
_JITTER = 1e-5
_ELEMENTS = 400_000
_FEW = 24


def fit_logistic(
    z: Tensor,
    y: Tensor,
    train: Tensor,
    c: Tensor,
    *,
    classes: int,
    tolerance: float = _TOLERANCE,
    kernels: Kernels | None = None,
    tick: Tick = silent,
) -> LinearFits:
    """Fit `columns x cells x fits` classifiers.

    Args:
        z: float32 `[columns, n, features]`, about standardized.
        y: int64 `[n, fits]`, class numbers.
        train: bool `[cells, n]`, the rows to learn from.
        c: `[columns, cells]`, scikit-learn's `C`, the inverse regularization strengths, above 0.
        classes: Number of classes, at least 2.
        tolerance: Stop where further steps would gain less than this fraction of the objective.
        kernels: Of the same rows and training parts, where several strengths are tried.
        tick: Told the share of the probes that are fitted.
    """
    fold = Fold.of(train)
    if fold.rows.shape[1] >= z.shape[2]:
        kernels = None
    elif kernels is None:
        kernels = Kernels(gram(z))
    outputs = 1 if classes == 2 else classes
    at_once = max(1, _ELEMENTS // (fold.rows.shape[1] * outputs * y.shape[1]))
    columns, cells = max(1, at_once // len(train)), min(at_once, len(train))
    rows = []
    for i in range(0, len(z), columns):
        own = slice(i, i + columns)
        parts = []
        for j in range(0, len(train), cells):
            some = slice(j, j + cells)
            kernel = None if kernels is None else kernels.of(own, some, fold)
            part, strength = fold.part(some), c[own, some]
            parts.append(_fit(z[own], kernel, y, part, strength, classes, tolerance))
            tick((i + columns * min(1.0, (j + cells) / len(train))) / len(z))
        rows.append(joined(parts, cells=True))
    return joined(rows, cells=False)


@dataclass(frozen=True, slots=True)
class Kernels:
    """Inner products of rows, and of the centred rows of training parts.

    Args:
        inner: `gram(z)`.
        keep: Whether those of training parts are kept, to be used again with other strengths.
    """

    inner: Tensor
    keep: bool = False
    _kept: dict[tuple[int, int], tuple[Tensor, Tensor]] = field(default_factory=dict)

    def of(self, columns: slice, cells: slice, fold: Fold) -> tuple[Tensor, Tensor]:
        """Of the cells' training rows `[problems, rows, rows]`; rows beyond a cell's own are 0.

        With them come their largest eigenvalues `[problems]`, about.
        """
        place = columns.start, cells.start
        if place in self._kept:
            return self._kept[place]
        part, inner = fold.part(cells), self.inner[columns]
        used = part.used.expand(len(inner), *part.used.shape).flatten(0, 1)
        kernel = torch.stack([_block(inner, rows) for rows in part.rows], 1).flatten(0, 1)
        kernel = _centred(kernel, used)
        found = kernel, _largest(kernel)
        if self.keep:
            self._kept[place] = found
        return found


def _fit(
    z: Tensor,
    kernels: tuple[Tensor, Tensor] | None,
    y: Tensor,
    fold: Fold,
    c: Tensor,
    classes: int,
    tolerance: float,
) -> LinearFits:
    """A batch that stays in the processor's cache."""
    curvature = 0.25 if classes == 2 else 1 / classes
    vectors = y.shape[1] * (1 if classes == 2 else classes)
    form: _Dual | _Primal
    if kernels is None:
        form = _Primal.build(z, fold, 1 / c, curvature, vectors)
    else:
        form = _Dual.build(*kernels, fold, 1 / c, curvature, vectors)
    target = one_hot(y[fold.rows], classes) * fold.used[..., None, None]
    target = target.expand(len(z), *target.shape).flatten(0, 1)
    found = minimize(form, target, tolerance)
    weights, bias = form.solution(found.vector, z, fold)
    shape = (len(z), len(fold.rows), y.shape[1])
    return LinearFits(
        weights, bias, found.converged.view(shape), found.objective.view(shape), found.steps
    )


@dataclass(frozen=True, slots=True)
class _Inverse:
    """The inverse of a positive definite matrix, for preconditioning.

    Args:
        matrix: The inverse; for few vectors its Cholesky factor, which is found sooner.
        factored: Whether it is the factor.
    """

    matrix: Tensor
    factored: bool

    @classmethod
    def of(cls, bound: Tensor, vectors: int) -> _Inverse:
        """Of `[problems, size, size]`; where single precision fails, of slightly more."""
        factor, failed = torch.linalg.cholesky_ex(bound)
        if bool(failed.any()):
            exact = bound.double()
            diagonal = exact.diagonal(dim1=1, dim2=2)
            diagonal.add_(_JITTER * diagonal.mean(1, keepdim=True))
            inverse = torch.cholesky_inverse(torch.linalg.cholesky(exact))
            return cls(inverse.to(bound.dtype), factored=False)
        if vectors <= _FEW:
            return cls(factor, factored=True)
        return cls(torch.cholesky_inverse(factor), factored=False)

    def times(self, vectors: Tensor) -> Tensor:
        """With `[problems, size, outputs, fits]`."""
        if not self.factored:
            return _times(self.matrix, vectors)
        half = torch.linalg.solve_triangular(self.matrix, vectors.flatten(2), upper=False)
        found: Tensor = torch.linalg.solve_triangular(self.matrix.mT, half, upper=True)
        return found.view(vectors.shape)


@dataclass(frozen=True, slots=True)
class _Dual:
    """Weights are `Z^T a` with Z the centred training rows; `kernel` is `Z Z^T`.

    A gradient `Z^T g` is kept as g. The preconditioner is `(curvature Z^T Z + decay)^-1`, which
    takes it to `Z^T a` with `a = (curvature K + decay)^-1 g`. Then `K a` is `(g - decay a) /
    curvature`; that saves a product where the matrix is so well conditioned (`mild`) that single
    precision bears it.
    """

    kernel: Tensor
    inverse: _Inverse
    used: Tensor
    decay: Tensor
    curvature: float
    mild: bool

    @classmethod
    def build(
        cls,
        kernel: Tensor,
        largest: Tensor,
        fold: Fold,
        decay: Tensor,
        curvature: float,
        vectors: int,
    ) -> _Dual:
        used = fold.used.expand(len(decay), *fold.used.shape).flatten(0, 1)
        strength = decay.flatten()
        bound = curvature * kernel
        bound.diagonal(dim1=1, dim2=2).add_(strength[:, None])
        inverse = _Inverse.of(bound, vectors)
        mild = bool((curvature * largest < _MILD * strength).all())
        return cls(kernel, inverse, used, strength, curvature, mild)

    def zero(self, outputs: int, fits: int) -> Vector:
        zero = self.kernel.new_zeros(len(self.kernel), self.kernel.shape[1] + 1, outputs, fits)
        return Vector(zero, zero.clone())

    def logits(self, vector: Vector) -> Tensor:
        return vector.pairing[:, :-1] + vector.pairing[:, -1:]

    def gradient(self, residual: Tensor, vector: Vector) -> Tensor:
        full = torch.cat([residual, residual.sum(1, keepdim=True)], 1)
        full[:, :-1].addcmul_(vector.coordinates[:, :-1], self.decay[:, None, None, None])
        return full

    def precondition(self, gradient: Tensor) -> Vector:
        counts = self.used.sum(1)[:, None, None, None]
        intercept = gradient[:, -1:] / (self.curvature * counts)
        rows = gradient[:, :-1] - gradient[:, :-1].sum(1, keepdim=True) / counts
        rows.mul_(self.used[:, :, None, None])
        found = self.inverse.times(rows)
        if self.mild:
            paired = torch.addcmul(rows, found, -self.decay[:, None, None, None])
            paired.div_(self.curvature)
        else:
            paired = _times(self.kernel, found)
        return Vector(torch.cat([found, intercept], 1), torch.cat([paired, intercept], 1))

    def solution(self, vector: Vector, z: Tensor, fold: Fold) -> tuple[Tensor, Tensor]:
        """Weights and bias as `LinearFits` holds them."""
        a = vector.coordinates[:, :-1].unflatten(0, (len(z), -1))
        used = fold.used[None, :, :, None, None]
        a = (a - a.sum(2, keepdim=True) / used.sum(2, keepdim=True)) * used
        full = a.new_zeros(len(z), a.shape[1], z.shape[1], *a.shape[3:])
        index = fold.rows[None, :, :, None, None].expand_as(a)
        full.scatter_add_(2, index, a)
        flat = z.mT @ full.movedim(1, 2).flatten(2)
        weights = flat.view(*flat.shape[:2], a.shape[1], *a.shape[3:])
        return weights, _bias(vector, weights, z, fold)


@dataclass(frozen=True, slots=True)
class _Primal:
    """Weights are what they are; `rows` are the centred training rows."""

    rows: Tensor
    inverse: _Inverse
    used: Tensor
    decay: Tensor
    curvature: float

    @classmethod
    def build(cls, z: Tensor, fold: Fold, decay: Tensor, curvature: float, vectors: int) -> _Primal:
        used = fold.used.expand(len(z), *fold.used.shape).flatten(0, 1)
        mask = used[:, :, None]
        rows = z[:, fold.rows].flatten(0, 1) * mask
        rows = (rows - rows.sum(1, keepdim=True) / mask.sum(1, keepdim=True)) * mask
        strength = decay.flatten()
        bound = curvature * (rows.mT @ rows)
        bound.diagonal(dim1=1, dim2=2).add_(strength[:, None])
        return cls(rows, _Inverse.of(bound, vectors), used, strength, curvature)

    def zero(self, outputs: int, fits: int) -> Vector:
        zero = self.rows.new_zeros(len(self.rows), self.rows.shape[2] + 1, outputs, fits)
        return Vector(zero, zero)

    def logits(self, vector: Vector) -> Tensor:
        weights = vector.coordinates
        return _times(self.rows, weights[:, :-1]).add_(weights[:, -1:])

    def gradient(self, residual: Tensor, vector: Vector) -> Tensor:
        full = torch.cat([_times(self.rows.mT, residual), residual.sum(1, keepdim=True)], 1)
        full[:, :-1].addcmul_(vector.coordinates[:, :-1], self.decay[:, None, None, None])
        return full

    def precondition(self, gradient: Tensor) -> Vector:
        counts = self.used.sum(1)[:, None, None, None]
        intercept = gradient[:, -1:] / (self.curvature * counts)
        found = torch.cat([self.inverse.times(gradient[:, :-1]), intercept], 1)
        return Vector(found, found)

    def solution(self, vector: Vector, z: Tensor, fold: Fold) -> tuple[Tensor, Tensor]:
        """Weights and bias as `LinearFits` holds them."""
        weights = vector.coordinates[:, :-1].unflatten(0, (len(z), -1)).movedim(1, 2)
        return weights, _bias(vector, weights, z, fold)


def _bias(vector: Vector, weights: Tensor, z: Tensor, fold: Fold) -> Tensor:
    """The intercepts for rows that are not centred."""
    share = fold.train.to(z.dtype) / fold.train.sum(1, keepdim=True)
    mean = share @ z
    shift = torch.einsum("kcd,kdcof->kcof", mean, weights)
    bias: Tensor = vector.coordinates[:, -1].unflatten(0, (len(z), -1)) - shift
    return bias


def _block(inner: Tensor, rows: Tensor) -> Tensor:
    """`[columns, rows, rows]`; on a CPU by numpy, which picks from rows faster."""
    if inner.device.type != "cpu":
        return inner[:, rows][:, :, rows]
    picked = rows.numpy()
    return torch.from_numpy(inner.numpy()[:, picked].take(picked, axis=2))


def _largest(kernel: Tensor) -> Tensor:
    """`[problems]`: about the largest eigenvalue, by the power method."""
    vector = torch.randn(kernel.shape[1], 1, generator=torch.Generator().manual_seed(0))
    vector = vector.to(kernel).expand(len(kernel), -1, 1)
    for _ in range(_POWERS):
        vector = kernel @ (vector / vector.norm(dim=1, keepdim=True).clamp(min=1e-30))
    largest: Tensor = vector.norm(dim=1)[:, 0]
    return largest


def _centred(kernel: Tensor, used: Tensor) -> Tensor:
    """Inner products `[problems, rows, rows]` without the used rows' mean; others become 0."""
    if not bool(used.all()):
        kernel = kernel * used[:, :, None] * used[:, None]
    mean = kernel.sum(2) / used.sum(1, keepdim=True)
    middle = mean.sum(1, keepdim=True) / used.sum(1, keepdim=True)
    kernel -= mean[:, :, None] * used[:, None]
    kernel -= (mean - middle)[:, None] * used[:, :, None]
    return kernel


def _times(matrix: Tensor, vectors: Tensor) -> Tensor:
    """`[problems, a, b]` times `[problems, b, outputs, fits]`."""
    flat = matrix @ vectors.flatten(2)
    product: Tensor = flat.view(*flat.shape[:2], *vectors.shape[2:])
    return product
