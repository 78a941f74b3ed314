"""Options of the analysis of hallucination."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from vlmlens.abc import Options

WRONG, ABSENT = "wrong", "absent"
Blank = Literal["gray", "black", "white", "mean", "noise", "blur", "shuffle", "none"]
Share = Annotated[float, Field(gt=0, le=1)]


class HallucinationOptions(Options):
    """What is told from inside, what is held out, and which signals are read."""

    target: Literal["wrong", "absent"] = Field(
        "wrong",
        description="What signals have to tell: wrong (the answer is not the label), or absent "
        "(the label says that the named object is not there).",
    )
    absent: tuple[str, ...] = Field(
        ("no", "absent", "none"),
        min_length=1,
        description="Labels that say that the object is absent.",
    )
    hold_out: Literal["object", "group", "nothing"] = Field(
        "object",
        description="What test samples share with no training sample: object (neither group nor "
        "object), group, nothing (a random split, which leaks).",
    )
    object: str = Field(
        "object",
        description="The attribute with the named object; without it, the question's text.",
    )
    region: str | dict[str, str] | None = Field(
        None,
        description="The key region: a name, several with +, or * for all of a sample's regions; "
        "or such a name for each task. Default: the sample's attribute `region`; in tasks without "
        "it, all its regions.",
    )
    samples: int = Field(
        400, ge=1, description="Use at most so many samples of each task, the first ones."
    )
    folds: int = Field(5, ge=2, description="Parts of the groups, and of the objects.")
    depths: tuple[Share, ...] = Field(
        (0.25, 0.5, 0.75, 1.0),
        min_length=1,
        description="After which share of the blocks probes read hidden states.",
    )
    C: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (0.001, 0.03),
        min_length=1,
        description="Inverse strengths of probes' regularization, chosen inside training folds.",
    )
    blank: Blank = Field("gray", description="What replaces the image for the blind probability.")
    min_class: int = Field(
        20, ge=2, description="With fewer samples of one class, nothing is claimed of a task."
    )
    min_gain: float = Field(
        0.02, ge=0, lt=0.5, description="A signal that adds less AUROC is not said to add."
    )
    draws: int = Field(1000, ge=100, description="Bootstrap resamples behind intervals and tests.")
    max_new_tokens: int = Field(
        16, ge=1, description="Maximum tokens of a written answer, where there are no choices."
    )
