"""L2-regularized logistic regression by blocks of rows: L-BFGS with a preconditioner.

The objective is that of `logistic`. All training sets and label vectors are minimized together, so
that one reading of the rows serves all of them; the first guess of the inverse Hessian is the
inverse of a bound of it, which needs only the products of each training set's rows. J. Nocedal,
"Updating quasi-Newton matrices with limited storage", Math. Comp. 35 (1980); D. Böhning,
"Multinomial logistic regression algorithm", Ann. Inst. Stat. Math. 44 (1992).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vlmlens_plugins.analysis.probe.large.partition import Bools
from vlmlens_plugins.analysis.probe.large.sums import Floats

_MEMORY = 6
_STEPS = 200
_HALVINGS = 20
_SUFFICIENT = 1e-4
_OUTPUTS = 4_000_000
"""Outputs of probes that are in memory at a time."""

Tick = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Problem:
    """Logistic regressions over the same rows.

    Args:
        values: float32 `[n, k]`, the rows, on disk or in memory.
        labels: `[fits, n]`, class numbers.
        train: bool `[cells, n]`.
        products: float64 `[cells, k + 1, k + 1]`, of the training rows with a 1 at their end.
        c: float64 `[cells]`, inverse strengths.
        classes: Number of classes.
        device: Where.
    """

    values: npt.NDArray[Any]
    labels: npt.NDArray[Any]
    train: Bools
    products: Floats
    c: Floats
    classes: int
    device: torch.device

    @property
    def outputs(self) -> int:
        """1 for two classes, else one per class."""
        return 1 if self.classes == 2 else self.classes

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield rows, with a 1 at the end of each: float32 `[b, k + 1]`."""
        problems = len(self.train) * self.outputs * len(self.labels)
        size = max(64, min(16_384, _OUTPUTS // problems))
        for start in range(0, len(self.values), size):
            part = np.asarray(self.values[start : start + size], np.float32)
            ones = np.ones((len(part), 1), np.float32)
            whole = torch.from_numpy(np.concatenate([part, ones], 1)).to(self.device)
            yield slice(start, start + len(part)), whole

    def logits(self, rows: Tensor, weights: Floats) -> Tensor:
        """`[b, cells, outputs, fits]` for weights `[k + 1, cells, outputs, fits]`."""
        flat = torch.from_numpy(weights.reshape(len(weights), -1)).float().to(self.device)
        return (rows @ flat).view(len(rows), *weights.shape[1:])

    def target(self, some: slice) -> Tensor:
        """int64 `[b, fits]`."""
        return torch.from_numpy(self.labels[:, some].T.astype(np.int64)).to(self.device)

    def losses(self, out: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy `[b, cells, fits]` of outputs, and its slope, shaped as they are."""
        if self.classes == 2:
            known = y.to(out.dtype)[:, None]
            loss = torch.nn.functional.softplus((1 - 2 * known) * out[:, :, 0])
            return loss, (out.sigmoid_() - known[:, :, None])
        logs = out.log_softmax(2)
        index = y[:, None, None].expand(*out.shape[:2], 1, out.shape[3])
        loss = -logs.gather(2, index)[:, :, 0]
        slope = logs.exp_()
        slope.scatter_add_(2, index, slope.new_full((), -1.0).expand_as(index))
        return loss, slope

    def value(self, weights: Floats) -> tuple[Floats, Floats]:
        """The objective `[cells, fits]` and its gradient `[k + 1, cells, outputs, fits]`."""
        value, slope = np.zeros((weights.shape[1], weights.shape[3])), np.zeros(weights.shape)
        for some, rows in self.blocks():
            used = torch.from_numpy(self.train[:, some].T.copy()).to(self.device)
            loss, rest = self.losses(self.logits(rows, weights), self.target(some))
            value += (loss * used[:, :, None]).sum(0, dtype=torch.float64).cpu().numpy()
            rest *= used[:, :, None, None]
            found = (rows.T @ rest.flatten(1)).double().cpu().numpy()
            slope += found.reshape(slope.shape)
        decay = (1 / self.c)[:, None]
        value += 0.5 * decay * np.einsum("kcof,kcof->cf", weights[:-1], weights[:-1])
        slope[:-1] += decay[:, :, None] * weights[:-1]
        return value, slope

    def inverses(self) -> Floats:
        """float64 `[cells, k + 1, k + 1]`: inverses of what bounds the Hessians, about."""
        curvature = 0.25 if self.classes == 2 else 1 / self.classes
        size = self.products.shape[1]
        decay = np.append(np.ones(size - 1), 0.0) / self.c[:, None]
        bound = curvature * self.products + decay[:, None] * np.eye(size)
        bound += 1e-9 * np.trace(bound, axis1=1, axis2=2)[:, None, None] / size * np.eye(size)
        return np.asarray(np.linalg.inv(bound), np.float64)


@dataclass(frozen=True, slots=True)
class Found:
    """The minima.

    Args:
        weights: float64 `[k + 1, cells, outputs, fits]`, the intercept last.
        converged: bool `[cells, fits]`.
        steps: Steps taken.
    """

    weights: Floats
    converged: Bools
    steps: int


def minimize(problem: Problem, tolerance: float, tick: Tick) -> Found:
    """Minimize until further steps would gain less than `tolerance` of each objective."""
    cells, fits = len(problem.train), len(problem.labels)
    weights = np.zeros((problem.values.shape[1] + 1, cells, problem.outputs, fits))
    inverses = problem.inverses()
    value, slope = problem.value(weights)
    memory: list[tuple[Floats, Floats, Floats]] = []
    done = np.zeros((cells, fits), bool)
    for step in range(_STEPS):
        direction = -_inverse_times(slope, memory, inverses)
        gain = -_dot(direction, slope)
        done |= gain <= 2 * tolerance * np.maximum(value, 1e-30)
        if done.all():
            return Found(weights, done, step)
        direction *= ~done[:, None]
        moved = _searched(problem, weights, value, slope, direction, gain)
        change, new_value, new_slope = moved
        done |= ~done & (np.abs(change).max((0, 2)) == 0)
        _remember(memory, change, new_slope - slope)
        weights, value, slope = weights + change, new_value, new_slope
        tick(1 - 0.9 ** (step + 1))
    return Found(weights, done, _STEPS)


def _searched(
    problem: Problem, weights: Floats, value: Floats, slope: Floats, along: Floats, gain: Floats
) -> tuple[Floats, Floats, Floats]:
    """The step that is taken, with what is there after it; halved where it gains little."""
    factor = np.where(np.abs(along).max((0, 2)) > 0, 1.0, 0.0)
    rounding = 1e-7 * np.abs(value)
    for _ in range(_HALVINGS):
        change = along * factor[:, None]
        new_value, new_slope = problem.value(weights + change)
        bad = new_value > value - _SUFFICIENT * factor * gain + rounding
        bad &= factor > 0
        if not bad.any():
            return change, new_value, new_slope
        factor = np.where(bad, factor / 2, factor)
    factor = np.where(bad, 0.0, factor)
    change = along * factor[:, None]
    new_value, new_slope = problem.value(weights + change)
    return change, new_value, new_slope


def _inverse_times(
    slope: Floats, memory: list[tuple[Floats, Floats, Floats]], inverses: Floats
) -> Floats:
    """L-BFGS's product of the inverse Hessian with a gradient."""
    rest = slope.copy()
    kept = []
    for change, turn, share in reversed(memory):
        along = share * _dot(change, rest)
        rest -= along[:, None] * turn
        kept.append(along)
    cells = rest.shape[1]
    by_cell = [inverses[i] @ rest[:, i].reshape(len(rest), -1) for i in range(cells)]
    found = np.stack([one.reshape(rest[:, 0].shape) for one in by_cell], 1)
    for (change, turn, share), along in zip(memory, reversed(kept), strict=True):
        found += (along - share * _dot(turn, found))[:, None] * change
    return found


def _remember(memory: list[tuple[Floats, Floats, Floats]], change: Floats, turn: Floats) -> None:
    curved = _dot(change, turn)
    fine = curved > 1e-12 * np.sqrt(_dot(change, change) * _dot(turn, turn))
    memory.append((change, turn, np.where(fine, 1 / np.where(fine, curved, 1.0), 0.0)))
    if len(memory) > _MEMORY:
        memory.pop(0)


def _dot(a: Floats, b: Floats) -> Floats:
    """`[cells, fits]` of `[k + 1, cells, outputs, fits]`."""
    return np.asarray(np.einsum("kcof,kcof->cf", a, b))
