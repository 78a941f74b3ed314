"""Options of `concepts`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from vlmlens.abc import Options

LABEL, IMAGE_NAME = "label", "image-name"
Metric = Literal["cosine", "euclidean"]


def _several(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Texts = Annotated[list[str], BeforeValidator(_several)]


class ConceptsOptions(Options):
    """Options of `concepts`."""

    by: Texts = Field(
        default_factory=lambda: [LABEL],
        description="Concepts: label (of each task), an attribute NAME, NAME@TASK, or image-name "
        "(the file name of the image without its number, as in red_01.jpg).",
    )
    columns: list[str] | None = Field(
        None, description="Columns or site patterns; default: all. Several rows are averaged."
    )
    samples: int = Field(
        2000,
        ge=10,
        le=20_000,
        description="Samples for directions and neighbours at most, drawn by the seed. Components "
        "(PCA) are of all samples.",
    )
    k: int = Field(5, ge=1, le=40, description="How many neighbours vote.")
    metric: Metric = Field(
        "cosine",
        description="Nearness of neighbours and silhouettes; cosine is between centred rows.",
    )
    permutations: int = Field(
        999, ge=99, description="How often labels are shuffled over groups, at least."
    )
    resamples: int = Field(1000, ge=200, description="Bootstrap resamples per interval.")
    alpha: float = Field(
        0.05, gt=0, lt=1, description="Significance level of the corrected p-values."
    )
    min_gap: float = Field(
        0.2,
        gt=0,
        lt=1,
        description="Minimum gap above shuffled labels, as a fraction of 1 - shuffled.",
    )
    directions: Literal["all", "best", "off"] = Field(
        "all", description="At which columns directions are saved: all, the best one, or none."
    )
    reference: Literal["others", "all"] = Field(
        "others",
        description="A direction is the mean of the concept less the mean of the other samples, "
        "or less the mean of all.",
    )
    onto: Texts = Field(
        default_factory=list,
        description="Files of directions: the run's samples are projected on them.",
    )
    vlm_lens: bool = Field(
        False, description="Whether to add the numbers of VLM-Lens' concept scripts."
    )
    prototypes: str | None = Field(
        None,
        description="For vlm_lens: the run or database of the concepts' own samples. Default: the "
        "samples themselves.",
    )
    components: int | None = Field(
        None,
        ge=1,
        description="For vlm_lens: how many components of the concepts' samples rows are brought "
        "to first. Default: rows stay as they are.",
    )
