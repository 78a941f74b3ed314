"""All numbers of a task: causes of errors, what texts change, and the controls beside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vlmlens_plugins.analysis._estimates import Estimate, Resampled
from vlmlens_plugins.analysis._statistics import generator
from vlmlens_plugins.analysis.bottleneck.asked import Case
from vlmlens_plugins.analysis.bottleneck.calibration import Understood, understanding
from vlmlens_plugins.analysis.bottleneck.causes import (
    Attributed,
    Cause,
    attributed,
    lost_at,
    seen_in,
)
from vlmlens_plugins.analysis.bottleneck.options import (
    BLIND,
    IMAGE,
    OCR,
    SCENE,
    TEXT,
    BottleneckOptions,
)
from vlmlens_plugins.analysis.bottleneck.prior import outweighed
from vlmlens_plugins.analysis.bottleneck.reading import Question, is_derived, read_questions

Floats = npt.NDArray[np.float64]
CONDITIONS = (IMAGE, OCR, SCENE, TEXT, BLIND)


@dataclass(frozen=True, slots=True)
class Condition:
    """The answers under one condition, over the samples that have what it needs.

    Args:
        name: The condition.
        samples: How many.
        right: Share of right answers.
        mends: Of the errors from the image, the share that is right here.
        breaks: Of the right answers from the image, the share that is wrong here.
    """

    name: str
    samples: int
    right: Estimate
    mends: Estimate
    breaks: Estimate


@dataclass(frozen=True, slots=True)
class Measured:
    """The numbers of a task.

    Args:
        task: The task.
        cases: Its questions.
        found: Per case, the cause of the error; None where the answer is right.
        shares: By cause, the share of errors.
        details: By cause and detail, how many errors.
        conditions: The conditions that at least one sample has.
        always_right: How many are right under all their conditions; `always_wrong` likewise.
        repeats_blind: The share of errors that repeat the blind answer.
        right_blind: Of the right answers, the share that is right blind, too: no evidence of sight.
        lost_when_right: Of the right answers, the share of which the probes say that the fact is
            lost before the language model, or that its last row does not hold it: a control.
        understood: Whether descriptions are understood.
        questions: What is read at each stage.
    """

    task: str
    cases: Sequence[Case]
    found: Sequence[Attributed | None]
    shares: Mapping[Cause, Estimate]
    details: Mapping[tuple[Cause, str], int]
    conditions: Sequence[Condition]
    always_right: int
    always_wrong: int
    repeats_blind: Estimate
    right_blind: Estimate
    lost_when_right: Mapping[Cause, Estimate]
    understood: Understood
    questions: Sequence[Question]

    @property
    def errors(self) -> int:
        """How many answers from the image are wrong."""
        return sum(case.wrong for case in self.cases)

    @property
    def main(self) -> Cause | None:
        """The most frequent cause; None without errors."""
        if not self.shares:
            return None
        return max(self.shares, key=lambda cause: self.shares[cause].value)

    @property
    def blind_to_all(self) -> bool:
        """Whether the fact of right answers is called lost in the eye as often, by the interval."""
        right = self.lost_when_right.get(Cause.EYE)
        return right is not None and bool(right.high >= self.shares[Cause.EYE].low)

    @property
    def sure(self) -> bool:
        """Whether the main cause is one, and surely more frequent than each other one."""
        if self.main is None or self.main is Cause.UNTOLD:
            return False
        others = [share.high for cause, share in self.shares.items() if cause is not self.main]
        return bool(self.shares[self.main].low > max(others))


def measured(
    tasks: Mapping[str, Sequence[Case]], task: str, options: BottleneckOptions, seed: int
) -> Measured:
    """The numbers of a task.

    Args:
        tasks: The cases of all tasks: others show whether descriptions are understood.
        task: The task.
        options: The analysis's options.
        seed: The run's seed.
    """
    cases = tasks[task]
    questions = read_questions(cases, options, seed)
    lost = _lost(cases, questions)
    understood = understanding(tasks, task, options, seed)
    priors = outweighed(cases, options, seed)
    found = [
        attributed(
            place,
            prior=prior,
            reasoning=_reasoning(case, understood),
            derived=is_derived(case.sample, options.fact),
        )
        if case.wrong
        else None
        for case, place, prior in zip(cases, lost, priors, strict=True)
    ]
    wrong = np.array([case.wrong for case in cases], bool)
    resampled = _resampled(cases, options, seed)
    details: dict[tuple[Cause, str], int] = {}
    for one in filter(None, found):
        details[one.cause, one.detail] = details.get((one.cause, one.detail), 0) + 1
    return Measured(
        task=task,
        cases=cases,
        found=found,
        shares=_shares(found, wrong, resampled),
        details=details,
        conditions=_conditions(cases, wrong, resampled),
        always_right=sum(all(a.right for a in case.answers.values()) for case in cases),
        always_wrong=sum(not any(a.right for a in case.answers.values()) for case in cases),
        repeats_blind=resampled.share(_among([case.repeats_blind for case in cases], wrong)),
        right_blind=resampled.share(_among(_right(cases, BLIND), ~wrong)),
        lost_when_right=_shares(lost, ~wrong, resampled),
        understood=understood,
        questions=questions,
    )


def _lost(cases: Sequence[Case], questions: Sequence[Question]) -> list[Attributed]:
    found: list[Attributed] = [Attributed(Cause.UNTOLD)] * len(cases)
    for question in questions:
        for row in question.rows:
            found[row] = lost_at(seen_in(question, row))
    return found


def _reasoning(case: Case, understood: Understood) -> bool | None:
    """Whether the answer from the description is wrong; None where that shows nothing."""
    if not understood.understood or TEXT not in case.answers:
        return None
    return not case.answers[TEXT].right


def _shares(
    found: Sequence[Attributed | None], among: npt.NDArray[np.bool_], resampled: Resampled
) -> dict[Cause, Estimate]:
    """By cause, its share among some cases; none where there is no such case."""
    if not among.any():
        return {}
    return {
        cause: resampled.share(
            _among([one is not None and one.cause is cause for one in found], among)
        )
        for cause in Cause
    }


def _conditions(
    cases: Sequence[Case], wrong: npt.NDArray[np.bool_], resampled: Resampled
) -> list[Condition]:
    made = []
    for name in CONDITIONS:
        right = _right(cases, name)
        having = np.isfinite(right)
        if not having.any():
            continue
        made.append(
            Condition(
                name,
                int(having.sum()),
                resampled.share(right),
                resampled.share(_among(right, wrong)),
                resampled.share(_among(1 - right, ~wrong)),
            )
        )
    return made


def _right(cases: Sequence[Case], condition: str) -> Floats:
    """float64 `[cases]`: 1 where the answer is right, 0 where not, NaN without one."""
    answers = [case.answers.get(condition) for case in cases]
    return np.array([np.nan if one is None else float(one.right) for one in answers])


def _among(values: Sequence[bool] | Floats, kept: npt.NDArray[np.bool_]) -> Floats:
    """The values of some cases, NaN for the others."""
    return np.where(kept, np.asarray(values, np.float64), np.nan)


def _resampled(cases: Sequence[Case], options: BottleneckOptions, seed: int) -> Resampled:
    groups = [case.sample.split_group for case in cases]
    return Resampled(groups, options.draws, generator(seed, "bottleneck"))
