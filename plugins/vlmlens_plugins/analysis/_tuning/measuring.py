"""How often a model, with or without a trained part, answers right, with the image and blind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vlmlens.abc import AnalysisContext, ModelAdapter, ModelWork, WorkUnit
from vlmlens.abc.model_work import JSON
from vlmlens.abc.unit_batches import run_here
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._answer_work import ChoiceScores, WriteOptions, WrittenAnswers
from vlmlens_plugins.analysis._blank_images import handed_over
from vlmlens_plugins.analysis._grading import Grader
from vlmlens_plugins.benchmarks.card import STRICT

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """Answers to questions.

    Args:
        texts: `[samples]`, as chosen or written.
        right: float64 `[samples]`: 1 or 0; NaN where the model gave no finite number.
        credit: float64 `[samples]`: the probability of the label among the choices; of a question
            without choices, `right`.
    """

    texts: Sequence[str]
    right: Floats
    credit: Floats


class Examiner:
    """Asks a model questions: choices are compared, other answers written.

    Args:
        context: Of the analysis.
        vlm: The model; a part that is attached meanwhile is used.
        samples: The questions, with labels.
        known: All labelled samples, from whose labels written answers are read.
        max_new_tokens: Of written answers.
        rule: By which those to questions of a benchmark are read.
        blank: What replaces the images of blind questions.
    """

    def __init__(
        self,
        context: AnalysisContext,
        vlm: ModelAdapter,
        samples: Sequence[Sample],
        known: Sequence[Sample],
        *,
        max_new_tokens: int = 16,
        rule: str = STRICT,
        blank: str = "gray",
    ) -> None:
        self._context, self._vlm, self._samples = context, vlm, samples
        self._grader = Grader(known, rule)
        self._blank = blank
        self._written = WrittenAnswers(WriteOptions(max_new_tokens=max_new_tokens))

    def ask(self, *, blind: bool = False) -> Answers:
        """Every question.

        Args:
            blind: Whether images are replaced.
        """
        said: dict[int, tuple[str, float, float]] = {}
        closed = [i for i, one in enumerate(self._samples) if one.choices]
        scores = self._run(ChoiceScores(), closed, blind=blind)
        for i, logs in zip(closed, scores, strict=True):
            said[i] = self._chosen(np.array(logs, np.float64), self._samples[i])
        free = [i for i, one in enumerate(self._samples) if not one.choices]
        for i, text in zip(free, self._run(self._written, free, blind=blind), strict=True):
            right = float(self._grader.written(text, self._samples[i]).right)
            said[i] = (text, right, right)
        texts, rights, credits_ = zip(*(said[i] for i in range(len(self._samples))), strict=True)
        answers = Answers(texts, np.array(rights), np.array(credits_))
        if lost := int(np.isnan(answers.right).sum()):
            self._context.warn(f"{lost} answers are left out: the model's numbers are not finite.")
        return answers

    def _chosen(self, logs: Floats, sample: Sample) -> tuple[str, float, float]:
        if not np.isfinite(logs).all():
            return "", float("nan"), float("nan")
        answer, label = self._grader.chosen(logs, sample), sample.choices.index(str(sample.label))
        among = np.exp(logs - np.logaddexp.reduce(logs))
        return answer.text, float(answer.right), float(among[label])

    def _run(self, work: ModelWork, rows: Sequence[int], *, blind: bool) -> list[JSON]:
        """Here and now: what is kept of units is that of the model without the part."""
        units = [self._unit(self._samples[i], work, blind=blind) for i in rows]
        if not units:
            return []
        ignored: Callable[[int, int], None] = lambda done, total: None  # noqa: E731
        size, warn = self._context.batch_size, self._context.warn
        return run_here(self._vlm, work, units, size, warn=warn, progress=ignored)

    def _unit(self, sample: Sample, work: ModelWork, *, blind: bool) -> WorkUnit:
        said = {"choices": list(sample.choices)} if isinstance(work, ChoiceScores) else {}
        if not blind or not sample.images:
            return WorkUnit(sample, said)
        shown, more = handed_over(
            sample, self._blank, self._context.seed, regions=bool(self._vlm.active_edits)
        )
        return WorkUnit(shown, said | more)
