"""Matryoshka: first features must do without the later ones (Bussmann et al. 2025, 2503.17547)."""

from __future__ import annotations

from vlmlens_plugins.sae.training.batchtopk import BatchTopKSparsity
from vlmlens_plugins.sae.training.entries import decoded
from vlmlens_plugins.sae.training.kinds import Loss, Parameters, Piece


class MatryoshkaSparsity(BatchTopKSparsity):
    """BatchTopK whose squared error is the mean over levels, each with its first features only."""

    def loss(self, piece: Piece, p: Parameters) -> Loss:
        """See `Sparsity.loss`."""
        levels = self.recipe.levels
        order, entries = piece.entries.by_level(levels)
        parts = decoded(piece.before[order], p["decoder"], entries)
        made = parts.view(len(levels), *piece.target.shape).cumsum(0)
        error = made + (p["b_dec"] - piece.target)
        total = error.square().sum() / (piece.size * len(levels))
        last = error[-1].detach()
        return Loss(total, last.square().sum() / piece.size, last, piece.before.detach())
