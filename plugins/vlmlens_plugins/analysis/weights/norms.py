"""The linear part of a norm: its elementwise weight, and whether it subtracts the mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

_NEAR = 1e-3


@dataclass(frozen=True, slots=True)
class Norm:
    """What a norm does to a row up to its length: `gain * (x - mean(x))`, or `gain * x`.

    Args:
        gain: `[width]`, the elementwise weight.
        centred: Whether the mean is subtracted (LayerNorm).
    """

    gain: torch.Tensor
    centred: bool = False

    def before(self, rows: torch.Tensor) -> torch.Tensor:
        """Matrices `[..., width]` that read what the norm gives, as ones that read its input."""
        read = rows * self.gain.to(rows)
        return read - read.mean(-1, keepdim=True) if self.centred else read

    def after(self, rows: torch.Tensor) -> torch.Tensor:
        """What the norm makes of directions `[..., width]`, up to their common length."""
        centred = rows - rows.mean(-1, keepdim=True) if self.centred else rows
        return centred * self.gain.to(rows)


def read_norm(
    function: Callable[[torch.Tensor], torch.Tensor], width: int, device: torch.device
) -> Norm | None:
    """The linear part of a norm, from what it gives on chosen rows.

    Also of a module that only multiplies each dimension. None: it is neither.

    Args:
        function: The norm, `[rows, width] -> [rows, width]`.
        width: Of its rows.
        device: Where it computes.
    """
    random = torch.Generator().manual_seed(0)
    sizes = 1 + torch.rand(2, width, generator=random)
    rows = (sizes * (1 - 2 * torch.randint(0, 2, (2, width), generator=random))).to(device)
    zero, *several = (
        function(each).float().to(device)
        for each in (torch.zeros_like(rows), rows, 2 * rows, rows + 3)
    )
    given, doubled, moved = (each - zero for each in several)
    if near(doubled, 2 * given):
        unit, centred = rows, False
    elif near(doubled, given):
        centred = near(moved, given)
        inner = rows - rows.mean(-1, keepdim=True) if centred else rows
        unit = inner / inner.pow(2).mean(-1, keepdim=True).sqrt()
    else:
        return None
    index = unit.abs().argmax(0, keepdim=True)
    gain = (given.gather(0, index) / unit.gather(0, index))[0]
    return Norm(gain, centred) if near(given, unit * gain) else None


def near(one: torch.Tensor, other: torch.Tensor, within: float = _NEAR) -> bool:
    """Whether two tensors differ by less than a share of the largest number in them."""
    largest = max(float(one.abs().max()), float(other.abs().max()))
    return bool((one - other).abs().max() <= within * largest)
