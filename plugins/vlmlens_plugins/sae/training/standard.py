"""Standard: ReLU and an L1 penalty (Bricken et al. 2023; Cunningham et al. 2023, 2309.08600)."""

from __future__ import annotations

import torch

from vlmlens_plugins.sae.activations import Activation, Relu
from vlmlens_plugins.sae.training.adapting import Adapting
from vlmlens_plugins.sae.training.batchtopk import reached
from vlmlens_plugins.sae.training.entries import Entries
from vlmlens_plugins.sae.training.kinds import Parameters, Piece

START = 2
"""Where a kind without a budget starts: about 2 k features fire, not half of all."""


class StandardSparsity(Adapting):
    """The sum of a row's codes, times a weight, is added; decoder rows have unit norm."""

    auxiliary = False

    def begin(self, before: torch.Tensor, p: Parameters) -> None:
        """See `Sparsity.begin`."""
        p["b_enc"].sub_(max(0.0, reached(before, START * self.recipe.k)))

    def choose(self, before: torch.Tensor, p: Parameters) -> Entries:
        """See `Sparsity.choose`."""
        return Entries.where(before, before > 0)

    def code(self, piece: Piece, p: Parameters) -> torch.Tensor:
        """See `Sparsity.code`."""
        return piece.before

    def penalty(self, code: torch.Tensor, piece: Piece, p: Parameters) -> torch.Tensor:
        """See `Sparsity.penalty`."""
        return self.weight * code.sum() / piece.size

    def after(self, entries: Entries, fired: float, pace: float) -> None:
        """See `Sparsity.after`."""
        self.adapt(fired, pace)

    def revive(self, p: Parameters, dead: torch.Tensor) -> None:
        """See `Sparsity.revive`."""
        p["b_enc"][dead] = 0.0

    def activation(self, p: Parameters, scale: float) -> Activation:
        """See `Sparsity.activation`."""
        return Relu()
