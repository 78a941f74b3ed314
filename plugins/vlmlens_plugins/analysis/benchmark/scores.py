"""Scores of a set and of its tasks, each beside what guessing and blind answers gain."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vlmlens.errors import MissingAnnotation
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._statistics import generator
from vlmlens_plugins.analysis._tasks import ALL, rows_by_task
from vlmlens_plugins.analysis.benchmark.asking import Answered
from vlmlens_plugins.analysis.benchmark.guessing import (
    Constant,
    best_constant,
    by_object,
    constants,
)
from vlmlens_plugins.benchmarks.card import Answer, Card, Floats, Metrics, Rule
from vlmlens_plugins.benchmarks.scoring import answered, ends, resampled, scored


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95 % interval over groups; NaN where it is not defined."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Score:
    """The scores of a task, or of a whole set.

    Args:
        task: The task; `ALL` for the whole set.
        samples: Its samples.
        answers: What the chosen rule reads in their answers.
        metrics: By name.
        headline: The metric that counts.
        constant: The best constant answer.
        gain: How much the headline is above that of the best constant, on the same samples; None
            if there is no constant.
        surely: Whether it is above it (below, where less is better), with 95 % certainty over all
            parts of the set together.
        prior: The metrics of guessing from the object's name; None where samples name none.
        blind: The metrics of answers to a blank image; None: not asked.
        groups: Of how many groups the samples are.
    """

    task: str
    samples: Sequence[Sample]
    answers: Sequence[Answer]
    metrics: Mapping[str, Estimate]
    headline: str
    constant: Constant | None
    gain: Estimate | None
    surely: bool
    prior: Mapping[str, float] | None
    blind: Mapping[str, Estimate] | None
    groups: int

    @property
    def best(self) -> Estimate:
        """The headline."""
        return self.metrics[self.headline]

    @property
    def unparsed(self) -> list[int]:
        """The numbers of answers in which the rule reads nothing."""
        return [i for i, answer in enumerate(self.answers) if answer.said is None]


def scores(found: Answered, rule: Rule, *, draws: int, seed: int) -> list[Score]:
    """The score of the whole set, then those of its tasks, if they have scores of their own.

    Args:
        found: The answers.
        rule: What reads them.
        draws: Resamples behind each interval.
        seed: Of the resamples.

    Raises:
        MissingAnnotation: A metric needs an attribute that samples lack.
    """
    card, samples = found.asked.card, found.asked.samples
    all_rows = list(range(len(samples)))
    parts = [(ALL, all_rows, rule.metrics or card.metrics)]
    by_task = rows_by_task(samples)
    of_task = rule.task_metrics or card.task_metrics
    if of_task is not None and len(by_task) > 1:
        parts += [(task, rows, of_task) for task, rows in by_task.items()]
    scorer = _Scorer(found, rule, draws, seed, len(parts))
    try:
        return [scorer.score(*part) for part in parts]
    except KeyError as error:
        raise MissingAnnotation(
            f"The metrics of {card.title} need {error.args[0]!r}, which samples lack.",
            subject=str(error.args[0]),
            hint="Read the set by its own dataset, in a form that has it.",
        ) from error


def headline_of(card: Card, names: Sequence[str], *, of_task: bool = False) -> str:
    """The metric that counts of those that there are, see `Card`: the first if none is known.

    Args:
        card: The set's card.
        names: Of the metrics that there are.
        of_task: Whether they are those of a task.
    """
    wanted = [card.task_headline, card.headline] if of_task else [card.headline]
    named = [name for name in wanted if name in names]
    parts = [name for name in names if card.headline.endswith(f"_{name}")]
    return next(iter([*named, *parts, *names]))


class _Scorer:
    """Scores parts of one set."""

    def __init__(self, found: Answered, rule: Rule, draws: int, seed: int, parts: int) -> None:
        self._card = found.asked.card
        self._samples = found.asked.samples
        self._rule = rule
        self._draws = draws
        self._seed = seed
        self._level = 1 - 0.05 / parts
        self._answers = answered(found.texts, self._samples, rule)
        self._blind = None if found.blind is None else answered(found.blind, self._samples, rule)
        self._constants = constants(self._card, rule, self._samples)
        self._guessed = self._guesses()

    def score(self, task: str, rows: Sequence[int], metrics: Metrics) -> Score:
        """The score of the samples in some rows."""
        samples = [self._samples[i] for i in rows]
        answers = [self._answers[i] for i in rows]
        drawn = self._drawn(task, metrics, samples, answers)
        found = _estimates(scored(metrics, samples, answers), drawn)
        headline = headline_of(self._card, list(found), of_task=task != ALL)
        options = {text: [all_of[i] for i in rows] for text, all_of in self._constants.items()}
        constant = best_constant(self._card, metrics, headline, samples, options)
        gain, surely = self._gain(
            task, metrics, samples, constant, found[headline], drawn[headline]
        )
        guessed = None if self._guessed is None else [self._guessed[i] for i in rows]
        return Score(
            task,
            samples,
            answers,
            found,
            headline,
            constant,
            gain,
            surely,
            None if guessed is None else scored(metrics, samples, guessed),
            self._blinded(task, metrics, samples, rows),
            len({sample.split_group for sample in samples}),
        )

    def _guesses(self) -> list[Answer] | None:
        """What the object's name says, within each task: splits of a set may share questions."""
        guessed: list[str] = [""] * len(self._samples)
        for rows in rows_by_task(self._samples).values():
            of_task = by_object([self._samples[i] for i in rows])
            if of_task is None:
                return None
            for i, text in zip(rows, of_task, strict=True):
                guessed[i] = text
        return answered(guessed, self._samples, self._rule)

    def _drawn(
        self, task: str, metrics: Metrics, samples: Sequence[Sample], answers: Sequence[Answer]
    ) -> dict[str, Floats]:
        """Resamples, the same ones for all answers to a task."""
        rng = generator(self._seed, "benchmark", self._card.name, task)
        return resampled(metrics, samples, answers, draws=self._draws, rng=rng)

    def _gain(
        self,
        task: str,
        metrics: Metrics,
        samples: Sequence[Sample],
        constant: Constant | None,
        found: Estimate,
        drawn: Floats,
    ) -> tuple[Estimate | None, bool]:
        """How much better than the best constant, and whether that is sure."""
        if constant is None:
            return None, False
        headline = constant.headline
        theirs = self._drawn(task, metrics, samples, constant.answers)[headline]
        more = drawn - theirs
        gain = Estimate(found.value - constant.scores[headline], *ends(more))
        low, high = ends(more, self._level)
        several = len({sample.split_group for sample in samples}) > 1
        better = high < 0 if headline in self._card.lower_is_better else low > 0
        return gain, several and bool(better)

    def _blinded(
        self, task: str, metrics: Metrics, samples: Sequence[Sample], rows: Sequence[int]
    ) -> dict[str, Estimate] | None:
        if self._blind is None:
            return None
        answers = [self._blind[i] for i in rows]
        return _estimates(
            scored(metrics, samples, answers), self._drawn(task, metrics, samples, answers)
        )


def _estimates(values: Mapping[str, float], drawn: Mapping[str, Floats]) -> dict[str, Estimate]:
    return {
        name: Estimate(value, *(ends(drawn[name]) if math.isfinite(value) else (np.nan, np.nan)))
        for name, value in values.items()
    }
