"""BatchTopK: the k * rows largest of a batch (Bussmann et al. 2024, arXiv 2412.06410)."""

from __future__ import annotations

import torch

from vlmlens_plugins.sae.activations import Activation, JumpRelu
from vlmlens_plugins.sae.training.entries import Entries
from vlmlens_plugins.sae.training.kinds import Parameters, Piece, Sparsity

_FOLLOW = 0.01
_ROOM = 0.9
_LOWEST = 1e-3


class BatchTopKSparsity(Sparsity):
    """Rows share a budget; afterwards a threshold, the running mean of what just passed, decides.

    `numbers` has `floor`, below which nothing needs to be looked at, and `threshold`, the running
    mean of each batch's smallest code that was kept. A batch counts 0.01, or 10 / steps in shorter
    trainings.
    """

    def begin(self, before: torch.Tensor, p: Parameters) -> None:
        """See `Sparsity.begin`."""
        self.numbers["floor"] = max(0.0, reached(before, 2 * self.recipe.k))

    def choose(self, before: torch.Tensor, p: Parameters) -> Entries:
        """See `Sparsity.choose`."""
        return Entries.where(before, before > self.numbers["floor"])

    def settle(self, entries: Entries, p: Parameters) -> Entries | None:
        """See `Sparsity.settle`."""
        floor, wanted = self.numbers["floor"], max(1, round(self.recipe.k * entries.rows))
        if len(entries.features) < wanted and floor > 0:
            self.numbers["floor"] = floor / 2 if floor > _LOWEST * self.setting.unit else 0.0
            return None
        if len(entries.features) <= wanted:
            return entries
        largest = entries.before.topk(wanted, sorted=False).indices
        chosen = torch.zeros_like(entries.features, dtype=torch.bool)
        chosen[largest] = True
        return entries.kept(chosen.nonzero()[:, 0])

    def code(self, piece: Piece, p: Parameters) -> torch.Tensor:
        """See `Sparsity.code`."""
        return piece.before

    def after(self, entries: Entries, fired: float, pace: float) -> None:
        """See `Sparsity.after`."""
        if not len(entries.before):
            return
        smallest = float(entries.before.min())
        follow = min(1.0, max(_FOLLOW, 10 / self.setting.steps))
        known = self.numbers.get("threshold", smallest)
        self.numbers["threshold"] = known + follow * (smallest - known)
        self.numbers["floor"] = _ROOM * smallest

    def activation(self, p: Parameters, scale: float) -> Activation:
        """See `Sparsity.activation`."""
        threshold = max(0.0, self.numbers.get("threshold", 0.0)) * scale
        return JumpRelu(torch.full((self.recipe.features,), threshold))


def reached(before: torch.Tensor, wanted: float) -> float:
    """The value that so many outputs of a row reach on average, of `[rows, features]`."""
    count = min(before.numel(), max(1, round(wanted * len(before))))
    return float(before.reshape(-1).topk(count, sorted=False).values.min())
