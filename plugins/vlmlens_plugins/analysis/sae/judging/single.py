"""The best single feature for each value of a concept: chosen on some samples, judged on others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from vlmlens_plugins.analysis.sae.judging.areas import areas, resampled
from vlmlens_plugins.analysis.sae.judging.concepts import Concept
from vlmlens_plugins.analysis.sae.judging.resampling import Interval, Resampling
from vlmlens_plugins.analysis.sae.peaks import Peaks

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
SAMPLES = 4096
_FEWEST = 3


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
        auc: The mean AUC over values in held-out samples, with its interval over groups. Of two
            values the one counts that is told better in the samples to learn from: a feature that
            fires for one need have no counterpart that fires for the other.
        drawn: float64 `[draws]`: that mean in each resample.
        each: The same of each dictionary, where `auc` is the mean of several.
        noise: How much these vary because the samples are few: the variance over resamples of one
            of them less their mean, times n / (n - 1).
    """

    concept: str
    best: tuple[Best, ...]
    auc: Interval
    drawn: Floats
    each: tuple[float, ...] = ()
    noise: float = 0.0


@dataclass(frozen=True, slots=True)
class Choice:
    """For each value of a concept, the feature that tells it best in the samples to learn from.

    Args:
        features: int64 `[values]`; -1: no feature fires in 3 samples.
        learnt: float64 `[values]`: its AUC there.
    """

    features: npt.NDArray[np.int64]
    learnt: Floats


def singles(
    concepts: Sequence[Concept], learn: Peaks, held: Peaks, groups: Resampling
) -> dict[str, Singles]:
    """Choose features by the samples to learn from, and measure them in the held-out ones.

    A sample's score is the largest code among its rows. A feature stands for a value if it fires
    more strongly where the value holds.

    Args:
        concepts: The concepts.
        learn: What the features do in the samples to learn from.
        held: The same of the held-out samples.
        groups: Of the held-out samples.

    Returns:
        By name of the concept.
    """
    chosen = choices(concepts, learn)
    return {each.name: _single(each, chosen[each.name], held, groups) for each in concepts}


def choices(concepts: Sequence[Concept], learn: Peaks) -> dict[str, Choice]:
    """The best features by concept; those of the same samples are looked for together."""
    together: dict[tuple[int, ...], list[tuple[Concept, Bools]]] = {}
    for each in concepts:
        places, positive = having(each, learn.samples)
        together.setdefault(tuple(places), []).append((each, positive))
    found = {}
    for rows, members in together.items():
        whole = np.concatenate([positive for _, positive in members], 1)
        features, learnt = _best(learn.largest[list(rows)], whole)
        ends = np.cumsum([positive.shape[1] for _, positive in members])
        parts = zip(np.split(features, ends[:-1]), np.split(learnt, ends[:-1]), strict=True)
        for (each, _), part in zip(members, parts, strict=True):
            found[each.name] = Choice(*part)
    return found


def _single(concept: Concept, chosen: Choice, held: Peaks, groups: Resampling) -> Singles:
    features, values = chosen.features, chosen.learnt
    places, held_out = having(concept, held.samples)
    scores = np.zeros((len(places), len(features)), np.float32)
    known = features >= 0
    scores[:, known] = held.largest[places][:, features[known]].toarray()
    weights = groups.at(places)
    per_value = [
        _measured(scores[:, i], held_out[:, i], weights) for i in range(len(concept.values))
    ]
    best = tuple(
        Best(value, int(feature) if feature >= 0 else None, float(auc), one)
        for value, feature, auc, (one, _) in zip(
            concept.values, features, values, per_value, strict=True
        )
    )
    counted = [int(np.argmax(values))] if len(values) == 2 else range(len(values))
    drawn = _mean(np.stack([per_value[i][1] for i in counted]))
    mean = _mean(np.array([[per_value[i][0]] for i in counted]))
    return Singles(concept.name, best, groups.interval(float(mean[0]), drawn), drawn)


def _mean(areas_by_value: Floats) -> Floats:
    """The mean over values where it is known; NaN where none is."""
    known = np.isfinite(areas_by_value)
    total = np.where(known, areas_by_value, 0).sum(0)
    found: Floats = np.where(known.any(0), total / np.maximum(known.sum(0), 1), np.nan)
    return found


def averaged(found: Sequence[Singles], groups: Resampling) -> Singles:
    """The mean over several dictionaries; the features are those of the first."""
    drawn = np.mean([each.drawn for each in found], 0)
    mean = float(np.mean([each.auc.value for each in found]))
    each = tuple(one.auc.value for one in found)
    apart = np.stack([one.drawn - drawn for one in found])
    noise = float(np.nanvar(apart, axis=1).sum()) / (len(found) - 1)
    auc = groups.interval(mean, drawn)
    return replace(found[0], auc=auc, drawn=drawn, each=each, noise=noise)


def having(concept: Concept, samples: Sequence[int]) -> tuple[list[int], Bools]:
    """The places of samples whose value is known, and for each value who has it.

    Only the first 4096 samples count; they are in random order.

    Returns:
        Places `[n]`, and bool `[n, values]`.
    """
    places = concept.known(samples[:SAMPLES])
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
    if not len(alive):
        return np.full(positive.shape[1], -1), np.full(positive.shape[1], 0.5)
    found = areas(table[:, alive], positive)
    top = found.argmax(1)
    return alive[top], found[np.arange(len(top)), top]
