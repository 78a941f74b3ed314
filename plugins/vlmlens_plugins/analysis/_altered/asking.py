"""Asking questions about altered pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from PIL.Image import Image

from vlmlens.abc import AnalysisContext, WorkUnit
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._altered.alterations import OTHER, Alteration
from vlmlens_plugins.analysis._altered.work import AlteredOptions, AlteredScores

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Question:
    """A question about an altered picture.

    Args:
        sample: The sample; with another prompt or other images, if it is asked otherwise.
        answers: The answers whose probability is asked for.
        alteration: What of its images is hidden; None: nothing.
        other: The sample whose images stand in hidden parts, for the fill "other".
    """

    sample: Sample
    answers: tuple[str, ...]
    alteration: Alteration | None = None
    other: Sample | None = None

    def unit(self) -> WorkUnit:
        """The question as a unit of `AlteredScores`."""
        more: tuple[str | Image, ...] = ()
        if self.alteration is not None and self.alteration.fill == OTHER and self.other:
            more = self.other.images
        arguments = {
            "answers": list(self.answers),
            "own": len(self.sample.images),
            "alteration": None if self.alteration is None else self.alteration.to_json(),
        }
        packed = replace(self.sample, images=self.sample.images + more) if more else self.sample
        return WorkUnit(packed, arguments)


def ask(
    context: AnalysisContext, questions: Sequence[Question], *, mean: bool = False
) -> list[Floats]:
    """Ask the model; equal questions are asked once, and what the run knows is not asked again.

    Args:
        context: The context of the analysis.
        questions: The questions. Give those about the same picture one after the other.
        mean: Whether an answer's log-probability is the mean over its tokens, not the sum.

    Returns:
        Per question, the log-probability of each answer in nats, float64 `[answers]`. Models that
        compare choices give probabilities among the answers that are asked for together.
    """
    work = AlteredScores(AlteredOptions(mean=mean))
    found = context.run_units(work, [question.unit() for question in questions])
    return [np.array(each, np.float64) for each in found]
