"""Questions that have choices: which one the model finds most probable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from vlmlens.abc import ModelWork, WorkUnit
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._answer_work import ChoiceScores, ScoreOptions
from vlmlens_plugins.analysis.blind_test.answers import Given, TaskAnswers, task_answers
from vlmlens_plugins.analysis.blind_test.choosing import Chooser, Put, several_forms
from vlmlens_plugins.analysis.blind_test.conditions import Conditions
from vlmlens_plugins.analysis.blind_test.options import BlindOptions


@dataclass
class ClosedQuestions:
    """Questions with choices, of several tasks.

    Args:
        conditions: Makes blank questions.
        options: How to ask.
        batch_size: Questions per batch.
    """

    conditions: Conditions
    options: BlindOptions
    batch_size: int
    _put: dict[str, tuple[Sequence[Sample], list[list[Put]]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._chooser = Chooser(self.conditions, self.options, self.batch_size)
        self.work: ModelWork = ChoiceScores(ScoreOptions(mean=self.options.score == "mean"))

    @property
    def units(self) -> list[WorkUnit]:
        """The units of all questions."""
        return self._chooser.units

    def put(self, task: str, samples: Sequence[Sample]) -> None:
        """Put a task's questions."""
        self._put[task] = samples, self._chooser.put(task, samples)

    def answers(self, results: Sequence[Any]) -> dict[str, TaskAnswers]:
        """The answers by task, from the results of all units."""
        return {
            task: self._answers(task, samples, put, results)
            for task, (samples, put) in self._put.items()
        }

    def _answers(
        self,
        task: str,
        samples: Sequence[Sample],
        put: Sequence[Sequence[Put]],
        results: Sequence[Any],
    ) -> TaskAnswers:
        answers = tuple(dict.fromkeys(choice for s in samples for choice in s.choices))
        number = {answer: i for i, answer in enumerate(answers)}
        found = [[self._chooser.choice(each, results) for each in row] for row in put]
        p = np.zeros((len(put), len(samples), len(answers)))
        for condition, choices in zip(p, found, strict=True):
            for row, sample, choice in zip(condition, samples, choices, strict=True):
                row[[number[c] for c in sample.choices]] = np.exp(choice.logs)
        labels = np.array([number.get(sample.label or "", -1) for sample in samples])
        own = np.array([_place(sample) for sample in samples])
        given = [Given.of(each, labels) for each in p]
        made = task_answers(task, samples, answers, given, labels, self.conditions.kinds)
        return replace(made, open=False, forms=several_forms(found[0], own))


def _place(sample: Sample) -> int:
    return sample.choices.index(sample.label) if sample.label in sample.choices else -1
