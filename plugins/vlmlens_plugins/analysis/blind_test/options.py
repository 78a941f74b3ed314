"""Options of the blind test."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from vlmlens.abc import Options

Blank = Literal["gray", "black", "white", "noise", "none"]


class BlindOptions(Options):
    """Options of the blind test."""

    blank: Blank = Field(
        "gray", description="What replaces the image, in its size; none: text only."
    )
    alpha: float = Field(0.05, gt=0, lt=1, description="Level of the corrected p-values.")
    min_distance: float = Field(
        0.05, gt=0, lt=1, description="Mean total variation from which answers count as changed."
    )
    min_flips: float = Field(
        0.02,
        gt=0,
        lt=1,
        description="Share of flips from which answers count as changed.",
    )
    draws: int = Field(10_000, ge=1000, description="Permutations behind each p-value.")
    resamples: int = Field(2000, ge=200, description="Bootstrap resamples behind each interval.")
