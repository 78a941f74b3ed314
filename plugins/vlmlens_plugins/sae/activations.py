"""What turns the encoder's output into codes: the four forms in which SAEs are kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch


@dataclass(frozen=True, slots=True, eq=False)
class Relu:
    """`z = ReLU(h)`."""


@dataclass(frozen=True, slots=True, eq=False)
class TopK:
    """The k largest of h in each row are kept.

    Args:
        k: How many.
        rectified: Whether negative ones of these are set to 0.
        by_norm: Whether h is ranked by `h * |decoder row|`.
    """

    k: int
    rectified: bool = True
    by_norm: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class JumpRelu:
    """`z = ReLU(h)` where h is above a feature's threshold, else 0.

    Args:
        threshold: float `[features]`, 0 or more.
    """

    threshold: torch.Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Gated:
    """A gate says which features fire, a magnitude how strongly (Rajamanoharan et al. 2024).

    With `g = x W_enc`: `z = ReLU(g * exp(r_mag) + b_mag)` where `g + b_gate > 0`, else 0. The
    encoder's own bias is not used.

    Args:
        b_gate: float `[features]`; `b_mag` and `r_mag` likewise.
    """

    b_gate: torch.Tensor
    b_mag: torch.Tensor
    r_mag: torch.Tensor


Activation: TypeAlias = Relu | TopK | JumpRelu | Gated
