"""The conditions under which a question is asked, as edits of its sample."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import cycle
from typing import Final

import numpy as np
import numpy.typing as npt

from vlmlens.abc import AnalysisContext
from vlmlens.errors import CompositionError, SelectorError
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._altered import OTHER, Alteration, Area, Question, ask
from vlmlens_plugins.analysis._blank_images import without_regions
from vlmlens_plugins.analysis.evidence.cases import Case, bounds
from vlmlens_plugins.analysis.evidence.options import EvidenceOptions

Floats = npt.NDArray[np.float64]

FULL: Final = "full image"
NONE: Final = "no image"
HIDDEN: Final = "region hidden"
KEPT: Final = "only the region"
RANDOM: Final = "random region hidden"
BACKGROUND: Final = "other background"
SAME: Final = "image with the same answer"
DIFFERENT: Final = "image with another answer"
WRONG_HINT: Final = "right image, wrong hint"
RIGHT_HINT: Final = "wrong image, right hint"
HINT: Final = "wrong hint alone"

CONDITIONS: Final = (
    FULL, HIDDEN, RANDOM, KEPT, BACKGROUND, SAME, DIFFERENT, NONE, WRONG_HINT, RIGHT_HINT, HINT,
)  # fmt: skip

Answers = Mapping[str, Sequence[Floats]]
"""By condition, the log-probabilities of the answers: one array for each fill or place."""

_EVERYWHERE = (0.0, 0.0, 1e9, 1e9)


def asked(
    case: Case, options: EvidenceOptions, *, edited: bool = False
) -> Iterator[tuple[str, Question]]:
    """The questions of a case, with the condition of each.

    Args:
        case: The case.
        options: How to ask.
        edited: Whether the model runs under edits, which may need regions also without an image.
    """
    sample, answers = case.known.sample, case.answers

    def question(
        change: Alteration | None = None,
        *,
        shown: Sample | None = None,
        other: Sample | None = None,
        hint: str = "",
    ) -> Question:
        seen = sample if shown is None else shown
        if hint:
            seen = hinted(seen, hint, options.hint)
        return Question(seen, answers, change, other)

    yield FULL, question()
    yield NONE, _blind(question(), options, edited)
    if case.known.key:
        area = Area(regions=case.known.key)
        for fill in options.fills:
            yield HIDDEN, question(Alteration(hide=area, fill=fill))
            yield KEPT, question(Alteration(keep=area, fill=fill))
        for move, fill in zip(case.places.shifts, cycle(options.fills), strict=False):
            yield RANDOM, question(Alteration(hide=replace(area, shift=move), fill=fill))
        if case.background is not None:
            cleared = bounds(case.background) if case.background.key else None
            change = Alteration(keep=area, fill=OTHER, cleared=cleared)
            yield BACKGROUND, question(change, other=case.background.sample)
    if case.same is not None:
        yield SAME, question(shown=case.same.sample)
    if case.wrong is not None:
        yield WRONG_HINT, question(hint=answers[case.wrong])
        yield HINT, _blind(question(hint=answers[case.wrong]), options, edited)
    if case.different is not None:
        shown = case.different.sample
        yield DIFFERENT, question(shown=shown)
        yield RIGHT_HINT, question(shown=shown, hint=case.known.label)


def answered(
    context: AnalysisContext, cases: Sequence[Case], options: EvidenceOptions
) -> Sequence[Answers]:
    """The answers to all questions of each case."""
    edited = bool(context.model().active_edits)
    every = [
        (i, *each) for i, case in enumerate(cases) for each in asked(case, options, edited=edited)
    ]
    found: list[dict[str, list[Floats]]] = [{} for _ in cases]
    # Questions without an image are asked apart: not every family mixes the two in one batch. They
    # come first, since edits of a run may not suit them.
    for images in (False, True):
        lot = [(i, name, put) for i, name, put in every if bool(put.sample.images) is images]
        try:
            logs = ask(context, [put for _, _, put in lot], mean=options.score == "mean")
        except SelectorError as error:
            if images or not edited:
                raise
            raise CompositionError(
                f"The edits of this run do not suit a question without its image: {error.message}",
                subject="blind",
                hint="Set analysis.evidence.blind=gray.",
            ) from error
        for (i, name, _), values in zip(lot, logs, strict=True):
            found[i].setdefault(name, []).append(values)
    return found


def hinted(sample: Sample, answer: str, template: str) -> Sample:
    """The sample with a hint in its prompt."""
    text = template.replace("{answer}", answer).replace("{prompt}", sample.prompt)
    return replace(sample, prompt=text)


def _blind(question: Question, options: EvidenceOptions, edited: bool) -> Question:
    """The question without its image."""
    sample = question.sample
    if options.blind == "gray":
        boxes = tuple((image, *_EVERYWHERE) for image in range(len(sample.images)))
        return replace(question, alteration=Alteration(hide=Area(boxes=boxes), fill="gray"))
    kept = dict(sample.attributes) if edited else without_regions(sample.attributes)
    bare = replace(sample, images=(), attributes=kept)
    return replace(question, sample=bare)
