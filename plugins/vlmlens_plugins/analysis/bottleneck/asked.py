"""What the model answers under each condition: image, image and text, text alone, blind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from vlmlens.abc import AnalysisContext, WorkUnit
from vlmlens.abc.model_work import JSON
from vlmlens.compose.prompt_check import bad_prompts
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._answer_work import ChoiceScores, WriteOptions, WrittenAnswers
from vlmlens_plugins.analysis._blank_images import handed_over
from vlmlens_plugins.analysis._grading import Answer, Grader
from vlmlens_plugins.analysis._tasks import ALL
from vlmlens_plugins.analysis.bottleneck.options import (
    BLIND,
    IMAGE,
    OCR,
    SCENE,
    TEXT,
    BottleneckOptions,
)
from vlmlens_plugins.analysis.bottleneck.work import StageOptions, Stages

Floats = npt.NDArray[np.float64]
States: TypeAlias = Mapping[str, Mapping[str, npt.NDArray[np.float32]]]
_AT_ONCE = 512


@dataclass(frozen=True, slots=True)
class Case:
    """A question with the model's answers.

    Args:
        sample: The question.
        answers: By condition; one that the sample has no text for is missing.
        scores: By condition, float64 `[choices]` in nats; none for open questions.
        states: By stage and site, float32 `[width]`; see `Stages`.
    """

    sample: Sample
    answers: Mapping[str, Answer]
    scores: Mapping[str, Floats]
    states: States

    @property
    def task(self) -> str:
        """The task."""
        return self.sample.task or ALL

    @property
    def wrong(self) -> bool:
        """Whether the answer from the image is wrong."""
        return not self.answers[IMAGE].right

    @property
    def repeats_blind(self) -> bool:
        """Whether the blind answer is the same."""
        return self.answers[IMAGE].said == self.answers[BLIND].said

    @property
    def finite(self) -> bool:
        """Whether all numbers are finite."""
        scores = all(bool(np.isfinite(logs).all()) for logs in self.scores.values())
        rows = [row for stage in self.states.values() for row in stage.values()]
        return scores and all(bool(np.isfinite(row).all()) for row in rows)


def text_of(sample: Sample, names: Sequence[str]) -> str:
    """The first of some attributes that the sample has, as text; "" without one."""
    values = (sample.attributes.get(name) for name in names)
    return next((str(value).strip() for value in values if str(value or "").strip()), "")


def conditions(
    sample: Sample, options: BottleneckOptions, *, reads: bool = True
) -> dict[str, Sample]:
    """The question under each condition for which the sample has what is needed; images stay.

    Args:
        sample: The question.
        options: Attributes and template.
        reads: Whether the model reads texts; one that compares choices with the image does not.
    """
    if not reads:
        return {IMAGE: sample, BLIND: sample}
    texts = {
        OCR: text_of(sample, options.ocr),
        SCENE: text_of(sample, options.scene),
        TEXT: text_of(sample, options.description),
    }
    told = {
        name: replace(sample, prompt=options.template.format(text=text, question=sample.prompt))
        for name, text in texts.items()
        if text
    }
    return {IMAGE: sample, **told, BLIND: sample}


def asked(
    context: AnalysisContext, samples: Sequence[Sample], options: BottleneckOptions
) -> list[Case]:
    """Ask the questions under all conditions, and read what each stage holds."""
    edited = bool(context.model().active_edits)
    units, keys = [], []
    for i, posed in enumerate(_posed(context, samples, options)):
        for name, question in posed.items():
            units.append(_unit(question, name, options, context.seed, edited=edited))
            keys.append((i, name))
    given = _given(context, units, options)
    grader = Grader(samples, options.rule)
    answers: list[dict[str, Answer]] = [{} for _ in samples]
    scores: list[dict[str, Floats]] = [{} for _ in samples]
    for (i, name), one in zip(keys, given, strict=True):
        if isinstance(one, str):
            answers[i][name] = grader.written(one, samples[i])
        else:
            scores[i][name] = np.asarray(one, np.float64)
            answers[i][name] = grader.chosen(scores[i][name], samples[i])
    states = _states(context, samples, options)
    return [Case(*each) for each in zip(samples, answers, scores, states, strict=True)]


def _states(
    context: AnalysisContext, samples: Sequence[Sample], options: BottleneckOptions
) -> list[States]:
    """What each stage holds; some samples at a time, since numbers of JSON take much memory."""
    work = Stages(StageOptions(tower_depths=options.tower_depths, depths=options.depths))
    found: list[States] = []
    for start in range(0, len(samples), _AT_ONCE):
        units = [WorkUnit(sample) for sample in samples[start : start + _AT_ONCE]]
        found += [
            {
                stage: {site: np.array(row, np.float32) for site, row in rows.items()}
                for stage, rows in each.items()
            }
            for each in context.run_units(work, units)
        ]
    return found


def _posed(
    context: AnalysisContext, samples: Sequence[Sample], options: BottleneckOptions
) -> list[dict[str, Sample]]:
    """The conditions of each sample, without those whose text the model cannot be given."""
    vlm = context.model()
    reads = vlm.choice_scores(()) is None
    posed = [conditions(sample, options, reads=reads) for sample in samples]
    texts = [
        replace(question, id=_named(question, name))
        for each in posed
        for name, question in each.items()
        if name in (OCR, SCENE, TEXT)
    ]
    bad = {each.id: each.reason for each in bad_prompts(vlm, texts)} if texts else {}
    if bad:
        name, reason = next(iter(bad.items()))
        context.warn(
            f"{len(bad)} of {len(texts)} texts are left out: {name}: {reason.rstrip('.')}."
        )
    return [
        {name: question for name, question in each.items() if _named(question, name) not in bad}
        for each in posed
    ]


def _named(question: Sample, condition: str) -> str:
    return f"{question.id} ({condition})"


def _unit(
    question: Sample, name: str, options: BottleneckOptions, seed: int, *, edited: bool
) -> WorkUnit:
    said: dict[str, JSON] = {}
    if name in (TEXT, BLIND):
        question, said = handed_over(question, options.blank, seed, regions=edited)
    if question.choices:
        said = {**said, "choices": list(question.choices)}
    return WorkUnit(question, said)


def _given(
    context: AnalysisContext, units: Sequence[WorkUnit], options: BottleneckOptions
) -> list[JSON]:
    """Scores of closed questions, texts of open ones."""
    closed = [i for i, unit in enumerate(units) if "choices" in unit.arguments]
    free = [i for i, unit in enumerate(units) if "choices" not in unit.arguments]
    found: list[JSON] = [None] * len(units)
    scored = context.run_units(ChoiceScores(), [units[i] for i in closed])
    writing = WrittenAnswers(WriteOptions(max_new_tokens=options.max_new_tokens))
    written = context.run_units(writing, [units[i] for i in free])
    for i, one in zip([*closed, *free], [*scored, *written], strict=True):
        found[i] = one
    return found
