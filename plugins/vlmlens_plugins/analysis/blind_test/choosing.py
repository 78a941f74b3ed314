"""Choosing among a question's choices, in one form or several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from vlmlens.abc import WorkUnit
from vlmlens.samples import Sample
from vlmlens_plugins.analysis.blind_test.answers import Forms
from vlmlens_plugins.analysis.blind_test.conditions import Asked, Conditions
from vlmlens_plugins.analysis.blind_test.options import Blank, BlindOptions
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


@dataclass(frozen=True, slots=True)
class Put:
    """A question that was put, in all its forms.

    Args:
        forms: Its forms.
        scores: Per form, the number of the unit that scores its replies.
        priors: Per form, the number of the unit that scores them without content; empty without
            calibration.
    """

    forms: tuple[Form, ...]
    scores: tuple[int, ...]
    priors: tuple[int, ...]


class Chooser:
    """Puts questions that have choices, as units of `ChoiceScores`, and reads the results.

    Args:
        conditions: Makes blank questions.
        options: The forms of a question, and whether replies are calibrated.
        batch_size: Questions per batch.
    """

    def __init__(self, conditions: Conditions, options: BlindOptions, batch_size: int) -> None:
        self.units: list[WorkUnit] = []
        self._conditions = conditions
        self._options = options
        self._batch_size = batch_size

    def put(self, task: str, samples: Sequence[Sample]) -> list[list[Put]]:
        """Put a task's questions with the image, then with each kind of blank."""
        return [
            [
                self._put(sample, blank, f"{task}/{blank}/{i // self._batch_size}")
                for i, sample in enumerate(samples)
            ]
            for blank in (None, *self._conditions.kinds)
        ]

    def choice(self, put: Put, results: Sequence[Any]) -> Choice:
        """How a question was answered.

        With calibration, less the log-probabilities after an empty prompt and a gray image:
        T. Zhao et al., "Calibrate before use", arXiv 2102.09690 (2021): the input without content;
        A. Holtzman et al., "Surface form competition", arXiv 2104.08315 (2021): the difference of
        logarithms, a pointwise mutual information.

        Args:
            put: From `put`.
            results: Of all units.
        """
        logs: list[Floats] = [np.array(results[number]) for number in put.scores]
        if put.priors:
            priors = [np.array(results[number]) for number in put.priors]
            logs = [
                normalized(values) - normalized(prior)
                for values, prior in zip(logs, priors, strict=True)
            ]
        return _choice(put.forms, logs)

    def _put(self, sample: Sample, blank: Blank | None, batch: str) -> Put:
        asked, arguments = self._conditions.asked(sample, blank)
        forms = forms_of(sample, self._options)
        scores, priors = [], []
        for form in forms:
            question = replace(asked, prompt=form.prompt)
            scores.append(self._add(question, arguments, form, batch))
            if self._options.calibrate:
                priors.append(self._add(*self._empty(asked, arguments), form, f"{batch}/empty"))
        return Put(forms, tuple(scores), tuple(priors))

    def _empty(self, asked: Sample, arguments: dict[str, Any]) -> Asked:
        """The question without content: no prompt, and gray images of the same sizes."""
        bare = replace(asked, prompt="")
        if "sizes" in arguments:
            return bare, {"blank": "gray", "sizes": arguments["sizes"]}
        return self._conditions.asked(bare, "gray")

    def _add(self, sample: Sample, arguments: dict[str, Any], form: Form, batch: str) -> int:
        more = {"choices": list(form.replies)}
        self.units.append(WorkUnit(sample, {**arguments, **more}, batch))
        return len(self.units) - 1


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
