"""The answers to one task's questions, under every condition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from vlmlens.samples import Sample
from vlmlens_plugins.analysis._statistics import jensen_shannon, total_variation
from vlmlens_plugins.analysis.blind_test.options import Blank

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Given:
    """What was answered under one condition.

    Args:
        p: float64 `[n, answers]`, probabilities; for open questions 1 at the given answer.
        picks: int64 `[n]`, number of the most probable answer.
        right: bool `[n]`, whether it is the label.
    """

    p: Floats
    picks: Ints
    right: Bools

    @classmethod
    def of(cls, p: Floats, labels: Ints) -> Given:
        """From probabilities and the number of the right answer, -1 for none, int64 `[n]`."""
        picks = p.argmax(1)
        return cls(p, picks, picks == labels)


@dataclass(frozen=True, slots=True)
class Blinded:
    """What was answered with one kind of blank, beside the answers with the image.

    Args:
        blank: Its kind.
        given: The answers.
        tv: float64 `[n]`, total variation between each question's two answer distributions, over
            all choices or over the whole vocabulary; `js` likewise, Jensen-Shannon distance.
    """

    blank: Blank
    given: Given
    tv: Floats
    js: Floats

    @classmethod
    def of(cls, blank: Blank, given: Given, image: Given) -> Blinded:
        """With distances over the answers."""
        tv, js = total_variation(image.p, given.p), jensen_shannon(image.p, given.p)
        return cls(blank, given, tv, js)


@dataclass(frozen=True, slots=True)
class Forms:
    """How questions in several forms were replied to, with the image.

    Args:
        replies: The replies: letters, or yes and no.
        excess: float64 `[n, replies]`: a reply's mean probability over a question's forms, less
            that of an even choice; NaN where the question does not have the reply.
        agree: bool `[n]`, whether every form has the same answer.
        right: bool `[n]`, whether every form has the right one.
    """

    replies: tuple[str, ...]
    excess: Floats
    agree: Bools
    right: Bools


@dataclass(frozen=True, slots=True)
class TaskAnswers:
    """The answers to one task's questions.

    Args:
        task: Its name.
        samples: Its samples.
        answers: The answers that can be given (choices), or that were given.
        image: With the image.
        blinded: With each kind of blank; at least one.
        labelled: bool `[n]`, whether the right answer is known.
        labels: int64 `[n]`, number of the right answer; -1 where it is not known, or where nobody
            gave it.
        open: Whether there were no choices.
        forms: Where questions had several forms.
    """

    task: str
    samples: tuple[Sample, ...]
    answers: tuple[str, ...]
    image: Given
    blinded: tuple[Blinded, ...]
    labelled: Bools
    labels: Ints
    open: bool
    forms: Forms | None = None


def task_answers(
    task: str,
    samples: Sequence[Sample],
    answers: tuple[str, ...],
    given: Sequence[Given],
    labels: Ints,
    kinds: Sequence[Blank],
) -> TaskAnswers:
    """The answers to a task's open questions, with distances over the answers.

    Args:
        task: Its name.
        samples: Its samples.
        answers: The answers that were given.
        given: With the image, then with each kind of blank.
        labels: int64 `[n]`, number of the right answer, -1 for none.
        kinds: The kinds of blanks.
    """
    image, *blind = given
    pairs = zip(kinds, blind, strict=True)
    blinded = tuple(Blinded.of(kind, each, image) for kind, each in pairs)
    known = np.array([sample.label is not None for sample in samples])
    return TaskAnswers(task, tuple(samples), answers, image, blinded, known, labels, open=True)


def untold_labels(tasks: Sequence[TaskAnswers]) -> list[str]:
    """What to tell the user about labels that the first token does not tell from other answers."""
    messages = []
    for task in tasks:
        having = np.array([sample.label is not None for sample in task.samples])
        untold = int((having & ~task.labelled).sum())
        if untold:
            messages.append(
                f"{task.task}: {untold} of {int(having.sum())} labels begin with the same token as "
                "another answer of the task. The first token does not tell whether they are given, "
                "so they are left out of the accuracy. With open=generate, written answers are "
                "compared."
            )
    return messages


def without_class_labels(tasks: Sequence[TaskAnswers]) -> tuple[list[TaskAnswers], list[str]]:
    """The tasks without labels that are no answers, and what to tell the user.

    Labels of an open question may be classes (the folders of a photo set). Where no answer, with
    the image or blind, ever equals one, an accuracy of 0 would say nothing about the model.
    """
    kept, messages = [], []
    for task in tasks:
        right = np.any([task.image.right, *(each.given.right for each in task.blinded)], axis=0)
        if task.open and task.labelled.any() and not right[task.labelled].any():
            messages.append(
                f"{task.task}: no answer ever equals a label. The labels are taken as classes, not "
                "as answers, and accuracy is left out."
            )
            kept.append(replace(task, labelled=np.zeros_like(task.labelled)))
        else:
            kept.append(task)
    return kept, messages
