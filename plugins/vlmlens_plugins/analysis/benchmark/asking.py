"""The answers of a set: given, written or chosen, with the image and with a blank one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vlmlens.abc import AnalysisContext, ModelWork, WorkUnit
from vlmlens.abc.analysis import Progress
from vlmlens.samples import Sample
from vlmlens_plugins.analysis.benchmark.options import BenchmarkScoreOptions
from vlmlens_plugins.analysis.benchmark.question_sets import QuestionSet
from vlmlens_plugins.benchmarks.own_answers import ANSWER

if TYPE_CHECKING:
    from vlmlens_plugins.benchmarks.card import Card

Way = Literal["given", "write", "choose"]


@dataclass(frozen=True)
class Answered:
    """A set with the texts of its answers.

    Args:
        asked: The set.
        way: Where they are from.
        texts: In the order of its samples.
        blind: With a blank image; None: not asked.
        tokens: The most tokens of a written answer.
        batch_size: The most questions that were asked together.
        blank: What replaced the image.
    """

    asked: QuestionSet
    way: Way
    texts: Sequence[str]
    blind: Sequence[str] | None
    tokens: int
    batch_size: int
    blank: str

    @property
    def setting(self) -> str:
        """Everything that a score depends on beside the model and the parser, in one line."""
        own = self.asked.card
        how = {
            "given": "answers from elsewhere (their prompt and decoding are not known here)",
            "write": f"{self.asked.style}; {own.decoding} decoding, at most {self.tokens} tokens, "
            f"batch size {self.batch_size}",
            "choose": f"{self.asked.style}; the more probable choice, batch size {self.batch_size}",
        }
        return f"{self.asked.edition}; {how[self.way]}"


def way_of(options: BenchmarkScoreOptions, asked: Sequence[QuestionSet]) -> Way:
    """Where the answers are from."""
    if options.answers != "auto":
        return options.answers
    return "given" if all(each.given for each in asked) else "write"


def answers(
    context: AnalysisContext, options: BenchmarkScoreOptions, asked: Sequence[QuestionSet]
) -> list[Answered]:
    """The answers to every set."""
    way = way_of(options, asked)
    if way == "given":
        return [_given(context, options, each) for each in asked]
    lots = [_Lot(context, options, each, way) for each in asked]
    return [
        lot.answered(progress) for lot, progress in zip(lots, _shares(context, lots), strict=True)
    ]


def tokens_of(options: BenchmarkScoreOptions, card: Card) -> int:
    """The most tokens of a written answer."""
    return options.max_new_tokens or card.max_new_tokens


def _given(
    context: AnalysisContext, options: BenchmarkScoreOptions, asked: QuestionSet
) -> Answered:
    texts = [str(sample.attributes[ANSWER]) for sample in asked.samples]
    size, tokens = context.batch_size, tokens_of(options, asked.card)
    return Answered(asked, "given", texts, None, tokens, size, options.blank)


class _Lot:
    """The units of one set: every question with its image, then with a blank one."""

    def __init__(
        self,
        context: AnalysisContext,
        options: BenchmarkScoreOptions,
        asked: QuestionSet,
        way: Way,
    ) -> None:
        self._context = context
        self._options = options
        self._asked = asked
        self._way = way
        self.units = [self._unit(sample, sample, {}) for sample in asked.samples]
        if options.blank != "skip":
            self.units += list(self._blind())

    def answered(self, progress: Progress) -> Answered:
        """The answers; asks the model for those that the run does not have."""
        work = self._work()
        results = self._context.known_units(work, self.units)
        if results is None:
            results = self._context.run_units(work, self.units, progress=progress)
        samples, blank = self._asked.samples, self._options.blank
        blind = results[len(samples) :]
        return Answered(
            self._asked,
            self._way,
            [self._text(*each) for each in zip(samples, results, strict=False)],
            None if blank == "skip" else [self._text(*e) for e in zip(samples, blind, strict=True)],
            tokens_of(self._options, self._asked.card),
            self._context.batch_size,
            blank,
        )

    def _text(self, sample: Sample, result: Any) -> str:
        """An answer; around what a model writes there is often a blank, which is no part of it."""
        chosen = self._way == "choose"
        return most_probable(sample.choices, result) if chosen else str(result).strip()

    def _work(self) -> ModelWork:
        from vlmlens_plugins.analysis._answer_work import (
            ChoiceScores,
            WriteOptions,
            WrittenAnswers,
        )

        if self._way == "choose":
            return ChoiceScores()
        tokens = tokens_of(self._options, self._asked.card)
        return WrittenAnswers(WriteOptions(max_new_tokens=tokens))

    def _blind(self) -> Iterator[WorkUnit]:
        from vlmlens_plugins.analysis._blank_images import handed_over

        seed, blank = self._context.seed, self._options.blank
        for sample in self._asked.samples:
            if not sample.images:
                yield self._unit(sample, sample, {})
                continue
            shown, arguments = handed_over(sample, blank, seed, regions=blank != "none")
            yield self._unit(sample, shown, arguments)

    def _unit(self, sample: Sample, shown: Sample, arguments: dict[str, Any]) -> WorkUnit:
        if self._way == "choose":
            choices = [form for choice in sample.choices for form in spellings(choice)]
            arguments = {**arguments, "choices": choices}
        return WorkUnit(shown, arguments)


def spellings(choice: str) -> list[str]:
    """A choice as it is and with a capital: models begin answers with " Yes", not with " yes".

    >>> spellings("yes"), spellings("A")
    (['yes', 'Yes'], ['A'])
    """
    return list(dict.fromkeys([choice, choice[:1].upper() + choice[1:]]))


def most_probable(choices: Sequence[str], logs: Sequence[float]) -> str:
    """The choice whose spellings together are most probable.

    Args:
        choices: The choices.
        logs: The log-probability of every spelling of every choice, in order.

    >>> most_probable(["yes", "no"], [-1.2, -1.2, -0.9, -9.0])
    'yes'
    """
    rest = iter(logs)
    sums = [np.logaddexp.reduce([next(rest) for _ in spellings(one)]) for one in choices]
    return choices[int(np.argmax(sums))]


def _shares(context: AnalysisContext, lots: Sequence[_Lot]) -> Iterator[Progress]:
    """The progress of several lots of units, one after the other, as one."""
    total = sum(len(lot.units) for lot in lots)
    before = 0
    for lot in lots:
        yield partial(_tell, context, before, total)
        before += len(lot.units)


def _tell(context: AnalysisContext, before: int, total: int, done: int, units: int) -> None:
    del units
    context.progress(before + done, total)
