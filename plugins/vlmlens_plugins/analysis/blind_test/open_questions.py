"""Questions without choices: the first token of the answer, or what the model writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vlmlens.abc import Generation, ModelAdapter, ModelWork, WorkUnit
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._answer_work import FirstTokens, WriteOptions, WrittenAnswers
from vlmlens_plugins.analysis._label_tokens import label_tokens
from vlmlens_plugins.analysis._scoring import AnswerScorer
from vlmlens_plugins.analysis.blind_test.answer_text import KnownAnswers
from vlmlens_plugins.analysis.blind_test.answer_text import normalized as plain
from vlmlens_plugins.analysis.blind_test.answers import Blinded, Given, TaskAnswers, task_answers
from vlmlens_plugins.analysis.blind_test.conditions import Conditions

Ints = npt.NDArray[np.int64]
_NOTHING = "(nothing)"


class FirstTokenQuestions:
    """Open questions, compared by the first token; distances are over the whole vocabulary.

    Args:
        conditions: Makes blank questions.
        batch_size: Questions per batch.
        scorer: Knows the tokens of answers.
    """

    def __init__(self, conditions: Conditions, batch_size: int, scorer: AnswerScorer) -> None:
        self.work: ModelWork = FirstTokens()
        self.units: list[WorkUnit] = []
        self._conditions = conditions
        self._batch_size = batch_size
        self._scorer = scorer
        self._put: dict[str, tuple[Sequence[Sample], int]] = {}

    def put(self, task: str, samples: Sequence[Sample]) -> None:
        """Put a task's questions."""
        self._put[task] = samples, len(self.units)
        self.units += [
            WorkUnit(*self._conditions.together(sample), f"{task}/{i // self._batch_size}")
            for i, sample in enumerate(samples)
        ]

    def answers(self, results: Sequence[Any]) -> dict[str, TaskAnswers]:
        """The answers by task, from the results of all units."""
        return {
            task: self._answers(task, samples, results[start : start + len(samples)])
            for task, (samples, start) in self._put.items()
        }

    def _answers(self, task: str, samples: Sequence[Sample], found: Sequence[Any]) -> TaskAnswers:
        kinds = self._conditions.kinds
        blanks = [[each["blanks"][k] for each in found] for k in range(len(kinds))]
        tokens = np.array([[each["token"] for each in told] for told in (found, *blanks)], np.int64)
        given, picks = np.unique(tokens, return_inverse=True)
        firsts = label_tokens(self._scorer.answer_ids, samples).tokens
        number = {int(token): i for i, token in enumerate(given)}
        labels = np.array([number.get(int(token), -1) for token in firsts])
        image, *blind = _one_hot(picks.reshape(tokens.shape), len(given), labels)
        far = [
            [np.array([each[name] for each in told]) for name in ("tv", "js")] for told in blanks
        ]
        return TaskAnswers(
            task,
            tuple(samples),
            tuple(self._scorer.vlm.decode([int(token)]) for token in given),
            image,
            tuple(
                Blinded(kind, each, tv, js)
                for kind, each, (tv, js) in zip(kinds, blind, far, strict=True)
            ),
            firsts >= 0,
            labels,
            open=True,
        )


class WrittenQuestions:
    """Open questions, compared by what the model writes; two answers are the same or not.

    Args:
        conditions: Makes blank questions.
        batch_size: Questions per batch.
        stored: What the run has written.
        most: Tokens of an answer.
    """

    def __init__(
        self, conditions: Conditions, batch_size: int, stored: StoredTexts, most: int
    ) -> None:
        self.work: ModelWork = WrittenAnswers(WriteOptions(max_new_tokens=most))
        self.units: list[WorkUnit] = []
        self._conditions = conditions
        self._batch_size = batch_size
        self._stored = stored
        self._put: dict[str, tuple[Sequence[Sample], list[list[int | str]]]] = {}

    def put(self, task: str, samples: Sequence[Sample]) -> None:
        """Put a task's questions, with their image only those that the run has not answered."""
        texts: list[list[int | str]] = []
        for blank in (None, *self._conditions.kinds):
            texts.append([])
            for i, sample in enumerate(samples):
                known = self._stored.text(sample.id) if blank is None else None
                texts[-1].append(len(self.units) if known is None else known)
                if known is None:
                    question = self._conditions.asked(sample, blank)
                    batch = f"{task}/{blank}/{i // self._batch_size}"
                    self.units.append(WorkUnit(*question, batch))
        self._put[task] = samples, texts

    def answers(self, results: Sequence[Any]) -> dict[str, TaskAnswers]:
        """The answers by task, from the results of all units."""
        return {
            task: self._answers(
                task,
                samples,
                [[each if isinstance(each, str) else results[each] for each in row] for row in put],
            )
            for task, (samples, put) in self._put.items()
        }

    def _answers(
        self, task: str, samples: Sequence[Sample], written: Sequence[Sequence[str]]
    ) -> TaskAnswers:
        known = KnownAnswers(sample.label for sample in samples if sample.label is not None)
        texts = [[known.read(text) or _NOTHING for text in row] for row in written]
        answers = tuple(dict.fromkeys(text for condition in texts for text in condition))
        number = {answer: i for i, answer in enumerate(answers)}
        picks = np.array([[number[text] for text in condition] for condition in texts])
        wanted = [None if sample.label is None else plain(sample.label) for sample in samples]
        labels = np.array([-1 if label is None else number.get(label, -1) for label in wanted])
        given = _one_hot(picks, len(answers), labels)
        return task_answers(task, samples, answers, given, labels, self._conditions.kinds)


class StoredTexts:
    """What the run has written, as writing up to some number of tokens would give it.

    Args:
        vlm: A loaded model.
        most: Tokens of an answer.
        known: What the run wrote, by sample id, each up to the same number of tokens.
    """

    def __init__(self, vlm: ModelAdapter, most: int, known: Mapping[str, Generation]) -> None:
        self._vlm = vlm
        self._most = most
        self._known = known
        self._limit = max((len(made.token_ids) for made in known.values()), default=0)

    def text(self, sample: str) -> str | None:
        """The text for a sample's id; None where it is not known.

        Writing is greedy, so that a shorter limit gives a beginning. A text as long as the longest
        one may have been cut by the run's own limit.
        """
        made = self._known.get(sample)
        if made is None or not made.token_ids:
            return None
        count = len(made.token_ids)
        if count > self._most:
            return self._vlm.decode(made.token_ids[: self._most])
        cut = count == self._limit and count < self._most
        return None if cut else made.text


def _one_hot(picks: Ints, count: int, labels: Ints) -> list[Given]:
    return [Given(np.eye(count)[each], each, each == labels) for each in picks]
