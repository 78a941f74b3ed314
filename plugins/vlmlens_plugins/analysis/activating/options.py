"""Options of activating."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from vlmlens.abc import Options
from vlmlens_plugins.analysis._sweeps.sweeping import Texts, listed

Share = Annotated[float, Field(ge=0, le=1)]


class ActivatingOptions(Options):
    """Which coordinates are looked at, in which samples, and what is asked of the model."""

    coordinates: Texts = Field(
        None,
        description="Coordinates: COLUMN#NUMBER (llm.block.3/last#17), or COLUMN@FILE, the "
        "projection on a direction that steering or a probe exported (of a probe with several "
        "classes COLUMN@FILE:CLASS). Default: those that vary most, see `most`.",
    )
    most: int = Field(
        4,
        ge=1,
        description="Without `coordinates`: the coordinate of each column that varies most over "
        "samples; of these so many, largest deviation relative to the column's median first.",
    )
    by: Annotated[
        tuple[str, ...],
        BeforeValidator(listed, json_schema_input_type=str | tuple[str, ...]),
    ] = Field(
        ("label",),
        description="What a coordinate may separate: label (in each task), or attributes.",
    )
    top: int = Field(3, ge=1, description="Samples with the largest values, each of another group.")
    quantiles: tuple[Share, ...] = Field(
        (0.0, 0.25, 0.5, 0.75), description="One sample is shown at each of these quantiles."
    )
    random: int = Field(3, ge=0, description="Samples drawn at random.")
    permutations: int = Field(999, ge=99, description="How often labels are shuffled, at least.")
    model: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Ask the model what drives a coordinate with one row per sample: auto (if "
        "there is a model), on (an error if there is none), off.",
    )
    against: Literal["mean", "zero"] = Field(
        "mean",
        description="What each patch or word is compared with, and replaced by where it is "
        "masked: the mean row of other samples, or zero.",
    )
    steps: int = Field(
        5,
        ge=1,
        description="Points on the way from there to the rows at which gradients are taken "
        "(integrated gradients, midpoint rule); 1: at the rows (gradient x input).",
    )
    masked: int = Field(
        2, ge=0, description="For so many of the top samples, patches are really masked."
    )
    patches: int = Field(4, ge=1, description="How many patches (or words) are masked together.")
    controls: int = Field(3, ge=1, description="Draws of as many other patches.")
    references: int = Field(16, ge=1, description="Samples behind the mean row.")
    max_units: int = Field(
        5000, ge=1, description="Refuse to start if more samples must pass through the model."
    )
