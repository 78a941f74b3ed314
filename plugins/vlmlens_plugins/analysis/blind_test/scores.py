"""Scores of a task with their uncertainty."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from vlmlens.results import Verdict
from vlmlens.statistics import holm
from vlmlens_plugins.analysis._statistics import (
    entropy,
    generator,
    interval,
    jensen_shannon,
    mcnemar,
    permutation_p,
    total_variation,
)
from vlmlens_plugins.analysis.blind_test.answers import Blinded, Given, TaskAnswers
from vlmlens_plugins.analysis.blind_test.comparison import (
    Accuracy,
    Comparison,
    Shift,
    TaskScore,
)
from vlmlens_plugins.analysis.blind_test.exchange_test import Exchanged, exchanged
from vlmlens_plugins.analysis.blind_test.mutual_information import (
    Information,
    information,
    repeated,
)
from vlmlens_plugins.analysis.blind_test.options import SHOWS_NOTHING, BlindOptions
from vlmlens_plugins.analysis.blind_test.resampling import Estimate, Groups, signs
from vlmlens_plugins.analysis.blind_test.verdict import judge

Floats = npt.NDArray[np.float64]


def score_tasks(tasks: Sequence[TaskAnswers], options: BlindOptions, seed: int) -> list[TaskScore]:
    """The scores of all tasks, with p-values corrected over them.

    That the image is used is claimed only where accuracy gains over every decisive blank and,
    where that can be known, over answers exchanged between images: an intersection-union test,
    whose p-value is the largest of theirs (R. Berger, Technometrics 24 (1982)).
    """
    scorers = [_Scorer(answers, options, seed) for answers in tasks]
    compared = [scorer.compare() for scorer in scorers]
    by_blank = [_corrected(column) for column in zip(*compared, strict=True)]
    scored = list(zip(*by_blank, strict=True))
    worst = [
        scorer.largest_p(comparisons) for scorer, comparisons in zip(scorers, scored, strict=True)
    ]
    known = [p for p in worst if p is not None]
    corrected = iter(holm(np.array(known)).tolist() if known else ())
    return [
        scorer.judge(comparisons, 1.0 if p is None else next(corrected))
        for scorer, comparisons, p in zip(scorers, scored, worst, strict=True)
    ]


def swap_test(image: Floats, blank: Floats, groups: Groups, draws: int, seed: int) -> Shift:
    """How far apart the mean answers are, with p-values.

    Null: the two answers to a question, with the image and with the blank, are exchangeable, so
    that swapping them (for all questions of a group together) changes nothing on average. A small
    p-value says that answers shift systematically when the image goes; it does not say that they
    depend on what the image shows, which is what the accuracy gain tests.

    Args:
        image: float64 `[n, answers]`, probabilities with the image.
        blank: Likewise, with the blank.
        groups: Of the samples.
        draws: Permutations.
        seed: Of the swaps.
    """
    n = len(image)
    middle = (image + blank).mean(0) / 2
    half = groups.sums(image - blank) / n / 2
    rng = generator(seed, "blind-swap")
    null = np.concatenate(
        [_distances(middle, some @ half) for some in signs(draws, len(half), rng)]
    )
    seen = _distances(middle, half.sum(0)[None])[0]
    sizes = groups.totals(np.ones(n))[:, None]
    means = [groups.totals(values) / sizes for values in (image, blank)]
    ends = [interval(distance(*means)) for distance in (total_variation, jensen_shannon)]
    tv, js = (
        Estimate(float(value), float(low), float(high))
        for value, (low, high) in zip(seen, ends, strict=True)
    )
    return Shift(tv, js, *(permutation_p(float(seen[k]), null[:, k]) for k in (0, 1)))


def follows_image(
    answers: TaskAnswers, found: Information | None, groups: Groups, options: BlindOptions
) -> bool:
    """Whether answers vary with what the image shows, right or wrong.

    They do where answers to the same question tell more about which image was shown than blanks of
    these images do (which differ in size, say), by `min_information` at least; or where the answers
    change by `min_distance` with another sample's image.
    """
    shown = next((each for each in answers.blinded if each.blank == "other"), None)
    if shown is not None and groups.mean(shown.tv).low > options.min_distance:
        return True
    if found is None:
        return False
    questions = repeated(answers.samples)
    empty = [each.given.p for each in answers.blinded if each.blank in SHOWS_NOTHING]
    least = max((information(p, questions, groups).bits.value for p in empty), default=0.0)
    return found.bits.low - least > options.min_information


class _Scorer:
    """Scores one task."""

    def __init__(self, answers: TaskAnswers, options: BlindOptions, seed: int) -> None:
        self._answers = answers
        self._options = options
        self._seed = seed
        self._groups = self._grouped(range(len(answers.samples)))
        self._known = np.flatnonzero(answers.labelled)
        some = 0 < len(self._known) < len(answers.samples)
        self._questions = repeated(answers.samples)
        self._exchanged = self._exchange()
        self._labelled = self._grouped(self._known.tolist()) if some else self._groups

    def compare(self) -> list[Comparison]:
        """The comparisons, p-values not corrected."""
        return [self._comparison(each) for each in self._answers.blinded]

    def judge(self, comparisons: Sequence[Comparison], p: float) -> TaskScore:
        """The task's score, from corrected comparisons and the corrected p-value over them."""
        answers, questions = self._answers, self._questions
        found = information(answers.image.p, questions, self._groups) if questions else None
        follows = follows_image(answers, found, self._groups, self._options)
        return TaskScore(
            task=answers.task,
            samples=len(answers.samples),
            comparisons=tuple(self._alone(each, follows) for each in comparisons),
            information=found,
            follows=follows,
            exchanged=self._exchanged,
            corrected=p,
            verdict=self._verdict(comparisons, p, follows),
        )

    def largest_p(self, comparisons: Sequence[Comparison]) -> float | None:
        """Over the decisive blanks and the exchange; None without labels."""
        decisive = [each for each in comparisons if each.blank in self._options.decisive]
        known = [each.accuracy.p for each in decisive if each.accuracy is not None]
        if known and self._exchanged is not None:
            known.append(self._exchanged.p)
        return max(known, default=None)

    def _alone(self, each: Comparison, follows: bool) -> Comparison:
        p = 1.0 if each.accuracy is None else each.accuracy.corrected
        if self._exchanged is not None:
            p = max(p, self._exchanged.p)
        return replace(each, verdict=self._verdict([each], p, follows))

    def _verdict(self, comparisons: Sequence[Comparison], p: float, follows: bool) -> Verdict:
        return judge(
            comparisons, p=p, follows=follows, exchanged=self._exchanged, options=self._options
        )

    def _exchange(self) -> Exchanged | None:
        answers = self._answers
        known = np.where(answers.labels < 0, len(answers.answers), answers.labels)
        labels = np.where(answers.labelled, known, -1)
        rng = generator(self._seed, "blind-exchange", answers.task)
        picks, draws = answers.image.picks, self._options.draws
        return exchanged(picks, labels, self._questions, self._groups.of, draws, rng)

    def _grouped(self, rows: Sequence[int]) -> Groups:
        samples = [self._answers.samples[i] for i in rows]
        rng = generator(self._seed, "blind-bootstrap", self._answers.task)
        return Groups(samples, self._options.resamples, rng)

    def _comparison(self, each: Blinded) -> Comparison:
        image, given, groups = self._answers.image, each.given, self._groups
        return Comparison(
            blank=each.blank,
            flips=groups.mean((image.picks != given.picks).astype(np.float64)),
            tv=groups.mean(each.tv),
            js=groups.mean(each.js),
            shift=swap_test(image.p, given.p, groups, self._options.draws, self._seed),
            accuracy=self._accuracy(image, given) if len(self._known) else None,
            certainty=None if self._answers.open else self._certainty(given),
        )

    def _certainty(self, given: Given) -> float | None:
        most = np.log2([len(sample.choices) for sample in self._answers.samples])
        return float(1 - entropy(given.p).sum() / most.sum()) if most.sum() > 0 else None

    def _accuracy(self, image: Given, given: Given) -> Accuracy:
        known = self._known
        samples = [self._answers.samples[i] for i in known]
        groups = self._labelled
        seen, blind = (each.right[known].astype(np.float64) for each in (image, given))
        one = np.ones(len(known))
        sums = groups.sums(seen - blind)
        rng = generator(self._seed, "blind-gain", self._answers.task)
        drawn = signs(self._options.draws, len(sums), rng)
        counts = (int((seen > blind).sum()), int((blind > seen).sum()))
        chance = (
            None if self._answers.open else float(np.mean([1 / len(s.choices) for s in samples]))
        )
        without = groups.mean(blind)
        return Accuracy(
            samples=len(known),
            image=groups.mean(seen),
            blind=without,
            chance=chance,
            majority=max(Counter(s.label for s in samples).values()) / len(samples),
            gain=groups.ratio(seen - blind, one),
            use=groups.ratio(seen - blind, one - blind),
            leak=None if chance is None else without.less(chance),
            shared=float((seen * blind).sum() / seen.sum()) if seen.any() else None,
            only_image=counts[0],
            only_blind=counts[1],
            mcnemar=mcnemar(*counts),
            p=permutation_p(float(sums.sum()), np.concatenate([some @ sums for some in drawn])),
        )


def _distances(middle: Floats, half: Floats) -> Floats:
    """float64 `[draws, 2]`: TV and JS of `middle` plus and less `half` `[draws, answers]`."""
    p, q = np.maximum(middle + half, 0.0), np.maximum(middle - half, 0.0)
    return np.stack([total_variation(p, q), jensen_shannon(p, q)], 1)


def _corrected(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The comparisons of all tasks with one kind of blank, p-values corrected over them."""
    shifts = holm(np.array([each.shift.p for each in comparisons]))
    gains = [each.accuracy.p for each in comparisons if each.accuracy is not None]
    corrected = iter(holm(np.array(gains)) if gains else ())
    return [
        replace(
            each,
            shift=replace(each.shift, corrected=float(shift)),
            accuracy=each.accuracy and replace(each.accuracy, corrected=float(next(corrected))),
        )
        for each, shift in zip(comparisons, shifts, strict=True)
    ]
