"""Many L2-regularized logistic regressions at once: all folds and all label shufflings.

The objective is scikit-learn's, `C * sum(loss) + ||W||^2 / 2` with a free intercept: binomial for
two classes, multinomial for more. With A = [X T; s T] every quantity is linear in the unknown V
(W = T V): one product with A gives the logits and the scaled weights, one with its transpose the
gradient, and a line search needs no product at all. T is the inverse Cholesky factor of the
Gram matrix that bounds the curvature at W = 0 (D. Böhning, "Multinomial logistic regression
algorithm", Ann. Inst. Stat. Math. 44, 1992), which makes limited-memory BFGS (J. Nocedal, "Updating
quasi-Newton matrices with limited storage", Math. Comp. 35, 1980) converge in tens of steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_MEMORY = 8
_MAX_STEPS = 300
_MAX_HALVINGS = 30
_TOLERANCE = 1e-6
_SUFFICIENT = 1e-4
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class LinearFits:
    """Fitted linear classifiers.

    Args:
        weights: `[folds, features, outputs, fits]`; one output (for class 1) where there are two
            classes, else one per class.
        bias: `[folds, outputs, fits]`.
        objective: float `[folds, fits]`, `sum(loss) + ||W||^2 / (2 C)` at the end.
        converged: bool `[folds, fits]`.
        steps: Steps taken.
    """

    weights: Tensor
    bias: Tensor
    objective: Tensor
    converged: Tensor
    steps: int

    def predict(self, x: Tensor) -> Tensor:
        """int64 `[folds, rows, fits]`: the predicted classes of `x` `[folds, rows, features]`."""
        folds, features, outputs, fits = self.weights.shape
        flat = x @ self.weights.reshape(folds, features, outputs * fits)
        return classes_of(flat.view(folds, -1, outputs, fits) + self.bias[:, None])


def classes_of(logits: Tensor) -> Tensor:
    """int64 `[..., fits]`: classes of logits `[..., outputs, fits]`; a single output is binary."""
    if logits.shape[-2] == 1:
        return (logits[..., 0, :] > 0).long()
    return logits.argmax(-2)


def fit_logistic(
    x: Tensor, y: Tensor, used: Tensor, *, classes: int, c: float, tolerance: float = _TOLERANCE
) -> LinearFits:
    """Fit `folds x fits` classifiers that share their rows fold by fold.

    Args:
        x: float `[folds, rows, features]`, already standardized.
        y: int64 `[folds, rows, fits]`, class numbers.
        used: bool `[folds, rows]`; rows that are not used (padding, held out) have no influence.
        classes: Number of classes, at least 2.
        c: scikit-learn's `C`, the inverse regularization strength, above 0.
        tolerance: Stop where the squared preconditioned gradient, which bounds the distance to the
            least objective up to the curvature, is below this fraction of the objective.
    """
    x = x * used[..., None]
    basis = None
    if x.shape[1] < x.shape[2]:
        basis, upper = torch.linalg.qr(x.mT)
        x = upper.mT
    problem = _Problem.build(x, y, used, classes, 1 / c)
    unknown, loss, converged, steps = _minimize(problem, tolerance)
    weights, bias = problem.solution(unknown)
    if basis is not None:
        weights = torch.einsum("fdr,frks->fdks", basis, weights)
    return LinearFits(weights, bias, loss, converged, steps)


@dataclass(frozen=True, slots=True)
class _Problem:
    """`matrix` is A `[folds, rows + features, features + 1]`; `to_weights` is T."""

    matrix: Tensor
    to_weights: Tensor
    target: Tensor
    used: Tensor

    @classmethod
    def build(cls, x: Tensor, y: Tensor, used: Tensor, classes: int, decay: float) -> _Problem:
        folds, rows, features = x.shape
        extended = torch.cat([x, used[..., None].to(x.dtype)], -1)
        exact = extended.double()
        curvature = 0.25 if classes == 2 else (classes - 1) / classes**2
        penalty = torch.full((features + 1,), decay, dtype=torch.float64, device=x.device)
        penalty[-1] = 1e-6 * rows
        bound = curvature * (exact.mT @ exact) + torch.diag(penalty)
        factor = torch.linalg.cholesky(bound)
        eye = torch.eye(features + 1, dtype=torch.float64, device=x.device).expand(folds, -1, -1)
        inverse = torch.linalg.solve_triangular(factor.mT, eye, upper=True)
        scaled = inverse[:, :-1] * decay**0.5
        matrix = torch.cat([exact @ inverse, scaled], 1).to(x.dtype)
        outputs = torch.arange(1, 2) if classes == 2 else torch.arange(classes)
        target = y[:, :, None] == outputs.to(y.device)[None, None, :, None]
        return cls(matrix, inverse.to(x.dtype), target.to(x.dtype), used.to(x.dtype))

    def apply(self, unknown: Tensor) -> Tensor:
        """A V: `[folds, rows + features, outputs, fits]`."""
        flat = self.matrix @ unknown.flatten(2)
        return flat.view(*flat.shape[:2], *unknown.shape[2:])

    def gradient(self, residual: Tensor) -> Tensor:
        """Aᵀ R: `[folds, features + 1, outputs, fits]`."""
        flat = self.matrix.mT @ residual.flatten(2)
        return flat.view(*flat.shape[:2], *residual.shape[2:])

    def evaluate(self, out: Tensor) -> tuple[Tensor, Tensor]:
        """Objective `[folds, fits]` and residual (the gradient with respect to `out`)."""
        rows = self.used.shape[1]
        logits, weights = out[:, :rows], out[:, rows:]
        loss, residual = _cross_entropy(logits, self.target)
        total = (loss * self.used[..., None]).sum(1) + 0.5 * weights.square().sum((1, 2))
        return total, torch.cat([residual * self.used[..., None, None], weights], 1)

    def solution(self, unknown: Tensor) -> tuple[Tensor, Tensor]:
        flat = self.to_weights @ unknown.flatten(2)
        full = flat.view(*flat.shape[:2], *unknown.shape[2:])
        return full[:, :-1], full[:, -1]


def _cross_entropy(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Loss `[folds, rows, fits]` and its derivative for logits `[folds, rows, outputs, fits]`."""
    if logits.shape[2] == 1:
        loss = torch.nn.functional.softplus(logits) - target * logits
        return loss[:, :, 0], logits.sigmoid() - target
    top = logits.amax(2, keepdim=True)
    exponentials = (logits - top).exp()
    total = exponentials.sum(2, keepdim=True)
    loss = (total.log() + top)[:, :, 0] - (target * logits).sum(2)
    return loss, exponentials / total - target


def _minimize(problem: _Problem, tolerance: float) -> tuple[Tensor, Tensor, Tensor, int]:
    folds, _, outputs, fits = problem.target.shape
    size = problem.matrix.shape[2]
    unknown = problem.matrix.new_zeros(folds, size, outputs, fits)
    out = problem.apply(unknown)
    loss, residual = problem.evaluate(out)
    gradient = problem.gradient(residual)
    done = _is_flat(gradient, loss, tolerance)
    history = _History()
    steps = 0
    while steps < _MAX_STEPS and not bool(done.all()):
        direction = history.direction(gradient)
        direction = torch.where(_dot(direction, gradient)[:, None, None] < 0, direction, -gradient)
        direction = direction * ~done[:, None, None]
        change = problem.apply(direction)
        slope = _dot(direction, gradient)
        length, new_loss, residual = _line_search(problem, out, change, loss, slope)
        step = direction * length[:, None, None]
        unknown, out = unknown + step, out + change * length[:, None, None]
        new_gradient = problem.gradient(residual)
        history.add(step, new_gradient - gradient)
        done = done | _is_flat(new_gradient, new_loss, tolerance) | (length == 0)
        gradient, loss = new_gradient, new_loss
        steps += 1
    return unknown, loss, _is_flat(gradient, loss, 100 * tolerance), steps


def _line_search(
    problem: _Problem, out: Tensor, change: Tensor, loss: Tensor, slope: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Halve the step, fit by fit, until the objective falls enough (Armijo's condition)."""
    length = torch.ones_like(loss)
    for _ in range(_MAX_HALVINGS):
        new_loss, residual = problem.evaluate(out + change * length[:, None, None])
        allowed = loss + _SUFFICIENT * length * slope + _ROUNDING * loss.abs()
        failed = ~(new_loss <= allowed)
        if not bool(failed.any()):
            return length, new_loss, residual
        length = torch.where(failed, length / 2, length)
    length = torch.where(failed, torch.zeros_like(length), length)
    new_loss, residual = problem.evaluate(out + change * length[:, None, None])
    return length, new_loss, residual


class _History:
    """The last steps and gradient changes of every fit; the two-loop recursion over them."""

    def __init__(self) -> None:
        self._pairs: list[tuple[Tensor, Tensor, Tensor]] = []
        self._scale: Tensor | None = None

    def add(self, step: Tensor, change: Tensor) -> None:
        curvature = _dot(step, change)
        good = curvature > 1e-12 * _dot(step, step)
        inverse = torch.where(good, 1 / curvature.where(good, torch.ones_like(curvature)), 0.0)
        self._pairs = [*self._pairs[1 - _MEMORY :], (step, change, inverse)]
        norm = _dot(change, change).where(good, torch.ones_like(curvature))
        fresh = torch.where(good, curvature / norm, torch.ones_like(curvature))
        self._scale = fresh if self._scale is None else torch.where(good, fresh, self._scale)

    def direction(self, gradient: Tensor) -> Tensor:
        if self._scale is None:
            return -gradient
        vector = gradient
        weights = []
        for step, change, inverse in reversed(self._pairs):
            weight = inverse * _dot(step, vector)
            vector = vector - change * weight[:, None, None]
            weights.append(weight)
        vector = vector * self._scale[:, None, None]
        for (step, change, inverse), weight in zip(self._pairs, reversed(weights), strict=True):
            vector = vector + step * (weight - inverse * _dot(change, vector))[:, None, None]
        return -vector


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """`[folds, fits]`: inner products fit by fit."""
    return torch.einsum("fdks,fdks->fs", a, b)


def _is_flat(gradient: Tensor, loss: Tensor, tolerance: float) -> Tensor:
    return _dot(gradient, gradient) <= tolerance * loss
