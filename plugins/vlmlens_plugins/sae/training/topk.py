"""TopK: the k largest of each row (Gao et al. 2024, arXiv 2406.04093)."""

from __future__ import annotations

import torch

from vlmlens_plugins.sae.activations import Activation, TopK
from vlmlens_plugins.sae.training.entries import Entries, ends_of
from vlmlens_plugins.sae.training.kinds import Parameters, Piece, Sparsity


class TopKSparsity(Sparsity):
    """The k largest outputs of the encoder are kept, those above 0 of them."""

    def choose(self, before: torch.Tensor, p: Parameters) -> Entries:
        """See `Sparsity.choose`."""
        values, features = before.topk(int(self.recipe.k), dim=1, sorted=False)
        positive = values > 0
        at = positive.view(-1).nonzero()[:, 0]
        features, values = features.view(-1)[at], values.view(-1)[at]
        return Entries(ends_of(positive.sum(1)), features, values, before.shape[1])

    def code(self, piece: Piece, p: Parameters) -> torch.Tensor:
        """See `Sparsity.code`."""
        return piece.before

    def activation(self, p: Parameters, scale: float) -> Activation:
        """See `Sparsity.activation`."""
        return TopK(int(self.recipe.k))
