"""Rows as they are trained on, and an SAE of them as one of the rows themselves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from vlmlens_plugins.sae.batches import Statistics
from vlmlens_plugins.sae.training.recipe import Recipe

_EQUAL = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class Scaling:
    """Rows become `(x - mean) * scale`.

    Args:
        mean: float64 `[width]`.
        scale: The factor.
        square: The mean squared norm of a row after it.
    """

    mean: torch.Tensor
    scale: float
    square: float

    @classmethod
    def of(cls, found: Statistics, recipe: Recipe) -> Scaling:
        """That of a recipe. Rows that are all equal are not multiplied."""
        width = len(found.mean)
        mean = found.mean if recipe.centre else torch.zeros_like(found.mean)
        square = found.spread if recipe.centre else found.square
        if square <= _EQUAL * found.square or square <= 0:
            return cls(mean, 1.0, 1.0)
        scale = math.sqrt(width / square) if recipe.normalise else 1.0
        return cls(mean, scale, square * scale**2)

    @property
    def unit(self) -> float:
        """The root mean square of a number."""
        return math.sqrt(self.square / len(self.mean))

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """The rows as they are trained on, in their dtype."""
        return (rows - self.mean.to(rows)).mul_(self.scale)


def equal_rows(found: Statistics) -> bool:
    """Whether rows do not differ from one another."""
    return found.spread <= _EQUAL * found.square


def scalings(found: Sequence[Statistics], recipe: Recipe) -> tuple[Scaling, Scaling]:
    """Of the rows that are read, and of those that are written."""
    return Scaling.of(found[0], recipe), Scaling.of(found[-1], recipe)
