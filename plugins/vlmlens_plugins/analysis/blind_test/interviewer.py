"""Asks a model every question of a task, with the image and with each kind of blank."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from vlmlens.abc import AnalysisContext, Generation, ModelAdapter
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._label_tokens import label_tokens
from vlmlens_plugins.analysis._scoring import AnswerScorer
from vlmlens_plugins.analysis._statistics import jensen_shannon, total_variation
from vlmlens_plugins.analysis.blind_test.answer_text import KnownAnswers
from vlmlens_plugins.analysis.blind_test.answer_text import normalized as plain
from vlmlens_plugins.analysis.blind_test.answers import Blinded, Given, TaskAnswers
from vlmlens_plugins.analysis.blind_test.choosing import Choice, Chooser, several_forms
from vlmlens_plugins.analysis.blind_test.conditions import Asked, Conditions
from vlmlens_plugins.analysis.blind_test.options import BlindOptions

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
_NOTHING = "(nothing)"


class Interviewer:
    """Asks one model.

    Args:
        context: The run.
        options: How to ask.
        scorer: Scores the model's answers.
        conditions: Makes the blank questions.
        tick: Called after each batch with the number of samples done in it.
    """

    def __init__(
        self,
        context: AnalysisContext,
        options: BlindOptions,
        scorer: AnswerScorer,
        conditions: Conditions,
        tick: Callable[[int], None],
    ) -> None:
        self._vlm = context.model()
        self._options = options
        self._scorer = scorer
        self._tick = tick
        self._kinds = conditions.kinds
        size = context.batch_size
        writer = Writer(self._vlm, options.max_new_tokens, context.generated)
        self._chosen = Asked(conditions, Chooser(scorer, options, size), size)
        self._first = Asked(conditions, self._first_tokens, size)
        self._written = Asked(conditions, writer.write, size, with_image=writer.known_or_written)

    def ask(self, task: str, samples: Sequence[Sample]) -> TaskAnswers:
        """The answers to a task's questions; by choice where every sample has choices."""
        if all(sample.choices for sample in samples):
            return self._ask_choices(task, samples)
        if self._options.open == "generate":
            return self._ask_written(task, samples)
        return self._ask_first(task, samples)

    def _ask_choices(self, task: str, samples: Sequence[Sample]) -> TaskAnswers:
        answers = tuple(dict.fromkeys(choice for s in samples for choice in s.choices))
        number = {answer: i for i, answer in enumerate(answers)}
        p = np.zeros((1 + len(self._kinds), len(samples), len(answers)))
        with_image: list[Choice] = []
        for rows, found in self._chosen(samples):
            with_image += found[0]
            for condition, choices in zip(p, found, strict=True):
                for i, choice in zip(rows, choices, strict=True):
                    condition[i, [number[c] for c in samples[i].choices]] = np.exp(choice.logs)
            self._tick(len(rows))
        labels = np.array([number.get(sample.label or "", -1) for sample in samples])
        own = np.array([_place(sample) for sample in samples])
        given = [Given.of(each, labels) for each in p]
        made = self._answers(task, samples, answers, given, labels)
        return replace(made, open=False, forms=several_forms(with_image, own))

    def _ask_first(self, task: str, samples: Sequence[Sample]) -> TaskAnswers:
        """By the first token; distances are those over the whole vocabulary."""
        tokens = np.zeros((1 + len(self._kinds), len(samples)), np.int64)
        tv, js = np.zeros((2, len(self._kinds), len(samples)))
        for rows, found in self._first(samples):
            p = np.exp(np.stack(found[0]))
            tokens[0, rows] = p.argmax(1)
            for k, logs in enumerate(found[1:]):
                q = np.exp(np.stack(logs))
                tokens[k + 1, rows] = q.argmax(1)
                tv[k, rows], js[k, rows] = total_variation(p, q), jensen_shannon(p, q)
            self._tick(len(rows))
        given, picks = np.unique(tokens, return_inverse=True)
        firsts = label_tokens(self._scorer.answer_ids, samples).tokens
        number = {int(token): i for i, token in enumerate(given)}
        labels = np.array([number.get(int(token), -1) for token in firsts])
        image, *blind = _one_hot(picks.reshape(tokens.shape), len(given), labels)
        return TaskAnswers(
            task,
            tuple(samples),
            tuple(self._vlm.decode([int(token)]) for token in given),
            image,
            tuple(map(Blinded, self._kinds, blind, tv, js)),
            firsts >= 0,
            labels,
            open=True,
        )

    def _ask_written(self, task: str, samples: Sequence[Sample]) -> TaskAnswers:
        """By what the model writes; two answers are the same or they are not."""
        texts = [[""] * len(samples) for _ in range(1 + len(self._kinds))]
        known = KnownAnswers(sample.label for sample in samples if sample.label is not None)
        for rows, found in self._written(samples):
            for condition, written in zip(texts, found, strict=True):
                for i, text in zip(rows, written, strict=True):
                    condition[i] = known.read(text) or _NOTHING
            self._tick(len(rows))
        answers = tuple(dict.fromkeys(text for condition in texts for text in condition))
        number = {answer: i for i, answer in enumerate(answers)}
        picks = np.array([[number[text] for text in condition] for condition in texts])
        wanted = [None if sample.label is None else plain(sample.label) for sample in samples]
        labels = np.array([-1 if label is None else number.get(label, -1) for label in wanted])
        return self._answers(task, samples, answers, _one_hot(picks, len(answers), labels), labels)

    def _answers(
        self,
        task: str,
        samples: Sequence[Sample],
        answers: tuple[str, ...],
        given: Sequence[Given],
        labels: Ints,
    ) -> TaskAnswers:
        image, *blind = given
        pairs = zip(self._kinds, blind, strict=True)
        blinded = tuple(Blinded.of(kind, each, image) for kind, each in pairs)
        known = np.array([sample.label is not None for sample in samples])
        return TaskAnswers(task, tuple(samples), answers, image, blinded, known, labels, open=True)

    def _first_tokens(self, samples: Sequence[Sample]) -> list[Floats]:
        return list(self._scorer.first_token(samples))


class Writer:
    """Writes answers, those that the run has written already only once.

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

    def write(self, samples: Sequence[Sample]) -> list[str]:
        """What the model writes."""
        made = self._vlm.generate(self._vlm.encode(samples), max_new_tokens=self._most)
        return [each.text for each in made]

    def known_or_written(self, samples: Sequence[Sample]) -> list[str]:
        """The same, for questions as the run has them."""
        texts = {sample.id: self._text(self._known.get(sample.id)) for sample in samples}
        missing = [sample for sample in samples if texts[sample.id] is None]
        if missing:
            written = self.write(missing)
            texts |= {sample.id: text for sample, text in zip(missing, written, strict=True)}
        return [texts[sample.id] or "" for sample in samples]

    def _text(self, made: Generation | None) -> str | None:
        """The text as writing up to `most` tokens would give it; None where that is not known.

        Writing is greedy, so that a shorter limit gives a beginning. A text as long as the longest
        one may have been cut by the run's own limit.
        """
        if made is None or not made.token_ids:
            return None
        count = len(made.token_ids)
        if count > self._most:
            return self._vlm.decode(made.token_ids[: self._most])
        cut = count == self._limit and count < self._most
        return None if cut else made.text


def _place(sample: Sample) -> int:
    return sample.choices.index(sample.label) if sample.label in sample.choices else -1


def _one_hot(picks: Ints, count: int, labels: Ints) -> list[Given]:
    return [Given(np.eye(count)[each], each, each == labels) for each in picks]
