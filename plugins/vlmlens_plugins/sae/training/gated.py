"""Gated: what fires, and how strongly, apart (Rajamanoharan et al. 2024, arXiv 2404.16014)."""

from __future__ import annotations

import torch

from vlmlens_plugins.sae.activations import Activation, Gated
from vlmlens_plugins.sae.training.adapting import Adapting
from vlmlens_plugins.sae.training.batchtopk import reached
from vlmlens_plugins.sae.training.entries import Entries, decoded
from vlmlens_plugins.sae.training.kinds import Parameters, Piece
from vlmlens_plugins.sae.training.standard import START


class GatedSparsity(Adapting):
    """With g the encoder's output and `q = ReLU(g + b_gate)`, two terms are added.

    A weight times the sum of q; and the squared error of what q writes through a decoder that
    gets no gradient from it, as in the paper.
    """

    auxiliary = False
    bias = False

    def own(self, features: int) -> Parameters:
        """See `Sparsity.own`."""
        return {name: torch.zeros(features) for name in ("b_gate", "b_mag", "r_mag")}

    def begin(self, before: torch.Tensor, p: Parameters) -> None:
        """See `Sparsity.begin`."""
        start = max(0.0, reached(before, START * self.recipe.k))
        p["b_gate"].sub_(start)
        p["b_mag"].sub_(start)

    def choose(self, before: torch.Tensor, p: Parameters) -> Entries:
        """See `Sparsity.choose`."""
        return Entries.where(before, before + p["b_gate"] > 0)

    def code(self, piece: Piece, p: Parameters) -> torch.Tensor:
        """See `Sparsity.code`."""
        at = piece.entries.features
        return torch.relu(piece.before * p["r_mag"].exp()[at] + p["b_mag"][at])

    def penalty(self, code: torch.Tensor, piece: Piece, p: Parameters) -> torch.Tensor:
        """See `Sparsity.penalty`."""
        gate = torch.relu(piece.before + p["b_gate"][piece.entries.features])
        written = decoded(gate, p["decoder"].detach(), piece.entries) + p["b_dec"].detach()
        error = (written - piece.target).square().sum()
        return (self.weight * gate.sum() + error) / piece.size

    def after(self, entries: Entries, fired: float, pace: float) -> None:
        """See `Sparsity.after`."""
        self.adapt(fired, pace)

    def revive(self, p: Parameters, dead: torch.Tensor) -> None:
        """See `Sparsity.revive`."""
        for name in ("b_gate", "b_mag", "r_mag"):
            p[name][dead] = 0.0

    def activation(self, p: Parameters, scale: float) -> Activation:
        """See `Sparsity.activation`."""
        return Gated(
            (p["b_gate"] * scale).float(), (p["b_mag"] * scale).float(), p["r_mag"].float()
        )

    def offset(self, p: Parameters, shift: torch.Tensor) -> None:
        """See `Sparsity.offset`."""
        p["b_gate"] = p["b_gate"] + shift
        p["b_mag"] = p["b_mag"] + shift * p["r_mag"].exp()
