"""Asks a model every question of every task, with the image and with each kind of blank."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TypeAlias

from vlmlens.abc import AnalysisContext
from vlmlens.abc.analysis import Progress
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._scoring import AnswerScorer
from vlmlens_plugins.analysis.blind_test.answers import TaskAnswers
from vlmlens_plugins.analysis.blind_test.closed_questions import ClosedQuestions
from vlmlens_plugins.analysis.blind_test.conditions import Conditions
from vlmlens_plugins.analysis.blind_test.open_questions import (
    FirstTokenQuestions,
    StoredTexts,
    WrittenQuestions,
)
from vlmlens_plugins.analysis.blind_test.options import BlindOptions

Questions: TypeAlias = ClosedQuestions | FirstTokenQuestions | WrittenQuestions


def ask(
    context: AnalysisContext,
    options: BlindOptions,
    scorer: AnswerScorer,
    by_task: Mapping[str, Sequence[Sample]],
) -> list[TaskAnswers]:
    """The answers to each task's questions; by choice where every sample of a task has choices.

    Args:
        context: The run.
        options: How to ask.
        scorer: Scores the model's answers.
        by_task: The samples with images, by task.
    """
    everything = [sample for samples in by_task.values() for sample in samples]
    edited = bool(scorer.vlm.active_edits)
    conditions = Conditions(everything, options, context.seed, regions=edited)
    closed = ClosedQuestions(conditions, options, context.batch_size)
    opened = _open_questions(context, options, scorer, conditions)
    for task, samples in by_task.items():
        has_choices = all(sample.choices for sample in samples)
        (closed if has_choices else opened).put(task, samples)
    answers: dict[str, TaskAnswers] = {}
    for questions, progress in zip((closed, opened), _shares(context, closed, opened), strict=True):
        results = context.run_units(questions.work, questions.units, progress=progress)
        answers |= questions.answers(results)
    return [answers[task] for task in by_task]


def _shares(context: AnalysisContext, *several: Questions) -> Iterator[Progress]:
    """The progress of several lots of units, one after the other, as one."""
    total = sum(len(each.units) for each in several)
    before = 0
    for each in several:
        yield partial(_tell, context, before, total)
        before += len(each.units)


def _tell(context: AnalysisContext, before: int, total: int, done: int, units: int) -> None:
    del units
    context.progress(before + done, total)


def _open_questions(
    context: AnalysisContext, options: BlindOptions, scorer: AnswerScorer, conditions: Conditions
) -> Questions:
    size = context.batch_size
    if options.open == "generate":
        stored = StoredTexts(scorer.vlm, options.max_new_tokens, context.generated)
        return WrittenQuestions(conditions, size, stored, options.max_new_tokens)
    return FirstTokenQuestions(conditions, size, scorer)
