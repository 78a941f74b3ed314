"""Rows with a known dictionary, and how much of it an SAE has found."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment


@dataclass(frozen=True)
class Toy:
    """Rows that are sums of few of many directions.

    Args:
        truth: float32 `[directions, width]`, of unit norm.
        amounts: float32 `[rows, directions]`: how much of each a row has, mostly 0.
        rows: float32 `[rows, width]`.
    """

    truth: torch.Tensor
    amounts: torch.Tensor
    rows: torch.Tensor


def toy(
    count: int = 20_000, width: int = 32, directions: int = 48, active: float = 2.0,
    mean: float = 0.0, noise: float = 0.0, seed: int = 0,
) -> Toy:  # fmt: skip
    """Superposition: each direction is in a row with equal probability, by 0.5 to 1.5.

    Args:
        count: Rows.
        width: Numbers in a row.
        directions: True directions.
        active: How many a row has on average.
        mean: The norm of a vector that is added to all rows.
        noise: Deviation of normal noise on each number.
        seed: Of everything.
    """
    random = torch.Generator().manual_seed(seed + 7919)  # no SAE starts from the truth
    truth = torch.randn(directions, width, generator=random)
    truth /= truth.norm(dim=1, keepdim=True)
    there = torch.rand(count, directions, generator=random) < active / directions
    amounts = there * (0.5 + torch.rand(count, directions, generator=random))
    shift = torch.randn(width, generator=random)
    rows = amounts @ truth + mean * shift / shift.norm()
    rows += noise * torch.randn(rows.shape, generator=random)
    return Toy(truth, amounts, rows)


def matched(truth: torch.Tensor, found: torch.Tensor) -> float:
    """The mean cosine (either sign) of true directions with found ones, one to one.

    Args:
        truth: `[directions, width]`.
        found: `[features, width]`; the best assignment is taken.
    """
    unit = torch.nn.functional.normalize(found, dim=1)
    alike = (truth @ unit.T).abs().numpy()
    own, other = linear_sum_assignment(-alike)
    return float(np.sum(alike[own, other]) / len(truth))
