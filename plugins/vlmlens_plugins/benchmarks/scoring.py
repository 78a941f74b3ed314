"""Scores of answers: by the card's metrics, with intervals over groups of samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vlmlens.samples import Sample
from vlmlens_plugins.analysis._statistics import bootstrap_weights, interval
from vlmlens_plugins.benchmarks.card import Answer, Floats, Metrics, Rule

_CELLS = 4_000_000


def answered(texts: Sequence[str], samples: Sequence[Sample], rule: Rule) -> list[Answer]:
    """The texts, read and credited by a rule; the texts are in the order of the samples."""
    answers = []
    for text, sample in zip(texts, samples, strict=True):
        said = rule.read(text, sample)
        answers.append(Answer(text, said, 0.0 if said is None else rule.credit(said, sample)))
    return answers


def scored(
    metrics: Metrics, samples: Sequence[Sample], answers: Sequence[Answer]
) -> dict[str, float]:
    """Each metric over all samples, in its own units; NaN where it is not defined."""
    counts = metrics.counts(samples, answers)
    found = metrics.scores({name: np.asarray(each.sum()) for name, each in counts.items()})
    return {name: float(value) for name, value in found.items()}


def intervals(
    metrics: Metrics,
    samples: Sequence[Sample],
    answers: Sequence[Answer],
    *,
    draws: int,
    rng: np.random.Generator,
) -> dict[str, tuple[float, float]]:
    """Each metric's 95 % percentile interval from resampled groups (`Sample.split_group`).

    NaN for metrics whose counts span groups (`spans` of the metrics, where they have one).

    Args:
        metrics: The metrics.
        samples: At least one.
        answers: One for each sample.
        draws: How many resamples.
        rng: Where randomness is from.
    """
    found = resampled(metrics, samples, answers, draws=draws, rng=rng)
    return {name: ends(values) for name, values in found.items()}


def spanning(metrics: Metrics) -> frozenset[str]:
    """The metrics that no resampled groups tell of, since their counts are of several groups."""
    return frozenset(getattr(metrics, "spans", ()))


def resampled(
    metrics: Metrics,
    samples: Sequence[Sample],
    answers: Sequence[Answer],
    *,
    draws: int,
    rng: np.random.Generator,
) -> dict[str, Floats]:
    """Each metric of each resample of groups, float64 `[draws]`; NaN where it is not defined.

    Equal samples, draws and states of `rng` give the same resamples, whatever the answers are: so
    the differences of two calls are paired. The arguments are those of `intervals`.
    """
    named = metrics.counts(samples, answers)
    counts = np.stack(list(named.values()), axis=-1)
    _, group = np.unique([sample.split_group for sample in samples], return_inverse=True)
    sums: Floats = np.zeros((int(group.max()) + 1, counts.shape[1]))
    np.add.at(sums, group, counts)
    at_once = max(1, _CELLS // len(sums))
    parts = [
        bootstrap_weights(len(sums), min(at_once, draws - start), rng) @ sums
        for start in range(0, draws, at_once)
    ]
    drawn = np.concatenate(parts)
    found = metrics.scores({name: drawn[:, i] for i, name in enumerate(named)})
    return found | {name: np.full(draws, np.nan) for name in spanning(metrics) & found.keys()}


def ends(values: Floats, level: float = 0.95) -> tuple[float, float]:
    """The percentile interval of resamples, without those that are not defined; NaN of none."""
    known = values[np.isfinite(values)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = interval(known, level)
    return float(low), float(high)
