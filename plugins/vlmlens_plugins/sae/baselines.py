"""What an SAE is held against: dictionaries of its form that nobody trained.

All of them keep the k largest values per row, so that their L0 is that of the SAE, take the mean
row away first, and have directions of length 1.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

import torch

from vlmlens_plugins.sae.about import About
from vlmlens_plugins.sae.activations import TopK
from vlmlens_plugins.sae.sae import Sae

UNTRAINED = "untrained"
NEURONS = "neurons"
PRINCIPAL = "PCA"
EXAMPLES = "random rows"
_ELEMENTS = 2**24


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
    return _scaled(random_directions(features, len(mean), seed), mean, rows, k, UNTRAINED)


def random_rows(features: int, mean: torch.Tensor, rows: torch.Tensor, k: int, seed: int) -> Sae:
    """Rows themselves as directions, less the mean: a dictionary of examples.

    A harder control than random directions: it knows where rows lie, and has learnt nothing of
    what they have in common. Its scale is fitted as that of `untrained`.

    Args:
        features: How many directions, at most as many as there are rows.
        mean: float `[width]`, the mean row.
        rows: float `[n, width]`, at least one; not the ones that are judged.
        k: How many features fire per row.
        seed: Of the choice of rows.
    """
    drawn = _generator("random rows", seed)
    chosen = torch.randperm(len(rows), generator=drawn)[:features]
    away = rows[chosen].float() - mean.float()
    lengths = away.norm(dim=1, keepdim=True)
    blank = random_directions(len(away), len(mean), seed)  # instead of rows that equal the mean
    directions = torch.where(lengths > 0, away / lengths.clamp(min=1e-30), blank)
    return _scaled(directions, mean, rows, k, EXAMPLES)


def _scaled(
    directions: torch.Tensor, mean: torch.Tensor, rows: torch.Tensor, k: int, name: str
) -> Sae:
    """Directions with the encoder tied to them, times a number fitted by least squares."""
    raw = _tied(directions, mean, k, name)
    square = wanted = 0.0
    for part in rows.split(max(1, _ELEMENTS // len(directions))):
        written = (raw.decode(raw.encode(part)) - raw.b_dec).double()
        square += float(written.square().sum())
        wanted += float((written * (part.float() - raw.b_dec)).sum())
    factor = max(0.0, wanted) / square if square > 0 else 1.0
    return replace(raw, W_enc=raw.W_enc * factor)


def random_directions(features: int, width: int, seed: int) -> torch.Tensor:
    """float32 `[features, width]`: directions of length 1, evenly spread over the sphere.

    They are of no other use of the same seed: the start of a training with it has other ones.
    """
    drawn = torch.randn(features, width, generator=_generator("random directions", seed))
    found: torch.Tensor = drawn / drawn.norm(dim=1, keepdim=True)
    return found


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


def _generator(purpose: str, seed: int) -> torch.Generator:
    digest = hashlib.sha256(f"{purpose} {seed}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7]))


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
