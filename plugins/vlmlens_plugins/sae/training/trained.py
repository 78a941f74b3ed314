"""What training gives back."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from vlmlens._display import brief
from vlmlens_plugins.sae.sae import Sae
from vlmlens_plugins.sae.training.recipe import Recipe


@dataclass(frozen=True, eq=False)
class Trained:
    """An SAE with how its training went.

    Args:
        sae: The SAE of the rows as they are: mean and scale are folded in, decoder rows have unit
            norm; batchtopk and matryoshka have become JumpReLU.
        recipe: What it was made by.
        rows: How many rows were trained on, those that came again included.
        steps: In how many batches.
        losses: (rows so far, squared error per row as a share of the mean squared distance of a
            row from the mean row): 0 is perfect, 1 is no better than the mean row. At most 200
            points, each the mean since the one before.
        density: float32 `[features]`: in which share of the last rows each feature fired.
        counted: How many rows these were: the last fifth.
    """

    sae: Sae
    recipe: Recipe
    rows: int
    steps: int
    losses: tuple[tuple[int, float], ...]
    density: torch.Tensor
    counted: int

    @property
    def dead(self) -> int:
        """How many features did not fire in the last `counted` rows."""
        return int((self.density == 0).sum())

    @property
    def l0(self) -> float:
        """How many features fired in a row, on average over the last `counted` rows."""
        return float(self.density.double().sum())

    def __repr__(self) -> str:
        return brief(self, self.recipe.kind, str(self.recipe.features), f"{self.rows} rows")
