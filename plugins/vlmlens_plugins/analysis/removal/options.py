"""Options of removal."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, FiniteFloat

from vlmlens_plugins.analysis._sweeps import SweepOptions
from vlmlens_plugins.analysis._sweeps.sweeping import Texts


def _once(values: list[float]) -> list[float]:
    return list(dict.fromkeys(values))


Positive = Annotated[FiniteFloat, Field(gt=0)]


class RemovalOptions(SweepOptions):
    """How objects are removed, where, and how strongly."""

    measure: Literal["answers", "captions"] = Field(
        "answers",
        description="answers: questions whether an object is there. captions: objects that the "
        "model's texts name, which are taken out and the texts written again.",
    )

    method: Literal["project-out", "steer"] = Field(
        "project-out",
        description="project-out: what rows have of the object's word, read from text alone, is "
        "taken away. steer: the difference of pictures with and without the object is subtracted.",
    )
    sites: Texts = Field(
        None,
        description="Where image rows are edited: sites or patterns. Default: at most 4 language "
        "blocks, of the encoder if there is one, but the last, spread evenly.",
    )
    text_sites: Texts = Field(
        None,
        description="Where the object's word is read (project-out). Default: the first 3 blocks.",
    )
    rows: str = Field("image", description="The rows that are edited.")
    strengths: Annotated[list[Positive], AfterValidator(_once)] = Field(
        default_factory=lambda: [1.0, 2.0],
        min_length=1,
        description="How much is taken away: 1 is all that points along the direction, or the "
        "whole difference.",
    )
    samples: int = Field(
        32,
        ge=2,
        description="Use at most so many questions of each side (or captions) in each half.",
    )
    controls: int = Field(
        5, ge=5, description="Random directions, and as many exchanges of the objects' directions."
    )
    objects: str | None = Field(
        None, description="Of captions: a file of object names, see the analysis captions."
    )
    max_new_tokens: int = Field(64, ge=1, description="Of captions: the tokens of each.")
    alpha: float = Field(0.05, gt=0, lt=1, description="Significance level.")
