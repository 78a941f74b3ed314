"""A norm as a linear map: its scale is frozen at the value that it has for certain rows.

How the norm computes is not asked. What it makes of a few rows shows its weight, its bias, and
whether it subtracts the mean; LayerNorm, RMSNorm, their variants (1 + w) and plain scalings are
such maps, and anything else is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from vlmlens._display import brief
from vlmlens.errors import CompositionError

_NEAR = {torch.float32: 1e-4, torch.float64: 1e-4}
_ROUGH = 3e-2
"""How far, relative to its length, what the map gives may be from what the norm gives: float32;
other types."""
_SHIFT = 0.5
"""Added to a row whose mean is 0: a norm that subtracts the mean gives the same as before."""


@dataclass(frozen=True, slots=True, eq=False)
class Frozen:
    """x -> scale * weight * (x - mean(x)) for each row of its own, without the bias.

    Args:
        scale: float64 `[rows, 1]`.
        weight: float64 `[width]`.
        bias: float64 `[width]`: what the norm adds to what the map gives.
        centres: Whether the mean is subtracted.
    """

    scale: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor
    centres: bool

    @classmethod
    def of(cls, norm: Callable[[torch.Tensor], torch.Tensor], rows: torch.Tensor) -> Frozen:
        """The map that equals a norm at these rows.

        Args:
            norm: `[rows, width] -> [rows, width]`.
            rows: float `[rows, width]`.

        Raises:
            CompositionError: The norm is no such map.
        """

        def made(given: torch.Tensor) -> torch.Tensor:
            return norm(given.to(rows.dtype)).double().to(rows.device)

        probe = _probe(rows)[None]
        bias = made(torch.zeros_like(probe))[0]
        weight = ((made(probe) - bias) / probe)[0]
        off_centre = probe + _SHIFT
        wanted = made(off_centre) - bias
        fits = [_fitted(wanted, off_centre, weight, bias, centres) for centres in (False, True)]
        centres = fits[1][1] < fits[0][1]
        found, far = _fitted(made(rows) - bias, rows.double(), weight, bias, centres)
        if not far <= _NEAR.get(rows.dtype, _ROUGH):
            raise CompositionError(
                "A norm of the model is no weight times a scale of the row (off by "
                f"{far:.1e}), so it cannot be frozen.",
                subject="norm",
                hint="Contributions to the logits are known for LayerNorm, RMSNorm and scalings.",
            )
        return found

    def __call__(self, parts: torch.Tensor) -> torch.Tensor:
        """What the map makes of parts of the rows.

        Args:
            parts: `[parts, rows, width]`, in any type.

        Returns:
            float64, of the same shape.
        """
        exact = parts.double()
        if self.centres:
            exact = exact - exact.mean(-1, keepdim=True)
        return self.scale * self.weight * exact

    def __repr__(self) -> str:
        return brief(self, "centring" if self.centres else "", f"{len(self.scale)} rows")


def _probe(rows: torch.Tensor) -> torch.Tensor:
    """A row without zeros whose mean is 0."""
    probe = torch.ones(rows.shape[-1], dtype=torch.float64, device=rows.device)
    probe[1::2] = -1
    if len(probe) % 2:
        probe[-3:] = torch.tensor([1.0, 1.0, -2.0])
    return probe


def _fitted(
    wanted: torch.Tensor,
    rows: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    centres: bool,
) -> tuple[Frozen, float]:
    """The map whose scale fits best, and how far it is off, relative to what the norm gives."""
    plain = weight * (rows - rows.mean(-1, keepdim=True) if centres else rows)
    square = plain.square().sum(-1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    scale = (wanted * plain).sum(-1, keepdim=True) / square
    far = (scale * plain - wanted).norm(dim=-1) / wanted.norm(dim=-1).clamp(min=1e-12)
    return Frozen(scale, weight, bias, centres), float(far.max())
