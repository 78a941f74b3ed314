"""From answers to numbers with uncertainty, and from numbers to verdicts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from vlmlens.results import Verdict
from vlmlens_plugins.analysis._statistics import (
    bootstrap_weights,
    generator,
    holm,
    interval,
    permutation_p,
)
from vlmlens_plugins.analysis.blind_test.answers import TaskAnswers
from vlmlens_plugins.analysis.blind_test.options import BlindOptions

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
_CHUNK = 1000


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Accuracies of one task, over its labelled samples.

    Args:
        samples: Number of labelled samples.
        image: With the image; `blind` without it.
        chance: Mean of 1 / choices; None for open questions.
        majority: Share of the most frequent label.
        gain: `image - blind`, with a 95 % interval `low` to `high`.
        p: One-sided p-value of the gain, `corrected` by Holm over tasks.
    """

    samples: int
    image: float
    blind: float
    chance: float | None
    majority: float
    gain: float
    low: float
    high: float
    p: float
    corrected: float = 1.0


@dataclass(frozen=True, slots=True)
class TaskScore:
    """One task's numbers; intervals are 95 %, over groups.

    Args:
        flips: Share of samples whose answer differs, with its interval.
        tv: Mean total variation per sample, with its interval.
        js: Mean Jensen-Shannon distance per sample, base 2.
        shift: Total variation between the two mean answer distributions.
        p: p-value of `shift` under swaps, `corrected` by Holm over tasks.
        accuracy: None without labels.
    """

    task: str
    samples: int
    flips: float
    flips_interval: tuple[float, float]
    tv: float
    tv_interval: tuple[float, float]
    js: float
    shift: float
    p: float
    corrected: float
    accuracy: Accuracy | None
    verdict: Verdict


def score_tasks(tasks: Sequence[TaskAnswers], options: BlindOptions, seed: int) -> list[TaskScore]:
    """The scores of all tasks, with p-values corrected over them."""
    shifts = [swap_test(answers, options.draws, seed) for answers in tasks]
    corrected = holm(np.array([p for _, p in shifts]))
    accuracies = _corrected([_accuracy(answers, options, seed) for answers in tasks])
    return [
        _score(answers, shift, p, float(over_tasks), accuracy, options, seed)
        for answers, (shift, p), over_tasks, accuracy in zip(
            tasks, shifts, corrected, accuracies, strict=True
        )
    ]


def swap_test(answers: TaskAnswers, draws: int, seed: int) -> tuple[float, float]:
    """Total variation between the two mean answer distributions, and its p-value.

    Null: the two answers to a question, with the image and with the blank, are exchangeable, so
    that swapping them (for all questions of a group together) changes nothing on average. A small
    p-value says that answers shift systematically when the image goes; it does not say that they
    depend on what the image shows, which is what the accuracy gain tests.
    """
    groups = _groups(answers)
    sums = _group_sums(answers.image - answers.blank, groups) / len(answers.samples)
    rng = generator(seed, "blind-swap", answers.task)
    null = [0.5 * np.abs(signs @ sums).sum(1) for signs in _signs(draws, len(sums), rng)]
    observed = float(0.5 * np.abs(sums.sum(0)).sum())
    return observed, permutation_p(observed, np.concatenate(null))


def judge(
    flips: tuple[float, float],
    tv: tuple[float, float],
    p: float,
    accuracy: Accuracy | None,
    options: BlindOptions,
) -> Verdict:
    """The verdict on a task.

    - uses the image: the answers change (the interval of the flip rate lies above `min_flips`, or
      that of the mean total variation above `min_distance`), and the change is significant: where
      labels are known the accuracy gains from the image, else the mean answers shift;
    - ignores the image: both intervals end below these thresholds;
    - inconclusive: anything else, such as answers that change without getting better.

    Args:
        flips: Interval of the flip rate.
        tv: Interval of the mean total variation.
        p: Corrected p-value of the shift.
        accuracy: Where labels are known.
        options: Thresholds and level.
    """
    significant = (p if accuracy is None else accuracy.corrected) <= options.alpha
    if significant and (flips[0] > options.min_flips or tv[0] > options.min_distance):
        return Verdict.USES_IMAGE
    if flips[1] < options.min_flips and tv[1] < options.min_distance:
        return Verdict.IGNORES_IMAGE
    return Verdict.INCONCLUSIVE


def _score(
    answers: TaskAnswers,
    shift: float,
    p: float,
    corrected: float,
    accuracy: Accuracy | None,
    options: BlindOptions,
    seed: int,
) -> TaskScore:
    flipped = (answers.picks_image != answers.picks_blank).astype(np.float64)
    rng = generator(seed, "blind-bootstrap", answers.task)
    values = np.stack([flipped, answers.tv], 1)
    groups = _groups(answers)
    low, high = _mean_intervals(values, groups, options.resamples, rng)
    flips, tv = (float(low[0]), float(high[0])), (float(low[1]), float(high[1]))
    return TaskScore(
        task=answers.task,
        samples=len(answers.samples),
        flips=float(flipped.mean()),
        flips_interval=flips,
        tv=float(answers.tv.mean()),
        tv_interval=tv,
        js=float(answers.js.mean()),
        shift=shift,
        p=p,
        corrected=corrected,
        accuracy=accuracy,
        verdict=judge(flips, tv, corrected, accuracy, options),
    )


def _accuracy(answers: TaskAnswers, options: BlindOptions, seed: int) -> Accuracy | None:
    known = np.flatnonzero(answers.labelled)
    if not len(known):
        return None
    image, blind = answers.right_image[known], answers.right_blank[known]
    gains = image.astype(np.float64) - blind
    groups = np.unique(_groups(answers)[known], return_inverse=True)[1]
    rng = generator(seed, "blind-gain", answers.task)
    low, high = _mean_intervals(gains[:, None], groups, options.resamples, rng)
    sums = _group_sums(gains[:, None], groups)[:, 0]
    null = np.concatenate([signs @ sums for signs in _signs(options.draws, len(sums), rng)])
    samples = [answers.samples[i] for i in known]
    return Accuracy(
        samples=len(known),
        image=float(image.mean()),
        blind=float(blind.mean()),
        chance=None if answers.open else float(np.mean([1 / len(s.choices) for s in samples])),
        majority=max(Counter(s.label for s in samples).values()) / len(samples),
        gain=float(gains.mean()),
        low=float(low[0]),
        high=float(high[0]),
        p=permutation_p(float(sums.sum()), null),
    )


def _corrected(accuracies: Sequence[Accuracy | None]) -> list[Accuracy | None]:
    known = [accuracy for accuracy in accuracies if accuracy is not None]
    values = iter(holm(np.array([accuracy.p for accuracy in known])))
    return [None if a is None else replace(a, corrected=float(next(values))) for a in accuracies]


def _mean_intervals(
    values: Floats, groups: Ints, draws: int, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """95 % intervals `[columns]` of the means of `values` `[n, columns]`, over groups."""
    sums = _group_sums(values, groups)
    weights = bootstrap_weights(len(sums), draws, rng)
    sizes = weights @ np.bincount(groups).astype(np.float64)
    return interval((weights @ sums) / sizes[:, None])


def _groups(answers: TaskAnswers) -> Ints:
    names = [sample.split_group for sample in answers.samples]
    numbers = {name: i for i, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names])


def _group_sums(values: Floats, groups: Ints) -> Floats:
    sums = np.zeros((int(groups.max()) + 1, values.shape[1]))
    np.add.at(sums, groups, values)
    return sums


def _signs(draws: int, units: int, rng: np.random.Generator) -> Iterator[Floats]:
    """Chunks of random signs, `[draws, units]` in all."""
    for start in range(0, draws, _CHUNK):
        yield rng.integers(0, 2, (min(_CHUNK, draws - start), units)).astype(np.float64) * 2 - 1
