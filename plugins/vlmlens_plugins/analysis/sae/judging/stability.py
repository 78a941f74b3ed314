"""Stability: whether another seed gives the same features."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from vlmlens_plugins.sae.baselines import random_directions

EXACT = 4096
_AT_ONCE = 2**24


def matched_cosine(one: torch.Tensor, other: torch.Tensor) -> float:
    """How alike the directions of two dictionaries are, 0 to 1.

    Each direction of the smaller dictionary is matched with one of the other, no two with the same,
    so that the mean absolute cosine is as large as possible (the Hungarian method; H. Kuhn, "The
    Hungarian method for the assignment problem", Nav. Res. Logist. Q. 2 (1955)). Above 4096
    directions that takes too long; then each takes the most similar one, whether or not another
    took it, and the mean of both ways is returned, which is a little larger.

    Args:
        one: float `[features, width]`.
        other: float `[features, width]`.

    Returns:
        The mean; NaN if either has no direction.
    """
    if not len(one) or not len(other):
        return float("nan")
    a, b = _unit(one), _unit(other)
    if max(len(a), len(b)) > EXACT:
        return (_nearest(a, b) + _nearest(b, a)) / 2
    cosine = (a @ b.T).abs().numpy()
    rows, columns = linear_sum_assignment(cosine, maximize=True)
    return float(np.mean(cosine[rows, columns], dtype=np.float64))


def by_chance(one: int, other: int, width: int, seed: int) -> float:
    """The same of two dictionaries of random directions, of as many features.

    Args:
        one: Features of the first.
        other: Features of the second.
        width: The width of a row.
        seed: Of the directions.
    """
    drawn = random_directions(one + other, width, seed)
    return matched_cosine(drawn[:one], drawn[one:])


def _nearest(a: torch.Tensor, b: torch.Tensor) -> float:
    step = max(1, _AT_ONCE // len(b))
    parts = [(part @ b.T).abs().amax(1) for part in a.split(step)]
    return float(torch.cat(parts).double().mean())


def _unit(directions: torch.Tensor) -> torch.Tensor:
    given = directions.detach().cpu().float()
    unit: torch.Tensor = given / given.norm(dim=1, keepdim=True).clamp(min=1e-12)
    return unit
