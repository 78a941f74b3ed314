"""Asking the same questions with the image and with a blank one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from vlmlens.samples import Sample
from vlmlens_plugins.analysis._scoring import AnswerScorer
from vlmlens_plugins.analysis._statistics import jensen_shannon, total_variation
from vlmlens_plugins.analysis.blind_test.blanks import blanked, image_sizes
from vlmlens_plugins.analysis.blind_test.options import Blank

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
_REMEMBERED = 64


@dataclass(frozen=True, slots=True)
class TaskAnswers:
    """The answers to one task's questions.

    Args:
        task: Its name.
        samples: Its samples.
        answers: The answers that can be given (choices), or that were given (first tokens).
        image: float64 `[n, answers]`, probabilities with the image; for first tokens, 1 at the
            given answer. `blank` likewise.
        tv: float64 `[n]`, total variation between the two distributions, over all choices or over
            the whole vocabulary; `js` likewise, Jensen-Shannon distance.
        picks_image: int64 `[n]`, number of the most probable answer; `picks_blank` likewise.
        labelled: bool `[n]`, whether the right answer is known.
        right_image: bool `[n]`; `right_blank` likewise.
        open: Whether there were no choices.
    """

    task: str
    samples: tuple[Sample, ...]
    answers: tuple[str, ...]
    image: Floats
    blank: Floats
    tv: Floats
    js: Floats
    picks_image: Ints
    picks_blank: Ints
    labelled: Bools
    right_image: Bools
    right_blank: Bools
    open: bool


def without_class_labels(tasks: Sequence[TaskAnswers]) -> tuple[list[TaskAnswers], list[str]]:
    """The tasks without labels that are no answers, and what to tell the user.

    Labels of an open question may be classes (the folders of a photo set). Where no answer, with
    the image or blind, ever equals one, an accuracy of 0 would say nothing about the model.
    """
    kept, messages = [], []
    for task in tasks:
        right = task.right_image | task.right_blank
        if task.open and task.labelled.any() and not right[task.labelled].any():
            messages.append(
                f"{task.task}: no answer equals a label, with the image or without; the labels "
                "are taken for classes, and accuracy is left out."
            )
            kept.append(replace(task, labelled=np.zeros_like(task.labelled)))
        else:
            kept.append(task)
    return kept, messages


class Interviewer:
    """Asks one model; equal blank questions are asked once.

    Args:
        scorer: Scores the model's answers.
        blank: What replaces images.
        batch_size: Samples per pass.
        seed: Seed of noise.
        token_text: Text of a token id.
        tick: Called after each batch with the number of samples done in it.
    """

    def __init__(
        self,
        scorer: AnswerScorer,
        *,
        blank: Blank,
        batch_size: int,
        seed: int,
        token_text: Callable[[int], str],
        tick: Callable[[int], None],
    ) -> None:
        self._scorer = scorer
        self._blank: Blank = blank
        self._batch_size = batch_size
        self._seed = seed
        self._token_text = token_text
        self._tick = tick
        self._known: OrderedDict[Any, Floats] = OrderedDict()

    def ask(self, task: str, samples: Sequence[Sample]) -> TaskAnswers:
        """The answers to a task's questions; by choice where every sample has choices."""
        if all(sample.choices for sample in samples):
            return self._ask_choices(task, samples)
        return self._ask_open(task, samples)

    def _ask_choices(self, task: str, samples: Sequence[Sample]) -> TaskAnswers:
        answers = tuple(dict.fromkeys(choice for s in samples for choice in s.choices))
        number = {answer: i for i, answer in enumerate(answers)}
        image, blank = (np.zeros((len(samples), len(answers))) for _ in range(2))
        for rows, logs_image, logs_blank in self._batches(samples, self._scorer.choices):
            for i, with_image, without in zip(rows, logs_image, logs_blank, strict=True):
                columns = [number[choice] for choice in samples[i].choices]
                image[i, columns], blank[i, columns] = _softmax(with_image), _softmax(without)
        labels = np.array([number.get(sample.label or "", -1) for sample in samples])
        picks_image, picks_blank = image.argmax(1), blank.argmax(1)
        return TaskAnswers(
            task,
            tuple(samples),
            answers,
            image,
            blank,
            total_variation(image, blank),
            jensen_shannon(image, blank),
            picks_image,
            picks_blank,
            np.array([sample.label is not None for sample in samples]),
            picks_image == labels,
            picks_blank == labels,
            open=False,
        )

    def _ask_open(self, task: str, samples: Sequence[Sample]) -> TaskAnswers:
        n = len(samples)
        tv, js = np.zeros(n), np.zeros(n)
        tokens = np.zeros((2, n), np.int64)
        for rows, logs_image, logs_blank in self._batches(samples, self._first_token):
            p, q = np.exp(np.stack(logs_image)), np.exp(np.stack(logs_blank))
            tv[rows], js[rows] = total_variation(p, q), jensen_shannon(p, q)
            tokens[:, rows] = p.argmax(1), q.argmax(1)
        given, picks = np.unique(tokens, return_inverse=True)
        picks_image, picks_blank = picks.reshape(2, n)
        labels = np.array([self._first(sample.label) for sample in samples])
        one_hot = np.eye(len(given))
        return TaskAnswers(
            task,
            tuple(samples),
            tuple(self._token_text(int(token)) for token in given),
            one_hot[picks_image],
            one_hot[picks_blank],
            tv,
            js,
            picks_image,
            picks_blank,
            labels >= 0,
            tokens[0] == labels,
            tokens[1] == labels,
            open=True,
        )

    def _first_token(self, samples: Sequence[Sample]) -> list[Floats]:
        return list(self._scorer.first_token(samples))

    def _first(self, label: str | None) -> int:
        ids = [] if label is None else self._scorer.answer_ids(label)
        return ids[0] if ids else -1

    def _batches(
        self, samples: Sequence[Sample], score: Callable[[Sequence[Sample]], Sequence[Floats]]
    ) -> Iterator[tuple[list[int], Sequence[Floats], Sequence[Floats]]]:
        for start in range(0, len(samples), self._batch_size):
            rows = list(range(start, min(start + self._batch_size, len(samples))))
            part = [samples[i] for i in rows]
            yield rows, score(part), self._score_blank(part, score)
            self._tick(len(rows))

    def _score_blank(
        self, part: Sequence[Sample], score: Callable[[Sequence[Sample]], Sequence[Floats]]
    ) -> list[Floats]:
        keys = [self._key(sample) for sample in part]
        new = {key: s for key, s in zip(keys, part, strict=True) if key not in self._known}
        fresh: dict[Any, Floats] = {}
        if new:
            blanks = [blanked(sample, self._blank, self._seed) for sample in new.values()]
            fresh = dict(zip(new, score(blanks), strict=True))
        found = {**self._known, **fresh}
        self._known.update(fresh)
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return [found[key] for key in keys]

    def _key(self, sample: Sample) -> Any:
        """Equal for samples that are the same question once the image is blank."""
        if self._blank == "noise":
            return sample.id
        sizes = () if self._blank == "none" else tuple(image_sizes(sample))
        return sample.prompt, sizes, sample.choices


def _softmax(logs: Floats) -> Floats:
    exponentials = np.exp(logs - logs.max())
    probabilities: Floats = exponentials / exponentials.sum()
    return probabilities
