"""Putting rows in place of those of an activation, as an edit by a function."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True, eq=False)
class Put:
    """Puts rows in their places, whatever stood there.

    Args:
        places: int64 `[k]`: row numbers of the flattened activation.
        rows: `[k, width]`.
    """

    places: torch.Tensor
    rows: torch.Tensor

    def __call__(self, activation: torch.Tensor) -> torch.Tensor:
        """The activation with the rows."""
        flat = activation.reshape(-1, activation.shape[-1])
        rows = self.rows.to(flat.device, flat.dtype)
        return flat.index_copy(0, self.places.to(flat.device), rows).reshape(activation.shape)
