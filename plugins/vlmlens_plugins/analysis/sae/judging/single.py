"""The best single feature for each value of a concept: chosen on some samples, judged on others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from vlmlens_plugins.analysis.sae.judging.areas import areas, resampled
from vlmlens_plugins.analysis.sae.judging.concepts import Concept
from vlmlens_plugins.analysis.sae.judging.variance import Interval, Resampling
from vlmlens_plugins.analysis.sae.peaks import Peaks

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
_FEWEST = 3
_AT_ONCE = 4096


@dataclass(frozen=True, slots=True)
class Best:
    """The feature that tells a value best in the samples to learn from.

    Args:
        value: The value of the concept.
        feature: The number of the feature; None: no feature fires in 3 samples.
        learnt: Its AUC in the samples that it was chosen by.
        judged: Its AUC in the held-out samples.
    """

    value: str
    feature: int | None
    learnt: float
    judged: float


@dataclass(frozen=True, slots=True)
class Singles:
    """What single features of a basis tell of a concept.

    Args:
        concept: Its name.
        best: For each value.
        auc: The mean AUC over values in held-out samples, with its interval over groups.
        drawn: float64 `[draws]`: that mean in each resample.
    """

    concept: str
    best: tuple[Best, ...]
    auc: Interval
    drawn: Floats


def singles(concept: Concept, learn: Peaks, held: Peaks, groups: Resampling) -> Singles:
    """Choose features by the samples to learn from, and measure them in the held-out ones.

    A sample's score is the largest code among its rows. A feature stands for a value if it fires
    more strongly where the value holds.

    Args:
        concept: The concept.
        learn: What the features do in the samples to learn from.
        held: The same of the held-out samples.
        groups: Of the held-out samples.
    """
    rows, positive = having(concept, learn.samples)
    features, values = _best(learn.largest[rows], positive)
    places, held_out = having(concept, held.samples)
    scores = np.zeros((len(places), len(features)), np.float32)
    known = features >= 0
    scores[:, known] = held.largest[places][:, features[known]].toarray()
    weights = groups.weights[:, places]
    per_value = [
        _measured(scores[:, i], held_out[:, i], weights) for i in range(len(concept.values))
    ]
    best = tuple(
        Best(value, int(feature) if feature >= 0 else None, float(auc), one)
        for value, feature, auc, (one, _) in zip(
            concept.values, features, values, per_value, strict=True
        )
    )
    drawn = np.nanmean(np.stack([draws for _, draws in per_value]), 0)
    mean = float(np.nanmean([one for one, _ in per_value]))
    return Singles(concept.name, best, groups.interval(mean, drawn), drawn)


def having(concept: Concept, samples: Sequence[int]) -> tuple[list[int], Bools]:
    """The places of samples whose value is known, and for each value who has it.

    Returns:
        Places `[n]`, and bool `[n, values]`.
    """
    places = concept.known(samples)
    known = np.array([concept.value[samples[place]] for place in places], dtype=object)
    return places, np.stack([known == value for value in concept.values], 1)


def _measured(
    scores: npt.NDArray[np.floating], positive: Bools, weights: Floats
) -> tuple[float, Floats]:
    once = np.ones((1, len(scores)))
    return float(resampled(scores, positive, once)[0]), resampled(scores, positive, weights)


def _best(largest: csr_array, positive: Bools) -> tuple[npt.NDArray[np.int64], Floats]:
    """For each value the feature of the largest AUC, -1 if none can be had, and that AUC."""
    table = largest.tocsc()
    alive = np.flatnonzero(np.diff(table.indptr) >= _FEWEST)
    features = np.full(positive.shape[1], -1)
    values = np.full(positive.shape[1], 0.5)
    for start in range(0, len(alive), _AT_ONCE):
        some = alive[start : start + _AT_ONCE]
        found = areas(table[:, some].toarray(), positive)
        top = found.argmax(1)
        best = found[np.arange(len(top)), top]
        better = (best > values) | (features < 0)
        features[better], values[better] = some[top[better]], best[better]
    return features, values
