"""Interventions that need nothing but the rows."""

from __future__ import annotations

import torch
from pydantic import Field

from vlmlens.abc import EditedRows, Intervention, Options


class Zero(Intervention):
    """Zeros. In the residual stream that is far from anything that the model knows."""

    def change(self, rows: torch.Tensor, about: EditedRows) -> torch.Tensor:
        """See `Intervention.change`."""
        del about
        return torch.zeros_like(rows)


class ScaleOptions(Options):
    """Options of `scale`."""

    factor: float = Field(0.5, description="What the rows are multiplied by.")


class Scale(Intervention):
    """The rows times a number."""

    Options = ScaleOptions
    options: ScaleOptions

    def change(self, rows: torch.Tensor, about: EditedRows) -> torch.Tensor:
        """See `Intervention.change`."""
        del about
        return rows * self.options.factor
