"""JumpReLU: a threshold for each feature that is learnt (Rajamanoharan et al. 2024, 2407.14435)."""

from __future__ import annotations

import math
from typing import Any

import torch

from vlmlens_plugins.sae.activations import Activation, JumpRelu
from vlmlens_plugins.sae.training.batchtopk import reached
from vlmlens_plugins.sae.training.entries import Entries
from vlmlens_plugins.sae.training.kinds import Parameters, Piece, Sparsity

BANDWIDTH = 0.5
"""Width of the window around a threshold in which it learns, for rows of unit mean square."""

_FASTER = 2


class JumpReluSparsity(Sparsity):
    """Thresholds learn through a rectangle around them; the encoder only where features fire.

    The penalty is `weight * L0` with a given coefficient, else `(L0 / k - 1)**2` times the mean
    squared norm of the targets. L0 is how many features fire in a row, on average. Thresholds start
    where k features fire, and have 2 sqrt(width) times the learning rate of the others: with
    equal ones the encoder, of which all numbers of a row move the output, leaves them behind.
    """

    @property
    def window(self) -> float:
        """The width of the window."""
        return BANDWIDTH * self.setting.unit

    def own(self, features: int) -> Parameters:
        """See `Sparsity.own`."""
        return {"threshold": torch.zeros(features)}

    def faster(self, name: str) -> float:
        """See `Sparsity.faster`."""
        return _FASTER * math.sqrt(self.setting.width) if name == "threshold" else 1.0

    def begin(self, before: torch.Tensor, p: Parameters) -> None:
        """See `Sparsity.begin`."""
        p["threshold"].fill_(max(0.0, reached(before, self.recipe.k)))

    def choose(self, before: torch.Tensor, p: Parameters) -> Entries:
        """See `Sparsity.choose`."""
        return Entries.where(before, before > (p["threshold"] - self.window / 2).clamp_min(0.0))

    def settle(self, entries: Entries, p: Parameters) -> Entries | None:
        """See `Sparsity.settle`."""
        fired = entries.before > p["threshold"][entries.features]
        self.numbers["l0"] = float(fired.sum()) / entries.rows
        return entries

    def code(self, piece: Piece, p: Parameters) -> torch.Tensor:
        """See `Sparsity.code`."""
        threshold = p["threshold"][piece.entries.features]
        found: torch.Tensor = _Jump.apply(piece.before, threshold, self.window)  # type: ignore[no-untyped-call]
        return found

    def penalty(self, code: torch.Tensor, piece: Piece, p: Parameters) -> torch.Tensor:
        """See `Sparsity.penalty`."""
        threshold = p["threshold"][piece.entries.features]
        fired: torch.Tensor = _Step.apply(piece.before, threshold, self.window)  # type: ignore[no-untyped-call]
        return self._slope() * fired.sum() / piece.size

    def _slope(self) -> float:
        """The penalty's derivative by L0."""
        if self.recipe.coefficient is not None:
            return self.recipe.coefficient
        k = self.recipe.k
        return self.setting.spread * 2 * (self.numbers["l0"] / k - 1) / k

    def keep(self, p: Parameters) -> None:
        """See `Sparsity.keep`."""
        p["threshold"].clamp_min_(0.0)

    def activation(self, p: Parameters, scale: float) -> Activation:
        """See `Sparsity.activation`."""
        return JumpRelu((p["threshold"] * scale).float())


class _Jump(torch.autograd.Function):
    """`h` where it is above the threshold, else 0."""

    @staticmethod
    def forward(
        ctx: Any, before: torch.Tensor, threshold: torch.Tensor, width: float
    ) -> torch.Tensor:
        ctx.save_for_backward(before, threshold)
        ctx.width = width
        return before * (before > threshold)

    @staticmethod
    def backward(ctx: Any, *given: torch.Tensor) -> Any:
        before, threshold = ctx.saved_tensors
        near = (before - threshold).abs() < ctx.width / 2
        at = -threshold / ctx.width * near * given[0]
        return given[0] * (before > threshold), at, None


class _Step(torch.autograd.Function):
    """1 where h is above the threshold, else 0."""

    @staticmethod
    def forward(
        ctx: Any, before: torch.Tensor, threshold: torch.Tensor, width: float
    ) -> torch.Tensor:
        ctx.save_for_backward(before, threshold)
        ctx.width = width
        return (before > threshold).to(before.dtype)

    @staticmethod
    def backward(ctx: Any, *given: torch.Tensor) -> Any:
        before, threshold = ctx.saved_tensors
        near = (before - threshold).abs() < ctx.width / 2
        return None, -near.to(before.dtype) / ctx.width * given[0], None
