"""Scores of columns with their uncertainty, and the verdicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from scipy.special import stdtr, stdtrit

from vlmlens.results import Verdict
from vlmlens.statistics import holm
from vlmlens_plugins.analysis._statistics import generator
from vlmlens_plugins.analysis.probe.control_labels import Labels, shuffled_within
from vlmlens_plugins.analysis.probe.cross_validation import Evaluation
from vlmlens_plugins.analysis.probe.many_draws import null_p, shown
from vlmlens_plugins.analysis.probe.options import ProbeOptions
from vlmlens_plugins.analysis.probe.power import Noise
from vlmlens_plugins.analysis.probe.resampling import Drawn, Losses, Resampling, losses_of
from vlmlens_plugins.analysis.probe.splits import Ints, Split
from vlmlens_plugins.analysis.probe.targets import Target
from vlmlens_plugins.analysis.probe.trial import Trial

Floats = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
_WHOLE = 0.99
"""The share of the variance that a probe must have read for the verdict "not encoded"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score(Drawn):
    """One column's numbers with their test and verdict.

    Args:
        column: Its name.
        train_accuracy: Of the probe on its training parts; `train_control` and
            `train_control_task` likewise.
        p: The larger of two one-sided p-values, that of labels exchanged with predictions kept
            and that among retrained controls; `p_corrected` by Holm over the target's columns.
        detectable_gap: The smallest gap that these samples show with 80 % probability.
        samples_needed: Samples that show the gap with 80 % probability; None where none do.
        strength: Geometric mean over cells of the inverse regularization strength.
        verdict: See `judge`.
    """

    column: str
    train_accuracy: float
    train_control: float
    train_control_task: float | None
    p: float
    p_corrected: float
    detectable_gap: float
    samples_needed: int | None
    strength: float
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Scored:
    """The scores of a target's columns, with the losses that later comparisons need.

    Args:
        scores: Column by column.
        losses: The main probes' losses, column by column.
        resampling: The bootstrap that all intervals share.
    """

    scores: Sequence[Score]
    losses: Sequence[Losses]
    resampling: Resampling


def score_columns(
    trial: Trial, evaluations: Mapping[str, Evaluation], options: ProbeOptions, seed: int
) -> Scored:
    """The scores of a target's columns.

    Args:
        trial: What was asked.
        evaluations: Predictions by column.
        options: Level, least gap, draws.
        seed: The run's seed.
    """
    predictions = np.stack([found.held_out[0] for found in evaluations.values()])
    kept, _ = label_permutation_p(trial.target, trial.split, predictions, options, seed)
    again = [retrained_p(found.held_out, trial) for found in evaluations.values()]
    p = np.maximum(kept, [one for one, _ in again])
    corrected = holm(p)
    rng = generator(seed, "probe-bootstrap", trial.target.name)
    resampling = Resampling.draw(trial, options.resamples, rng)
    scores, losses = [], []
    for i, (column, found) in enumerate(evaluations.items()):
        losses.append(losses_of(found.held_out[0], trial, 0))
        drawn = resampling.compare(found.held_out, trial)
        bar = max(0.0, drawn.majority - drawn.control)
        noise = Noise(
            significant=again[i][1] * _quantile(options.alpha / len(p), trial.seeds) - bar,
            below=drawn.gap - drawn.gap_low,
            spread=drawn.gap_sd,
            least=least_gap(drawn.majority, options),
            seeds=trial.seeds,
        )
        scores.append(
            _score(column, found, trial, drawn, noise, float(p[i]), float(corrected[i]), options)
        )
    return Scored(scores, losses, resampling)


def _score(
    column: str,
    found: Evaluation,
    trial: Trial,
    drawn: Drawn,
    noise: Noise,
    p: float,
    corrected: float,
    options: ProbeOptions,
) -> Score:
    shuffled = slice(1, 1 + trial.seeds)
    by_type = slice(1 + trial.seeds, None)
    train = found.train_score
    return Score(
        **{field.name: getattr(drawn, field.name) for field in fields(Drawn)},
        column=column,
        train_accuracy=float(train[0]),
        train_control=float(train[shuffled].mean()),
        train_control_task=float(train[by_type].mean()) if trial.by_type else None,
        p=p,
        p_corrected=corrected,
        detectable_gap=noise.detectable(),
        samples_needed=noise.samples_needed(drawn.gap, int(trial.split.tested.sum())),
        strength=float(np.exp(np.log(found.strengths).mean())),
        verdict=_of_what_was_seen(
            judge(
                majority=drawn.majority,
                gap=drawn.gap,
                gap_low=drawn.gap_low,
                gap_high=drawn.gap_high,
                p=corrected,
                options=options,
            ),
            found.kept,
        ),
    )


def _of_what_was_seen(verdict: Verdict, kept: float) -> Verdict:
    """Not "not encoded" where the probe read components that leave out much of the variance."""
    missed = verdict is Verdict.NOT_ENCODED and kept < _WHOLE
    return Verdict.INCONCLUSIVE if missed else verdict


def retrained_p(held_out: Labels, trial: Trial) -> tuple[float, float]:
    """One-sided p-value of the main score among the controls', and the deviation behind it.

    Under the null hypothesis the true labels are one more shuffling, and the controls, trained and
    tested as the probe was, show how such scores vary: more than fixed predictions do, since folds
    share training samples. With few seeds the tail is Student's, with `seeds - 1` degrees of
    freedom (a prediction of one more score: the deviation is that of a difference to a mean).

    Args:
        held_out: `[fits, n]`, predictions of the probe and its controls.
        trial: What was asked.
    """
    scores = [losses_of(held_out[i], trial, i).score for i in range(1 + trial.seeds)]
    controls = np.array(scores[1:])
    deviation = float(controls.std(ddof=1) * np.sqrt(1 + 1 / trial.seeds))
    above = scores[0] - float(controls.mean())
    if deviation == 0:
        return float(above <= 0), 0.0
    return float(stdtr(trial.seeds - 1, -above / deviation)), deviation


def _quantile(tail: float, seeds: int) -> float:
    return float(-stdtrit(seeds - 1, tail))


def judge(
    *, majority: float, gap: float, gap_low: float, gap_high: float, p: float, options: ProbeOptions
) -> Verdict:
    """The verdict, which rests on the gap over the best baseline and not on the accuracy.

    With least gap = `min_gap * (1 - majority)`:

    - encoded: corrected p at most `alpha`, the gap's interval above 0, the gap at least the least;
    - not encoded: corrected p above `alpha`, and the gap's interval ends below the least gap, so
      that such a gap is excluded and not just missed (a negative gap is bad luck and no
      evidence; it is taken as 0, and the interval is moved up with it);
    - inconclusive: anything else, such as too few samples, or a significant but tiny gap.
    """
    least = least_gap(majority, options)
    if p <= options.alpha and gap_low > 0 and gap >= least:
        return Verdict.ENCODED
    if p > options.alpha and max(gap, 0.0) + gap_high - gap < least:
        return Verdict.NOT_ENCODED
    return Verdict.INCONCLUSIVE


def least_gap(majority: float, options: ProbeOptions) -> float:
    """The smallest gap that counts, in accuracy or R2."""
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
    target: Target, split: Split, predictions: Labels, options: ProbeOptions, seed: int
) -> tuple[Floats, Floats]:
    """One-sided p-values `[columns]` of held-out scores, and the scores' null deviations.

    Null: held-out labels are unrelated to the predictions. Labels are shuffled by whole groups
    within each block of the split (its folds) while predictions stay; a fold's labels are never
    seen by the probe that predicts it, and shuffling within it leaves the training labels alone.
    Only a score above the null counts as evidence. A constant prediction gets p = 1. The number of
    draws grows where Holm's correction over many columns would leave no room below `alpha`. Where
    so many draws of so many samples would take minutes, fewer give a normal null.

    Args:
        target: Labels and groups.
        split: Folds and blocks.
        predictions: `[columns, n]`.
        options: `draws` and `alpha`.
        seed: The run's seed.
    """
    rng = generator(seed, "probe-permutation", target.name)
    draws = max(options.draws, int(np.ceil(2 * len(predictions) / options.alpha)))
    on = split.tested
    y, groups, block = target.y[on], target.groups[on], split.block[on]
    made = shown(draws, len(y))
    agreed = _agreeing if made == draws else _agreeing_many
    agreement = agreed(predictions[:, on], len(target.classes))
    shuffles = shuffled_within(y, groups, block, made, rng)
    null = np.concatenate([agreement(labels) for labels in shuffles])
    observed = agreement(y[None])[0]
    scale = _per_agreement(y, target)
    p = [null_p(observed[i] * scale, null[:, i] * scale, draws) for i in range(len(predictions))]
    return np.array(p), np.asarray(null.std(0, ddof=1) * scale, np.float64)


def _agreeing(predictions: Labels, classes: int) -> Callable[[Labels], Floats]:
    """Agreement `[draws, columns]` of labels `[draws, n]` with predictions `[columns, n]`.

    Hits; for numbers, the sum of products.
    """
    if not classes:
        products = predictions.T.astype(np.float64)
        return lambda labels: labels.astype(np.float64) @ products
    parts = [(c, (predictions == c).T.astype(np.float32)) for c in range(classes)]
    return lambda labels: np.asarray(sum(_is(labels, c) @ part for c, part in parts), np.float64)


def _agreeing_many(predictions: Labels, classes: int) -> Callable[[Labels], Floats]:
    """The same for so many samples that no array of them and all classes is made."""
    if not classes:
        return _agreeing(predictions, classes)
    return lambda labels: np.stack([(labels == one).sum(1) for one in predictions], 1).astype("f8")


def _is(labels: Labels, c: int) -> Floats:
    return np.asarray(labels == c, np.float32)


def _per_agreement(y: Ints, target: Target) -> float:
    """What one unit of agreement (hits, or products of numbers) adds to accuracy or R2.

    With predictions fixed and numbers only exchanged, R2 changes by twice the products over the
    numbers' sum of squares about their mean.
    """
    if not target.numbers:
        return 1 / len(y)
    return float(2 / max(((y - y.mean()) ** 2).sum(), 1e-30))
