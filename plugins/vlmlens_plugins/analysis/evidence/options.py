"""Options of the evidence analysis."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator

from vlmlens.abc import Options
from vlmlens_plugins.analysis._sweeps.sweeping import listed

Masking = Literal["mean", "blur", "gray", "black", "white", "noise"]
"""What hides pixels: a fill that another image does not give."""


class EvidenceOptions(Options):
    """Options of the evidence analysis."""

    region: str | dict[str, str] | None = Field(
        None,
        description="The key region: a name, several with +, or * for all of a sample's regions; "
        "or such a name for each task. Default: the sample's attribute `region`; in tasks without "
        "it, all its regions.",
    )
    fills: Annotated[
        tuple[Masking, ...],
        BeforeValidator(listed, json_schema_input_type=Masking | tuple[Masking, ...]),
    ] = Field(
        ("mean", "gray"),
        min_length=1,
        description="What hides pixels, several: mean (the mean color of the image), gray, black, "
        "white, noise, blur (leaves colors).",
    )
    random_regions: int = Field(
        10, ge=1, description="How many other regions of equal area are hidden as the control."
    )
    hint: str = Field(
        "Hint: the answer is {answer}. {prompt}",
        description="The prompt with a hint; it holds {answer} and {prompt}.",
    )
    blind: Literal["text", "gray"] = Field(
        "text",
        description="What is asked without the image: the text alone, or (for models that need an "
        "image) with a gray image.",
    )
    score: Literal["sum", "mean"] = Field(
        "sum", description="Log-probability of an answer: sum or mean over its tokens."
    )
    samples: int = Field(
        40, ge=1, description="Use at most so many samples of each task, the first ones."
    )
    max_questions: int = Field(
        20_000, ge=1, description="Refuse to start if the model would be asked more questions."
    )
    draws: int = Field(1000, ge=100, description="Bootstrap resamples behind each interval.")
    alpha: float = Field(
        0.05, gt=0, lt=1, description="Significance level of the corrected p-values."
    )
    min_specificity: float = Field(
        0.25,
        gt=0,
        lt=1,
        description="By how much hiding the region must do more than hiding random regions, as a "
        "share of what the image does.",
    )
    max_background: float = Field(
        0.25,
        gt=0,
        lt=1,
        description="What another background may do at most, as a share of what the image does.",
    )
    min_following: float = Field(
        0.5,
        gt=0,
        lt=1,
        description="Share of answers that must follow an exchanged image, of those right before.",
    )
    max_flips: float = Field(
        0.1,
        gt=0,
        lt=1,
        description="Share of answers that may change with an exchanged image where the answer "
        "rests on the text.",
    )
    pictures: int = Field(
        2, ge=0, description="For so many samples of each task, a map of what hiding regions does."
    )

    @field_validator("fills")
    @classmethod
    def _distinct(cls, value: tuple[Masking, ...]) -> tuple[Masking, ...]:
        if len(set(value)) < len(value):
            raise ValueError("a fill is named twice")
        return value

    @field_validator("hint")
    @classmethod
    def _holds_both(cls, value: str) -> str:
        if "{prompt}" not in value or "{answer}" not in value:
            raise ValueError("it must hold {prompt} and {answer}")
        return value
