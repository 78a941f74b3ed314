"""Choosing among a question's choices, in one form or several."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from vlmlens.samples import Sample
from vlmlens_plugins.analysis._scoring import AnswerScorer
from vlmlens_plugins.analysis.blind_test.answers import Forms
from vlmlens_plugins.analysis.blind_test.blank_images import blanked, image_sizes
from vlmlens_plugins.analysis.blind_test.options import BlindOptions
from vlmlens_plugins.analysis.blind_test.question_forms import Form, combined, forms_of, normalized

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Choice:
    """How one question was answered.

    Args:
        logs: float64 `[choices]`, log-probabilities over the choices, all forms together.
        replies: Those of the forms.
        mean: float64 `[replies]`, mean probability of each reply over the forms.
        picks: Per form, the number of its most probable choice.
    """

    logs: Floats
    replies: tuple[str, ...]
    mean: Floats
    picks: tuple[int, ...]


class Chooser:
    """Answers questions that have choices.

    Args:
        scorer: Scores replies.
        options: The forms of a question, and whether replies are calibrated.
        batch_size: Questions per pass.
    """

    def __init__(self, scorer: AnswerScorer, options: BlindOptions, batch_size: int) -> None:
        self._scorer = scorer
        self._options = options
        self._batch_size = batch_size
        self._prior: dict[Any, Floats] = {}

    def __call__(self, samples: Sequence[Sample]) -> list[Choice]:
        """How the questions are answered, in all their forms."""
        forms = [forms_of(sample, self._options) for sample in samples]
        put = [
            replace(sample, prompt=form.prompt, choices=form.replies)
            for sample, its in zip(samples, forms, strict=True)
            for form in its
        ]
        logs = iter(list(self._scored(put)))
        return [_choice(its, [next(logs) for _ in its]) for its in forms]

    def _scored(self, put: Sequence[Sample]) -> Iterator[Floats]:
        for start in range(0, len(put), self._batch_size):
            part = put[start : start + self._batch_size]
            logs = self._scorer.choices(part)
            yield from self._calibrated(part, logs) if self._options.calibrate else logs

    def _calibrated(self, part: Sequence[Sample], logs: Sequence[Floats]) -> Iterator[Floats]:
        """Less the log-probabilities after an empty prompt and a gray image.

        T. Zhao et al., "Calibrate before use", arXiv 2102.09690 (2021): the input without content;
        A. Holtzman et al., "Surface form competition", arXiv 2104.08315 (2021): the difference of
        logarithms, a pointwise mutual information.
        """
        keys = [(sample.choices, tuple(image_sizes(sample))) for sample in part]
        new = {key: s for key, s in zip(keys, part, strict=True) if key not in self._prior}
        if new:
            empty = [replace(blanked(s, "gray", 0), prompt="") for s in new.values()]
            self._prior |= dict(zip(new, self._scorer.choices(empty), strict=True))
        for key, values in zip(keys, logs, strict=True):
            yield normalized(values) - normalized(self._prior[key])


def several_forms(choices: Sequence[Choice], labels: Ints) -> Forms | None:
    """How the forms were replied to; None where every question has one form.

    Args:
        choices: How each question was answered.
        labels: int64 `[n]`, number of each question's right choice; -1 for none.
    """
    if all(len(choice.picks) == 1 for choice in choices):
        return None
    replies = tuple(dict.fromkeys(reply for choice in choices for reply in choice.replies))
    number = {reply: i for i, reply in enumerate(replies)}
    excess = np.full((len(choices), len(replies)), np.nan)
    for row, choice in zip(excess, choices, strict=True):
        row[[number[reply] for reply in choice.replies]] = choice.mean - 1 / len(choice.mean)
    agree = np.array([len(set(choice.picks)) == 1 for choice in choices])
    first = np.array([choice.picks[0] for choice in choices])
    return Forms(replies, excess, agree, agree & (first == labels))


def _choice(forms: Sequence[Form], logs: Sequence[Floats]) -> Choice:
    chances = [np.exp(normalized(values)) for values in logs]
    picks = tuple(form.stands[int(p.argmax())] for form, p in zip(forms, chances, strict=True))
    return Choice(combined(forms, logs), forms[0].replies, np.mean(chances, axis=0), picks)
