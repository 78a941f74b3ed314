"""Options of the logit lens."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from vlmlens.abc import Options


class LensOptions(Options):
    """Options of the logit lens."""

    k: int = Field(
        5, ge=1, le=100, description="Number of top tokens per layer in tables and maps."
    )
    norm: bool = Field(True, description="Apply the final norm before the unembedding.")
    columns: list[str] | None = Field(
        None,
        min_length=1,
        description="Columns of language blocks to read: /last, /all, /text, /image, /steps. "
        "Default: llm.block.*/last, and llm.block.*/image where stored; if /last is not stored, "
        "all columns of single positions.",
    )
    samples: int | list[str] = Field(
        2, description="Samples to show token by token: ids, or how many of each task."
    )
    positions: list[Literal["image", "text", "all"]] = Field(
        default_factory=list,
        description="Further positions of these samples to show, also where they are not stored: "
        "the model runs once more for each sample.",
    )
    words: list[str] = Field(
        default_factory=list,
        description="Words to follow; all single-token spellings of a word are added up.",
    )
    chunk: int = Field(256, ge=1, description="Megabytes of rows and logits held at once, roughly.")
    tuned: bool = Field(
        False, description="Also train a tuned lens per layer and test it on held-out samples."
    )
    tuned_file: str | None = Field(
        None,
        description="Where to save the tuned lens (safetensors). Default: with the run's results.",
    )
