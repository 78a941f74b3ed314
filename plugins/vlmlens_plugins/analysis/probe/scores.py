"""From predictions to numbers with uncertainty, and from numbers to verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vlmlens.results import Verdict
from vlmlens.statistics import holm
from vlmlens_plugins.analysis._statistics import (
    bootstrap_weights,
    generator,
    interval,
    permutation_p,
)
from vlmlens_plugins.analysis.probe.evaluation import Evaluation
from vlmlens_plugins.analysis.probe.options import ProbeOptions
from vlmlens_plugins.analysis.probe.splits import shuffled_within_folds
from vlmlens_plugins.analysis.probe.targets import Target

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Score:
    """One column's numbers for one target; accuracies are fractions of held-out samples.

    Args:
        accuracy: Of the probe; `train_accuracy` on its training parts.
        control: Mean of the shuffled-label probes; `train_control` on their training parts.
        control_sd: Standard deviation of `control` over seeds.
        majority: Of the training parts' most frequent class.
        selectivity: `accuracy - control`, with a 95 % interval `low` to `high`.
        gap: `accuracy - max(control, majority)`, with a 95 % interval likewise.
        p: Raw one-sided permutation p-value; `corrected` by Holm over the target's columns.
        verdict: See `judge`.
    """

    column: str
    accuracy: float
    train_accuracy: float
    control: float
    train_control: float
    control_sd: float
    majority: float
    selectivity: float
    low: float
    high: float
    gap: float
    gap_low: float
    gap_high: float
    p: float
    corrected: float
    verdict: Verdict


def score_columns(
    target: Target,
    fold: Ints,
    labels: Ints,
    majority: Ints,
    evaluations: Mapping[str, Evaluation],
    options: ProbeOptions,
    seed: int,
) -> list[Score]:
    """The scores of a target's columns.

    Args:
        target: What was probed for.
        fold: int64 `[n]`, the fold in which each sample is held out.
        labels: int64 `[1 + seeds, n]`, true labels first, then the controls'.
        majority: int64 `[n]`, the majority baseline's predictions.
        evaluations: Predictions by column.
        options: Level, least gap, draws.
        seed: The run's seed.
    """
    predictions = np.stack([found.held_out[0] for found in evaluations.values()])
    p = label_permutation_p(target, fold, predictions, options, seed)
    corrected = holm(p)
    resampling = _Resampling.draw(target, labels, options.resamples, seed)
    scores = []
    for i, (column, found) in enumerate(evaluations.items()):
        numbers = resampling.numbers(found.held_out, majority)
        control = (found.held_out[1:] == labels[1:]).mean(1)
        scores.append(
            Score(
                column=column,
                train_accuracy=float(found.train_accuracy[0]),
                train_control=float(found.train_accuracy[1:].mean()),
                control_sd=float(control.std(ddof=1)),
                p=float(p[i]),
                corrected=float(corrected[i]),
                verdict=judge(
                    majority=numbers["majority"],
                    gap=numbers["gap"],
                    gap_low=numbers["gap_low"],
                    gap_high=numbers["gap_high"],
                    p=float(corrected[i]),
                    options=options,
                ),
                **numbers,
            )
        )
    return scores


def judge(
    *, majority: float, gap: float, gap_low: float, gap_high: float, p: float, options: ProbeOptions
) -> Verdict:
    """The verdict, which rests on the gap over the better baseline and not on the accuracy.

    With least gap = `min_gap * (1 - majority)`:

    - encoded: corrected p at most `alpha`, the gap's interval above 0, the gap at least the least;
    - not encoded: corrected p above `alpha`, and the gap's interval ends below the least gap: a
      gap that counts is ruled out, not just missed (a negative gap, which is bad luck and no
      evidence, is taken as 0: the interval is moved up with it);
    - inconclusive: anything else, such as too few samples, or a sure but tiny gap.
    """
    least = least_gap(majority, options)
    if p <= options.alpha and gap_low > 0 and gap >= least:
        return Verdict.ENCODED
    if p > options.alpha and max(gap, 0.0) + gap_high - gap < least:
        return Verdict.NOT_ENCODED
    return Verdict.INCONCLUSIVE


def least_gap(majority: float, options: ProbeOptions) -> float:
    """The smallest gap that counts, in accuracy."""
    return options.min_gap * (1 - majority)


def overall(scores: Sequence[Score]) -> tuple[Verdict, Score]:
    """The verdict over several columns, and the best of them.

    Encoded where any column is, not encoded where every column is not; the first of the most
    accurate columns (with that verdict, if it is "encoded") is the best.
    """
    encoded = [score for score in scores if score.verdict is Verdict.ENCODED]
    best = max(encoded or scores, key=lambda score: score.accuracy)
    if encoded:
        return Verdict.ENCODED, best
    nowhere = all(score.verdict is Verdict.NOT_ENCODED for score in scores)
    return (Verdict.NOT_ENCODED if nowhere else Verdict.INCONCLUSIVE), best


def label_permutation_p(
    target: Target, fold: Ints, predictions: Ints, options: ProbeOptions, seed: int
) -> Floats:
    """float64 `[columns]`: one-sided p-values of the held-out accuracies.

    Null: held-out labels are unrelated to the predictions. Labels are shuffled by whole groups
    within each held-out fold while predictions stay; a fold's labels are never seen by the probe
    that predicts it, and shuffling within it leaves the training labels alone. Only an accuracy
    above the null counts as evidence. A constant prediction gets p = 1. The number of draws grows
    where Holm's correction over many columns would leave no room below `alpha`.

    Args:
        target: Labels and groups.
        fold: int64 `[n]`.
        predictions: int64 `[columns, n]`.
        options: `draws` and `alpha`.
        seed: The run's seed.
    """
    rng = generator(seed, "probe-permutation", target.name)
    draws = max(options.draws, int(np.ceil(2 * len(predictions) / options.alpha)))
    one_hot = [(predictions == c).T.astype(np.float32) for c in range(len(target.classes))]
    null = np.concatenate(
        [
            sum((labels == c).astype(np.float32) @ hits for c, hits in enumerate(one_hot))
            for labels in shuffled_within_folds(target.y, target.groups, fold, draws, rng)
        ]
    )
    observed = (predictions == target.y).sum(1)
    return np.array([permutation_p(observed[i], null[:, i]) for i in range(len(predictions))])


@dataclass(frozen=True, slots=True)
class _Resampling:
    """A bootstrap over groups and, for the controls, over seeds; the same for every column."""

    of_groups: Floats
    of_seeds: Floats
    groups: Ints
    labels: Ints

    @classmethod
    def draw(cls, target: Target, labels: Ints, draws: int, seed: int) -> _Resampling:
        rng = generator(seed, "probe-bootstrap", target.name)
        seeds = len(labels) - 1
        return cls(
            bootstrap_weights(target.n_groups, draws, rng),
            bootstrap_weights(seeds, draws, rng) / seeds,
            target.groups,
            labels,
        )

    def numbers(self, held_out: Ints, majority: Ints) -> dict[str, float]:
        right = (held_out == self.labels).astype(np.float64)
        ones = np.ones(len(majority))
        columns = np.stack([right[0], majority == self.labels[0], ones, *right[1:]])
        sums = np.stack([np.bincount(self.groups, weights=row) for row in columns], axis=1)
        main, base, control = _rates(sums.sum(0)[None], np.full((1, len(right) - 1), 1.0))
        drawn = _rates(self.of_groups @ sums, self.of_seeds * (len(right) - 1))
        low, high = interval(drawn[0] - drawn[2])
        gap_low, gap_high = interval(drawn[0] - np.maximum(drawn[1], drawn[2]))
        return {
            "accuracy": float(main[0]),
            "control": float(control[0]),
            "majority": float(base[0]),
            "selectivity": float(main[0] - control[0]),
            "low": float(low),
            "high": float(high),
            "gap": float(main[0] - max(control[0], base[0])),
            "gap_low": float(gap_low),
            "gap_high": float(gap_high),
        }


def _rates(sums: Floats, seed_weights: Floats) -> tuple[Floats, Floats, Floats]:
    """Accuracies `[draws]` of probe, majority and mean control from sums `[draws, 3 + seeds]`."""
    total = sums[:, 2]
    control = (sums[:, 3:] * seed_weights).mean(1) / total
    return sums[:, 0] / total, sums[:, 1] / total, control
