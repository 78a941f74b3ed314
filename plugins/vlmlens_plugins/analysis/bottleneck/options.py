"""Options of the analysis of bottlenecks."""

from __future__ import annotations

from string import Formatter
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from vlmlens_plugins.analysis.bottleneck.tuning.options import TuningOptions
from vlmlens_plugins.analysis.bottleneck.work import Share

OCR, SCENE, TEXT = "image+ocr", "image+scene", "text"
IMAGE, BLIND = "image", "blind"
Blank = Literal["gray", "black", "white", "mean", "noise", "blur", "shuffle", "none"]


def _template(value: str) -> str:
    """Both fields stand in it, and no other."""
    try:
        fields = [name for _, name, _, _ in Formatter().parse(value) if name is not None]
    except ValueError as error:
        raise ValueError(f"{value!r} is no template ({error})") from error
    if sorted(fields) != ["question", "text"]:
        raise ValueError(f"{value!r} must hold {{text}} and {{question}}, each once, nothing else")
    return value


class BottleneckOptions(TuningOptions):
    """What is put in words, how it is put before the question, and what counts as readable."""

    ocr: tuple[str, ...] = Field(
        ("ocr", "table"),
        description="Attributes with the text or the table that the image shows; the first one "
        "that a sample has.",
    )
    scene: tuple[str, ...] = Field(
        ("scene",), description="Attributes with the scene graph, as text."
    )
    description: tuple[str, ...] = Field(
        ("description",),
        description="Attributes with a true description that says all that the question needs.",
    )
    template: Annotated[str, AfterValidator(_template)] = Field(
        "{text}\n{question}",
        description="How a text and the question become a prompt: {text} and {question}.",
    )
    blank: Blank = Field(
        "gray",
        description="What replaces the image where the model is blind, and where it has the "
        "description alone; none gives it text only.",
    )
    fact: str = Field(
        "fact",
        description="The attribute with what has to be seen, for questions whose answer is more "
        "than what is seen. Probes look for it; for samples without it, for the label.",
    )
    rule: str = Field(
        "strict", description="How written answers of a benchmark are read: a rule of its card."
    )
    samples: int = Field(
        400, ge=1, description="Use at most so many samples of each task, the first ones."
    )
    min_class: int = Field(
        10,
        ge=2,
        description="Answers with fewer samples are not probed; with fewer samples that show "
        "whether a description is understood, nothing is concluded from it.",
    )
    folds: int = Field(5, ge=2, description="Parts of the groups, for cross-validated probes.")
    C: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (0.01, 1.0),
        min_length=1,
        description="Inverse strengths of probes' regularization; the best probe of a stage "
        "counts, beside the best of as many probes of shuffled labels.",
    )
    controls: int = Field(20, ge=20, description="Probes of shuffled labels, for each stage.")
    tower_depths: tuple[Share, ...] = Field(
        (0.5, 0.75, 1.0),
        min_length=1,
        description="After which share of the vision tower's blocks probes read.",
    )
    depths: tuple[Share, ...] = Field(
        (0.25, 0.5, 0.75, 1.0),
        min_length=1,
        description="After which share of the language model's blocks probes read.",
    )
    min_skill: float = Field(
        0.3,
        gt=0,
        lt=1,
        description="A stage counts as readable from this part of the way from guessing (0) to "
        "perfect (1) on.",
    )
    min_lost: int = Field(
        100,
        ge=2,
        description="With fewer samples of a question, nothing is called not readable: a probe "
        "may only have had too little to learn from.",
    )
    min_understood: float = Field(
        0.5,
        gt=0,
        lt=1,
        description="A description counts as understood from this part of the way from the blind "
        "answers (0) to perfect (1) on, in questions that are answered right from the image.",
    )
    min_shift: float = Field(
        0.7,
        gt=0,
        description="Prior: how far, in nats, the image has to move the answer towards the label "
        "(0.7: it doubles the odds).",
    )
    alpha: float = Field(0.05, gt=0, lt=1, description="Level of the probes' tests.")
    draws: int = Field(1000, ge=100, description="Bootstrap resamples behind intervals.")
    max_new_tokens: int = Field(
        16, ge=1, description="Maximum tokens of a written answer, where there are no choices."
    )
    charts: bool = Field(
        False,
        description="Also the two bottlenecks of arXiv 2503.18435: what the representation lacks, "
        "and what is not taken out of it.",
    )
