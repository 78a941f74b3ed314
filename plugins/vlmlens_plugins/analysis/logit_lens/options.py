"""Options of the logit lens."""

from __future__ import annotations

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
        "Default: llm.block.*/last; if not stored, all other columns of single positions.",
    )
    samples: int | list[str] = Field(
        2, description="Samples to show token by token: ids, or how many of each task."
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
