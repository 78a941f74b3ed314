"""Options of occlusion."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from vlmlens.abc import Options
from vlmlens.errors import SpecError
from vlmlens_plugins.analysis._sweeps.sweeping import Texts

Masking = Literal["mean", "blur", "gray", "black", "white", "noise"]
"""What hides pixels."""


class OcclusionOptions(Options):
    """Which maps are made, and how they are compared."""

    samples: int = Field(8, ge=1, description="Use at most so many samples of each task.")
    methods: Texts = Field(
        None,
        description="Maps that are compared: occlusion (pixels), rows (rows of patches, see "
        "`sites`), gradients, integrated-gradients, attention, rollout, relevance, value-weighted. "
        "The first one is tested. Default: occlusion, gradients, attention, relevance and "
        "value-weighted, as far as the model offers them; and rows, if there are sites.",
    )
    grid: int = Field(
        6, ge=2, le=64, description="Cells along each side of the image that get a value."
    )
    window: int = Field(
        3,
        ge=1,
        description="Hide a window of so many cells along each side, moved cell by cell. Where "
        "that hides too little to change the answer, one that is half as wide again.",
    )
    fill: Masking = Field(
        "mean",
        description="What hides pixels, in maps and in deletion: mean (the image's mean color), "
        "gray, black, white, noise, blur (leaves colors).",
    )
    score: Literal["answer", "difference"] = Field(
        "answer",
        description="What falls: the log-probability of the answer; or (difference), where there "
        "are choices, less that of the choice that is its strongest rival on the whole image.",
    )
    sites: Texts = Field(
        None,
        description="Where `rows` replaces rows of patches by their mean, one map for each, such "
        "as [projector, llm.block.2]. Default: the projector's output.",
    )
    steps: int = Field(6, ge=2, description="Steps of deletion and insertion.")
    cells: int = Field(
        16, ge=2, le=64, description="Cells along each side that are deleted or inserted."
    )
    insertion: Masking = Field("blur", description="What insertion begins with; see `fill`.")
    blur: float = Field(
        0.1, gt=0, le=1, description="Radius of the blur as a share of the longer side."
    )
    controls: int = Field(1, ge=1, description="Random orders, drawn for each sample.")
    region: str | dict[str, str] | None = Field(
        None,
        description="The region in which the peak should lie: a name, several with +, or * for "
        "all; or such a name for each task. Default: the sample's attribute `region`; in tasks "
        "without it, all its regions.",
    )
    only_right: bool = Field(
        True, description="Leave out samples whose label is not the most probable choice."
    )
    pictures: int = Field(3, ge=0, description="Samples of each task whose maps are drawn.")
    max_units: int = Field(
        20_000, ge=1, description="Refuse to start if more samples must pass through the model."
    )
    draws: int = Field(1000, ge=100, description="Bootstrap resamples behind each interval.")

    @model_validator(mode="after")
    def _fits(self) -> OcclusionOptions:
        if self.window > self.grid:
            raise SpecError(
                f"window={self.window} is more than grid={self.grid}.",
                subject="window",
                hint="Set window to at most grid.",
            )
        if self.steps > self.cells**2:
            raise SpecError(
                f"steps={self.steps} is more than there are cells: {self.cells} x {self.cells}.",
                subject="steps",
                hint="Set steps lower or cells higher.",
            )
        return self
