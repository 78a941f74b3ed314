"""Options of the analysis of heads."""

from __future__ import annotations

from pydantic import Field

from vlmlens.abc import Options


class HeadsOptions(Options):
    """Which tokens heads are shown, and when a head gets a name."""

    length: int = Field(25, ge=4, description="How many random tokens a sequence has, all unlike.")
    copies: int = Field(2, ge=2, description="How often they stand one after the other.")
    sequences: int | None = Field(
        None,
        ge=1,
        description="Random sequences. Default: enough for any single head to be significant.",
    )
    prompt: str = Field("", description="The user's text in front of the random tokens.")
    samples: int = Field(
        32, ge=1, description="At most so many samples of each task show what reads the image."
    )
    threshold: float = Field(
        0.3,
        gt=0,
        le=1,
        description="A head has a role if its score is at least so much above its control.",
    )
    sink: float = Field(
        20.0,
        gt=0,
        description="A row is a sink if a sink dimension is so many times its root mean square.",
    )
    draws: int = Field(1000, ge=100, description="Bootstrap resamples behind each interval.")
