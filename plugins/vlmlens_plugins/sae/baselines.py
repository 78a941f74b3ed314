"""What an SAE is held against: dictionaries of its form that nobody trained.

All of them keep the k largest values per row, so that their L0 is that of the SAE, take the mean
row away first, and have directions of length 1.
"""

from __future__ import annotations

import torch

from vlmlens_plugins.sae.about import About
from vlmlens_plugins.sae.activations import TopK
from vlmlens_plugins.sae.sae import Sae

UNTRAINED = "untrained"
NEURONS = "neurons"
PRINCIPAL = "PCA"


def untrained(features: int, mean: torch.Tensor, rows: torch.Tensor, k: int, seed: int) -> Sae:
    """Random directions, evenly spread over the sphere, whose encoder is the decoder transposed.

    The k directions that a row has most in common with overlap, so what they write is too long.
    One number, fitted by least squares to `rows`, makes up for this in the encoder: what is left
    to beat is the choice of directions, not a wrong scale.

    Args:
        features: How many directions.
        mean: float `[width]`, the mean row.
        rows: float `[n, width]`, rows that the scale is fitted to; not the ones that are judged.
        k: How many features fire per row.
        seed: Of the directions.
    """
    drawn = torch.randn(features, len(mean), generator=torch.Generator().manual_seed(seed))
    directions = drawn / drawn.norm(dim=1, keepdim=True)
    raw = _tied(directions, mean, k, UNTRAINED)
    codes = raw.encode(rows)
    written, wanted = codes.double() @ raw.W_dec.double(), (rows.float() - raw.b_dec).double()
    square = float((written * written).sum())
    factor = max(0.0, float((written * wanted).sum())) / square if square > 0 else 1.0
    return Sae(raw.W_enc * factor, raw.b_enc, raw.W_dec, raw.b_dec, raw.activation, about=raw.about)


def neurons(mean: torch.Tensor, k: int) -> Sae:
    """The dimensions of a row themselves; each is two features, one for each sign.

    Args:
        mean: float `[width]`, the mean row.
        k: How many features fire per row; at most one of each dimension can.
    """
    return _tied(_both_signs(torch.eye(len(mean))), mean, min(k, len(mean)), NEURONS)


def principal(mean: torch.Tensor, covariance: torch.Tensor, k: int) -> Sae:
    """The principal directions of rows; each is two features, one for each sign.

    Args:
        mean: float `[width]`, the mean row.
        covariance: float `[width, width]`.
        k: How many features fire per row; at most one of each direction can.
    """
    _, directions = torch.linalg.eigh(covariance.double())
    kept = directions.flip(1).T.float().contiguous()
    return _tied(_both_signs(kept), mean, min(k, len(mean)), PRINCIPAL)


def _both_signs(directions: torch.Tensor) -> torch.Tensor:
    return torch.cat([directions, -directions])


def _tied(directions: torch.Tensor, mean: torch.Tensor, k: int, name: str) -> Sae:
    return Sae(
        W_enc=directions.T.contiguous(),
        b_enc=torch.zeros(len(directions)),
        W_dec=directions,
        b_dec=mean.detach().cpu().float(),
        activation=TopK(max(1, min(k, len(directions)))),
        about=About(trained={"kind": name}, notes=("A baseline; nobody trained it.",)),
    )
