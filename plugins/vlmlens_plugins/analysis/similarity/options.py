"""Options of the analysis of similarity."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from vlmlens.abc import Options
from vlmlens.cka import BLOCK, LEAST_GROUPS


class SimilarityOptions(Options):
    """Options of the analysis of similarity."""

    columns: list[str] | None = Field(
        None, description="Columns or site patterns; default: every column with one row per sample."
    )
    against: str | None = Field(
        None,
        description="Folder of another run on the same samples (another model, checkpoint or "
        "encoder): its columns are compared with those of this run. Default: this run's own.",
    )
    against_columns: list[str] | None = Field(
        None, description="Columns or site patterns of the other run; default: as `columns`."
    )
    distance: Literal["cosine", "euclidean"] = Field(
        "cosine", description="Of rows less their mean, for RSA and mutual neighbours."
    )
    neighbours: int = Field(10, ge=1, description="Nearest neighbours of each sample.")
    samples: int = Field(
        20_000,
        ge=LEAST_GROUPS,
        description="The most samples for CKA, of as many different groups as there are; drawn by "
        "the seed.",
    )
    subset: int = Field(
        500,
        ge=LEAST_GROUPS,
        description="The most samples, each of another group, for RSA, mutual neighbours and the "
        "permuted baselines; drawn by the seed.",
    )
    permutations: int = Field(199, ge=19, description="Permutations of rows for the baselines.")
    block: int = Field(
        BLOCK,
        ge=LEAST_GROUPS,
        description="The most samples that CKA compares with each other; more are cut into random "
        "blocks.",
    )
    memory: int = Field(512, ge=16, description="MiB for rows and kernels of a block of samples.")
    parted: float = Field(
        0.9, gt=0, lt=1, description="CKA of two runs' columns below which the runs part there."
    )
    groups: bool = Field(
        True,
        description="Whether samples of one group are never compared with each other; false: every "
        "sample counts as a group of its own.",
    )
