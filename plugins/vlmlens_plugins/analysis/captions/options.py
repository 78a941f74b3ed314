"""Options of captions."""

from __future__ import annotations

from pydantic import Field

from vlmlens.abc import Options


class CaptionOptions(Options):
    """Which objects are looked for, and in which texts."""

    objects: str | None = Field(
        None,
        description="A file of object names: lines `object: synonym, synonym`, or JSON; coco: the "
        "80 kinds of COCO. Default: the objects of the demo's scenes.",
    )
    texts: str | None = Field(
        None,
        description="The attribute of the samples that holds the text to read. Default: what the "
        "model writes: the run's generated texts, and where it has none, the model is asked.",
    )
    max_new_tokens: int = Field(
        64, ge=1, description="Tokens that the model may write where the run has no text."
    )
    examples: int = Field(50, ge=1, description="How many texts the table of examples shows.")
    draws: int = Field(
        1000,
        ge=100,
        description="Resamples behind each interval, and exchanges of texts.",
    )
