"""Minimizing many logistic losses at once: limited-memory BFGS with a preconditioner.

J. Nocedal, "Updating quasi-Newton matrices with limited storage", Math. Comp. 35 (1980). The first
guess of the inverse Hessian is the inverse of a matrix that bounds the Hessian or equals it at 0
(D. Böhning, "Multinomial logistic regression algorithm", Ann. Inst. Stat. Math. 44, 1992), so that
few steps are needed; the same matrix serves all label vectors of a training part.

A problem is given as a `Form`. Its vectors have a side for sums and a side for inner products with
gradients, which differ where weights are written as combinations of samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

_MEMORY = 4
_MAX_STEPS = 300
_MAX_HALVINGS = 30
_SUFFICIENT = 1e-4
_ROUNDING = 2e-7
_SHARE = 1e-3
_SMOOTHING = 0.5
_RATE = 3
"""Over how many steps the fall of the gains is measured."""
_SLOWEST = 0.9
_LEFT = 0.75
"""Where no more than this share of the fits goes on, the others are put aside."""


class Vector(NamedTuple):
    """A direction in weight space; the last row is the intercept.

    Args:
        coordinates: `[problems, size + 1, outputs, fits]`.
        pairing: As `coordinates`, to be multiplied with gradients.
    """

    coordinates: Tensor
    pairing: Tensor

    def scale_(self, factor: Tensor) -> Vector:
        """Multiply by `factor` `[problems, fits]` in place."""
        self.coordinates.mul_(factor[:, None, None])
        if self.pairing is not self.coordinates:
            self.pairing.mul_(factor[:, None, None])
        return self

    def add_(self, other: Vector, factor: Tensor) -> Vector:
        """Add another one times `factor` `[problems, fits]` in place."""
        self.coordinates.addcmul_(other.coordinates, factor[:, None, None])
        if self.pairing is not self.coordinates:
            self.pairing.addcmul_(other.pairing, factor[:, None, None])
        return self

    def of(self, fits: Tensor) -> Vector:
        """Of some of the fits."""
        coordinates = self.coordinates[..., fits]
        same = self.pairing is self.coordinates
        return Vector(coordinates, coordinates if same else self.pairing[..., fits])

    def square(self) -> Tensor:
        """`[problems, fits]`: squared norm of the weights, without the intercept."""
        return _dot(self.coordinates[:, :-1], self.pairing[:, :-1])


class Form(Protocol):
    """A batch of problems; `[problems, rows]` training rows, some unused."""

    @property
    def used(self) -> Tensor:
        """`[problems, rows]`, 1 for rows that count and 0 for padding."""

    @property
    def decay(self) -> Tensor:
        """`[problems]`, the weight of half the squared norm in the objective."""

    @property
    def curvature(self) -> float:
        """The second derivative of the loss that the preconditioner assumes."""

    def zero(self, outputs: int, fits: int) -> Vector:
        """Where to begin."""

    def logits(self, vector: Vector) -> Tensor:
        """`[problems, rows, outputs, fits]`."""

    def gradient(self, residual: Tensor, vector: Vector) -> Tensor:
        """Of the objective, given the losses' derivatives `[problems, rows, outputs, fits]`."""

    def precondition(self, gradient: Tensor) -> Vector:
        """The inverse of the bounding matrix times a gradient."""


@dataclass(frozen=True, slots=True)
class Minimum:
    """Where a batch of problems ended.

    Args:
        vector: The unknowns.
        objective: `[problems, fits]`.
        converged: bool `[problems, fits]`.
        steps: Steps taken.
    """

    vector: Vector
    objective: Tensor
    converged: Tensor
    steps: int

    def of(self, fits: Tensor) -> Minimum:
        """Of some of the fits."""
        objective, converged = self.objective[:, fits], self.converged[:, fits]
        return Minimum(self.vector.of(fits), objective, converged, self.steps)


def minimize(form: Form, target: Tensor, tolerance: float) -> Minimum:
    """Minimize `sum(loss) + decay / 2 * ||weights||^2` for every problem and label vector.

    Args:
        form: The problems.
        target: `[problems, rows, outputs, fits]`, 1 for the true class.
        tolerance: Stop where all further steps would gain less than this fraction of the
            objective, about, and less than a thousandth of what was gained so far.
    """
    vector = form.zero(target.shape[2], target.shape[3])
    prior = _log_prior(form, target)
    vector.coordinates[:, -1] = prior
    vector.pairing[:, -1] = prior
    out = prior[:, None].repeat(1, target.shape[1], 1, 1)
    loss, residual = _evaluate(form, target, out)
    gradient = form.gradient(residual, vector)
    history = _History(form)
    start, penalty = loss, torch.zeros_like(loss)
    done = torch.zeros_like(loss, dtype=torch.bool)
    steps = 0
    gains: list[Tensor] = []
    ended = _Ended(target.shape[3])
    while True:
        uphill, slope = history.uphill(gradient)
        gains = [*gains[-_RATE:], -slope / 2]
        done = done | _no_gain(gains, loss, start - loss, tolerance)
        if steps == _MAX_STEPS or bool(done.all()):
            break
        direction = uphill.scale_(-(~done).to(loss.dtype))
        if int((left := ~done.all(0)).sum()) <= _LEFT * len(left):
            found = Minimum(vector, loss, _converged(slope, loss, tolerance), steps)
            ended.keep(found, ~left)
            vector, direction = vector.of(left), direction.of(left)
            gradient, target, out = gradient[..., left], target[..., left], out[..., left]
            loss, slope, start, penalty = (x[:, left] for x in (loss, slope, start, penalty))
            done, gains = done[:, left], [gain[:, left] for gain in gains]
            history.only(left)
        change = form.logits(direction)
        line = _Line.along(form, vector, direction, penalty)
        length, loss, residual, out = _search(form, target, out, change, line, loss, slope)
        vector.add_(direction, length)
        before, gradient = gradient, form.gradient(residual, vector)
        penalty = line.at(length)
        history.add(direction.scale_(length), gradient - before, change, length, line)
        done = done | (length == 0)
        steps += 1
    return ended.whole(Minimum(vector, loss, _converged(slope, loss, tolerance), steps))


def _converged(slope: Tensor, loss: Tensor, tolerance: float) -> Tensor:
    return -slope / 2 <= 100 * tolerance * loss


class _Ended:
    """Fits that have ended before the others, which go on without them."""

    def __init__(self, fits: int) -> None:
        self._parts: list[tuple[Tensor, Minimum]] = []
        self._places = torch.arange(fits)

    def keep(self, found: Minimum, ended: Tensor) -> None:
        """Keep what some of the fits that are left have come to."""
        self._parts.append((self._places[ended.cpu()], found.of(ended)))
        self._places = self._places[~ended.cpu()]

    def whole(self, last: Minimum) -> Minimum:
        """All fits in their order, `last` for those that are left."""
        if not self._parts:
            return last
        parts = [*self._parts, (self._places, last)]
        order = torch.argsort(torch.cat([places for places, _ in parts]))
        order = order.to(last.objective.device)

        def together(name: str) -> Tensor:
            return torch.cat([getattr(part, name) for _, part in parts], -1)[..., order]

        coordinates = torch.cat([part.vector.coordinates for _, part in parts], -1)[..., order]
        pairing = torch.cat([part.vector.pairing for _, part in parts], -1)[..., order]
        vector = Vector(coordinates, pairing)
        return Minimum(vector, together("objective"), together("converged"), last.steps)


def _log_prior(form: Form, target: Tensor) -> Tensor:
    """The best intercepts `[problems, outputs, fits]` of probes without weights, about."""
    counts = target.sum(1) + _SMOOTHING
    if target.shape[2] == 1:
        others = form.used.sum(1)[:, None, None] - target.sum(1) + _SMOOTHING
        return (counts / others).log()
    logs = counts.log()
    return logs - logs.mean(1, keepdim=True)


def _no_gain(gains: Sequence[Tensor], loss: Tensor, gained: Tensor, tolerance: float) -> Tensor:
    """Bool `[problems, fits]`: whether further steps are not worth taking.

    Gains fall off like a geometric series, so the next one and the rate of the last ones tell the
    sum of all that follow.
    """
    gain = gains[-1]
    rate = (gain / gains[0].clamp(min=1e-30)) ** (1 / max(len(gains) - 1, 1))
    rest = gain / (1 - rate.clamp(max=_SLOWEST)) if len(gains) > 1 else gain
    nothing = gain <= _ROUNDING * loss
    return nothing | ((rest <= tolerance * loss) & (gain <= _SHARE * gained))


@dataclass(frozen=True, slots=True)
class _Line:
    """The penalty along a line: `start + 2 t cross + t^2 end`, each `[problems, fits]`."""

    start: Tensor
    cross: Tensor
    end: Tensor

    @classmethod
    def along(cls, form: Form, vector: Vector, direction: Vector, start: Tensor) -> _Line:
        half = form.decay[:, None] / 2
        cross = _dot(vector.coordinates[:, :-1], direction.pairing[:, :-1])
        return cls(start, half * cross, half * direction.square())

    def at(self, length: Tensor) -> Tensor:
        return self.start + 2 * length * self.cross + length.square() * self.end


def _search(
    form: Form,
    target: Tensor,
    out: Tensor,
    change: Tensor,
    line: _Line,
    loss: Tensor,
    slope: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Halve the step, fit by fit, until the objective falls enough (Armijo's condition).

    Returns:
        The length, and there the objective, the losses' derivatives and the logits.
    """
    length = torch.ones_like(loss)
    for _ in range(_MAX_HALVINGS):
        there = torch.addcmul(out, change, length[:, None, None])
        new, residual = _evaluate(form, target, there)
        new = new + line.at(length)
        allowed = loss + _SUFFICIENT * length * slope + _ROUNDING * loss.abs()
        failed = ~(new <= allowed)
        if not bool(failed.any()):
            return length, new, residual, there
        length = torch.where(failed, length / 2, length)
    length = torch.where(failed, torch.zeros_like(length), length)
    there = torch.addcmul(out, change, length[:, None, None])
    new, residual = _evaluate(form, target, there)
    return length, new + line.at(length), residual, there


def _evaluate(form: Form, target: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
    """Summed losses `[problems, fits]`, and their derivatives, of logits shaped as `target`."""
    used = form.used[:, :, None]
    if out.shape[2] == 1:
        sign = 1 - 2 * target
        margin = sign * out
        loss = torch.nn.functional.softplus(margin)[:, :, 0]
        residual = sign * torch.sigmoid(margin)
    else:
        logs = torch.log_softmax(out, 2)
        loss = (target * logs).sum(2).neg_()
        residual = logs.exp_().sub_(target)
    return (loss * used).sum(1), residual.mul_(used[..., None])


class _History:
    """The last steps and gradient changes of every fit; the two-loop recursion over them."""

    def __init__(self, form: Form) -> None:
        self._form = form
        self._pairs: list[tuple[Vector, Tensor, Tensor]] = []
        self._scale: Tensor | None = None

    def add(
        self, step: Vector, difference: Tensor, change: Tensor, length: Tensor, line: _Line
    ) -> None:
        """Remember a step; `change` (of logits) and `line` are those of a step of length 1."""
        curvature = _dot(step.pairing, difference)
        used = self._form.used[:, :, None]
        moved = (change.square().sum(2) * used).sum(1)
        bound = length.square() * (2 * line.end + self._form.curvature * moved)
        good = curvature > 1e-9 * bound
        one = torch.ones_like(curvature)
        inverse = torch.where(good, 1 / curvature.where(good, one), 0.0)
        self._pairs = [*self._pairs[1 - _MEMORY :], (step, difference, inverse)]
        fresh = torch.where(good, bound / curvature.where(good, one), one).clamp(min=1.0).sqrt()
        self._scale = fresh if self._scale is None else torch.where(good, fresh, self._scale)

    def only(self, fits: Tensor) -> None:
        """Forget all but some of the fits."""
        self._pairs = [
            (step.of(fits), difference[..., fits], inverse[:, fits])
            for step, difference, inverse in self._pairs
        ]
        self._scale = None if self._scale is None else self._scale[:, fits]

    def uphill(self, gradient: Tensor) -> tuple[Vector, Tensor]:
        """Where not to go, and the slope `[problems, fits]` the other way, which is negative."""
        vector = gradient.clone()
        weights = []
        for step, difference, inverse in reversed(self._pairs):
            weight = inverse * _dot(step.pairing, vector)
            vector.addcmul_(difference, -weight[:, None, None])
            weights.append(weight)
        found = self._form.precondition(vector)
        if self._scale is not None:
            found.scale_(self._scale)
        for (step, difference, inverse), weight in zip(self._pairs, reversed(weights), strict=True):
            back = inverse * _dot(found.pairing, difference)
            found.add_(step, weight - back)
        return found, (-_dot(found.pairing, gradient)).clamp(max=0.0)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """`[problems, fits]`: inner products fit by fit."""
    return (a * b).sum((1, 2))
