"""L2-regularized logistic regressions by blocks of rows: L-BFGS with a preconditioner.

The objective is that of `logistic`. Training sets, label vectors and strengths are minimized
together, so that one pass over the rows serves all of them. Each takes steps of its own: where one
gains too little, only that one is shortened, in the pass that tries the others' next steps. Those
that have ended are left out of later passes. J. Nocedal, "Updating quasi-Newton matrices with
limited storage", Math. Comp. 35 (1980).

The first guess of a Hessian is `n S x H + 1/C`, with S the covariance of the rows, which all share,
and H the mean of `diag(p) - p p'` over the n training rows at the last step (their product is
Kronecker's). It is exact where p does not depend on the row; compare the constant bound of
D. Böhning, "Multinomial logistic regression algorithm", Ann. Inst. Stat. Math. 44 (1992).
Intercepts are taken at the mean of each training set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vlmlens_plugins.analysis.probe.large.partition import Bools, Ints
from vlmlens_plugins.analysis.probe.large.spectrum import Spectrum
from vlmlens_plugins.analysis.probe.large.sums import Floats

_MEMORY = 8
_PASSES = 200
_SUFFICIENT = 1e-4
_ROUNDING = 2e-7
_NOTHING = 1e-8
_SHORTEST = 1e-6
_SHARE = 1e-3
_NEAR = 1000
"""A descent that was cut off has converged where it ended so many times the tolerance away."""
_FLATTEST = 1e-4
"""The least curvature, as a share of the largest: outputs that grow together change nothing."""
_LEVEL = 1e-12
_SMOOTHING = 0.5
_BLOCK = 8_000_000
"""Numbers of a block of rows."""
_OUTPUTS = 2_000_000
"""Outputs of probes for a block of rows."""

Tick = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Jobs:
    """What is minimized: a training set, a label vector and a strength each.

    Args:
        train: bool `[sets, n]`.
        means: float64 `[sets, k]`, of the rows of each.
        labels: `[vectors, n]`, class numbers.
        sets: int64 `[jobs]`, which of the training sets.
        vectors: int64 `[jobs]`, which of the label vectors.
        c: float64 `[jobs]`, inverse strengths.
    """

    train: Bools
    means: Floats
    labels: npt.NDArray[Any]
    sets: Ints
    vectors: Ints
    c: Floats

    def of(self, some: Any) -> Jobs:
        """Some of them."""
        return replace(self, sets=self.sets[some], vectors=self.vectors[some], c=self.c[some])

    def __len__(self) -> int:
        return len(self.c)


@dataclass(frozen=True, slots=True)
class Point:
    """Where jobs are.

    Args:
        weights: float64 `[k + 1, outputs, jobs]`, the intercepts last.
        value: float64 `[jobs]`, the objective.
        slope: Its gradient, as `weights`.
        curvature: float64 `[outputs, outputs, jobs]`, the mean second derivative of a row's loss
            by its outputs.
    """

    weights: Floats
    value: Floats
    slope: Floats
    curvature: Floats

    def of(self, some: Any) -> Point:
        """Those of some jobs."""
        return Point(*(getattr(self, each.name)[..., some] for each in fields(self)))

    def unless(self, moved: Bools, other: Point) -> Point:
        """The other's where a job has moved."""
        parts = [(getattr(self, each.name), getattr(other, each.name)) for each in fields(self)]
        return Point(*(np.where(moved, there, here) for here, there in parts))


@dataclass(frozen=True, slots=True)
class Problem:
    """The rows of logistic regressions, and what is known of them.

    Args:
        values: float32 `[n, k]`, rows whose mean is about 0, on disk or in memory.
        spectrum: Of their covariance.
        classes: Number of classes.
        device: Where outputs are computed.
    """

    values: npt.NDArray[Any]
    spectrum: Spectrum
    classes: int
    device: torch.device

    @property
    def outputs(self) -> int:
        """1 for two classes, else one per class."""
        return 1 if self.classes == 2 else self.classes

    def blocks(self, columns: int) -> Iterator[tuple[slice, Tensor]]:
        """Yield rows float32 `[b, k]`, few enough for so many outputs of each."""
        size = max(64, min(_BLOCK // self.values.shape[1], _OUTPUTS // columns))
        for start in range(0, len(self.values), size):
            part = torch.from_numpy(np.asarray(self.values[start : start + size], np.float32))
            yield slice(start, start + len(part)), part.to(self.device)

    def logits(self, rows: Tensor, weights: Tensor) -> Tensor:
        """`[b, outputs, jobs]` for weights float32 `[k + 1, outputs, jobs]`."""
        flat = weights.flatten(1)
        return torch.addmm(flat[-1], rows, flat[:-1]).view(len(rows), *weights.shape[1:])

    def placed(self, array: npt.NDArray[Any], dtype: torch.dtype) -> Tensor:
        """On the device."""
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device, dtype)

    def targets(self, jobs: Jobs, some: slice) -> Tensor:
        """int64 `[b, jobs]`: classes of rows."""
        return self.placed(jobs.labels[:, some].T, torch.int64)[:, jobs.vectors]

    def losses(self, out: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy `[b, jobs]` of outputs, and their probabilities, shaped as they are."""
        if self.outputs == 1:
            sign = 1 - 2 * y.to(out.dtype)
            return torch.nn.functional.softplus(sign * out[:, 0]), out.sigmoid()
        logs = out.log_softmax(1)
        return -logs.gather(1, y[:, None])[:, 0], logs.exp_()

    def less_known(self, chance: Tensor, y: Tensor) -> Tensor:
        """Probabilities less the true ones, in place: the slope of the loss."""
        if self.outputs == 1:
            return chance.sub_(y[:, None])
        minus = chance.new_full((), -1.0).expand(len(y), 1, y.shape[1])
        return chance.scatter_add_(1, y[:, None], minus)

    def start(self, jobs: Jobs) -> Floats:
        """Weights of 0, and the best intercepts, about: `[k + 1, outputs, jobs]`."""
        counts = np.zeros((self.classes, len(jobs)))
        for job, (own, vector) in enumerate(zip(jobs.sets, jobs.vectors, strict=True)):
            known = jobs.labels[vector, jobs.train[own]].astype(np.int64)
            counts[:, job] = np.bincount(known, minlength=self.classes)
        logs = np.log(counts + _SMOOTHING)
        weights = np.zeros((self.values.shape[1] + 1, self.outputs, len(jobs)))
        weights[-1] = logs[1:] - logs[:1] if self.outputs == 1 else logs - logs.mean(0)
        return weights

    def point(self, jobs: Jobs, weights: Floats) -> Point:
        """The objective at weights: a pass over the rows."""
        value, slope = np.zeros(len(jobs)), np.zeros(weights.shape)
        curvature = np.zeros((self.outputs, *weights.shape[1:]))
        single = self.placed(weights, torch.float32)
        for some, rows in self.blocks(self.outputs * len(jobs)):
            used = self.placed(jobs.train[:, some].T, torch.float32)[:, jobs.sets]
            y = self.targets(jobs, some)
            loss, chance = self.losses(self.logits(rows, single), y)
            value += _summed(loss * used)
            curvature += self.curved(chance, used)
            rest = self.less_known(chance, y) * used[:, None]
            slope[:-1] += (rows.T @ rest.flatten(1)).double().cpu().numpy().reshape(slope[1:].shape)
            slope[-1] += _summed(rest)
        value += 0.5 / jobs.c * _dot(weights[:-1], weights[:-1])
        slope[:-1] += weights[:-1] / jobs.c
        counts = jobs.train.sum(1)[jobs.sets]
        return Point(weights, value, slope, curvature / counts)

    def curved(self, chance: Tensor, used: Tensor) -> Floats:
        """Summed second derivatives of losses by outputs, `[outputs, outputs, jobs]`."""
        known = chance * used[:, None]
        if self.outputs == 1:
            return _summed(known * (1 - chance))[None]
        found = -torch.bmm(chance.permute(2, 1, 0), known.permute(2, 0, 1)).double()
        found.diagonal(dim1=1, dim2=2).add_(known.sum(0, dtype=torch.float64).T)
        return np.asarray(found.permute(1, 2, 0).cpu().numpy())

    def preconditioned(self, jobs: Jobs, here: Point, slope: Floats) -> Floats:
        """The first guess of the inverse Hessian, times a gradient."""
        flat, axes = np.linalg.eigh(here.curvature.transpose(2, 0, 1))
        least = np.maximum(_FLATTEST * flat.max(1), _LEVEL)
        heavy = np.maximum(flat.T, least) * jobs.train.sum(1)[jobs.sets]
        turned, means = _turned(slope, axes), jobs.means[jobs.sets].T[:, None]
        centred = turned[:-1] - means * turned[-1]
        turned[:-1] = self.spectrum.divided(centred, heavy, 1 / jobs.c)
        turned[-1] = turned[-1] / heavy - (means * turned[:-1]).sum(0)
        return _turned(turned, axes.swapaxes(1, 2))


@dataclass(frozen=True, slots=True)
class Found:
    """The minima.

    Args:
        weights: float32 `[k + 1, outputs, jobs]`, the intercepts last.
        converged: bool `[jobs]`.
        passes: Over the rows.
    """

    weights: npt.NDArray[np.float32]
    converged: Bools
    passes: int


def minimize(problem: Problem, jobs: Jobs, tolerance: float, tick: Tick) -> Found:
    """Minimize the objectives.

    Args:
        problem: The rows.
        jobs: What to minimize.
        tolerance: Stop where a step would gain less than this fraction of the objective, about,
            and less than a thousandth of what was gained so far.
        tick: Told the share that is done, about.
    """
    here = problem.point(jobs, problem.start(jobs))
    found = Found(here.weights.astype(np.float32), np.zeros(len(jobs), bool), 1)
    left, length, start = np.arange(len(jobs)), np.ones(len(jobs)), here.value
    history = _History()
    for number in range(2, _PASSES + 1):
        along = -history.uphill(problem, jobs, here)
        gain = -_dot(along, here.slope)
        ended = _ended(here.value, start - here.value, gain / 2, tolerance) | (length < _SHORTEST)
        if ended.any() or number == _PASSES:
            found.weights[..., left] = here.weights
            found.converged[left] = gain / 2 <= _NEAR * tolerance * here.value
            on = ~ended
            left, jobs, here, along = left[on], jobs.of(on), here.of(on), along[..., on]
            gain, length, start = gain[on], length[on], start[on]
            history.only(on)
        if not len(left) or number == _PASSES:
            break
        there = problem.point(jobs, here.weights + length * along)
        found = replace(found, passes=number)
        allowed = here.value - _SUFFICIENT * length * gain + _ROUNDING * here.value
        moved = there.value <= allowed
        history.add(length * along * moved, (there.slope - here.slope) * moved)
        length = np.where(moved, 1.0, length * _shorter(here.value, there.value, length * gain))
        here = here.unless(moved, there)
        tick(1 - 0.9**number)
    tick(1.0)
    return found


def _ended(value: Floats, gained: Floats, gain: Floats, tolerance: float) -> Bools:
    enough = (gain <= tolerance * value) & (gain <= _SHARE * gained)
    return np.asarray(enough | (gain <= _NOTHING * value))


def _shorter(here: Floats, there: Floats, gain: Floats) -> Floats:
    """By how much to shorten steps: to the minimum of a parabola, a tenth to a half."""
    rise = np.maximum(there - here + gain, 1e-30)
    return np.asarray(np.clip(gain / (2 * rise), 0.1, 0.5))


@dataclass(slots=True)
class _History:
    """The last steps and changes of gradients, float32."""

    pairs: list[tuple[Any, Any, Floats]] = field(default_factory=list)

    def add(self, step: Floats, turn: Floats) -> None:
        curved = _dot(step, turn)
        fine = curved > 1e-9 * np.sqrt(_dot(step, step) * _dot(turn, turn))
        share = np.where(fine, 1 / np.where(fine, curved, 1.0), 0.0)
        pair = step.astype(np.float32), turn.astype(np.float32), share
        self.pairs = [*self.pairs[1 - _MEMORY :], pair]

    def only(self, some: Bools) -> None:
        """Forget the other jobs."""
        self.pairs = [(step[..., some], turn[..., some], n[some]) for step, turn, n in self.pairs]

    def uphill(self, problem: Problem, jobs: Jobs, here: Point) -> Floats:
        """L-BFGS's product of the inverse Hessian with the gradient."""
        rest, kept = here.slope.copy(), []
        for step, turn, share in reversed(self.pairs):
            along = share * _dot(step, rest)
            rest -= along * turn
            kept.append(along)
        found = problem.preconditioned(jobs, here, rest)
        for (step, turn, share), along in zip(self.pairs, reversed(kept), strict=True):
            found += (along - share * _dot(turn, found)) * step
        return found


def _turned(vectors: Floats, axes: Floats) -> Floats:
    """Vectors `[k, outputs, jobs]` with each job's outputs times a matrix `[jobs, o, o]`."""
    found = vectors.transpose(2, 0, 1) @ axes
    return np.ascontiguousarray(found.transpose(1, 2, 0))


def _summed(x: Tensor) -> Floats:
    return np.asarray(x.sum(0, dtype=torch.float64).cpu().numpy())


def _dot(a: Any, b: Any) -> Floats:
    """`[jobs]` of `[k, outputs, jobs]`."""
    return np.asarray(np.einsum("koj,koj->j", a, b, dtype=np.float64))
