"""k-sparse probing: how few features of a basis tell a value, beside a probe of the whole rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_array

from vlmlens_plugins.analysis.probe.logistic import fit_logistic
from vlmlens_plugins.analysis.sae.judging.areas import resampled
from vlmlens_plugins.analysis.sae.judging.concepts import Concept
from vlmlens_plugins.analysis.sae.judging.single import having
from vlmlens_plugins.analysis.sae.peaks import Peaks

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
SIZES = (1, 2, 5)
_STEPS = 12
_STRENGTH = 1.0
_DENSE_STRENGTH = 0.1


@dataclass(frozen=True, slots=True)
class Probed:
    """AUC in held-out samples of probes of a concept, means over its values.

    Args:
        concept: Its name.
        sparse: By number of features.
        dense: Of the probe of mean and largest rows, the same for all bases.
    """

    concept: str
    sparse: dict[int, float]
    dense: float

    def concentration(self, size: int) -> float:
        """The share of what the dense probe tells beyond chance that so few features tell.

        NaN where the dense probe tells nothing (AUC below 0.6).
        """
        if not self.dense >= 0.6:
            return float("nan")
        return (self.sparse[size] - 0.5) / (self.dense - 0.5)


@dataclass(frozen=True, slots=True)
class Dense:
    """Whole rows, pooled by sample.

    Args:
        samples: Numbers of samples, `[s]`.
        rows: float32 `[s, 2 width]`: mean and largest value of each dimension over a sample's rows.
    """

    samples: tuple[int, ...]
    rows: npt.NDArray[np.float32]


def probed(concept: Concept, learn: Peaks, held: Peaks, dense: float) -> Probed:
    """Probes of 1, 2 and 5 features.

    Features are those whose mean peak differs most between samples with and without a value
    (Gurnee et al. 2023), in the samples to learn from; a logistic regression on them is fitted
    there and judged on held-out samples.

    Args:
        concept: The concept.
        learn: What the features do in the samples to learn from.
        held: The same of the held-out samples.
        dense: The AUC of the dense probe.
    """
    rows, positive = having(concept, learn.samples)
    places, held_out = having(concept, held.samples)
    chosen = _chosen(learn.largest[rows], positive, max(SIZES))
    x = _columns(learn.largest[rows], chosen)
    other = _columns(held.largest[places], chosen)
    mean, deviation = x.mean(1, keepdims=True), x.std(1, keepdims=True)
    deviation[deviation == 0] = 1
    x, other = (x - mean) / deviation, (other - mean) / deviation
    sparse = {}
    for size in SIZES:
        scores = _scores(x[:, :, :size], positive, other[:, :, :size])
        sparse[size] = _mean_area(scores, held_out)
    return Probed(concept.name, sparse, dense)


def averaged(found: Sequence[Probed]) -> Probed:
    """The mean over several dictionaries."""
    sparse = {size: float(np.mean([each.sparse[size] for each in found])) for size in SIZES}
    return replace(found[0], sparse=sparse)


def dense_area(concept: Concept, learn: Dense, held: Dense) -> float:
    """The AUC in held-out samples of a probe of whole rows, the mean over values."""
    rows, positive = having(concept, learn.samples)
    places, held_out = having(concept, held.samples)
    x, other = learn.rows[rows].astype(np.float64), held.rows[places].astype(np.float64)
    mean, deviation = x.mean(0), x.std(0)
    deviation[deviation == 0] = 1
    for table in (x, other):
        np.subtract(table, mean, out=table)
        np.divide(table, deviation, out=table)
    fits = fit_logistic(
        torch.from_numpy(x).float()[None],
        torch.from_numpy(positive.astype(np.int64)),
        torch.ones(1, len(x), dtype=torch.bool),
        torch.full((1, 1), _DENSE_STRENGTH / 1.0),
        classes=2,
    )
    scores = fits.outputs(torch.from_numpy(other).float()[None])[0, :, 0, 0].double().numpy()
    return _mean_area(scores.T, held_out)


def _chosen(largest: csr_array, positive: Bools, size: int) -> npt.NDArray[np.int64]:
    """int64 `[values, size]`: the features of the largest difference of means, that one first."""
    table = largest.astype(np.float64)
    total = np.asarray(table.sum(0)).ravel()
    having_it = np.asarray((table.T @ positive.astype(np.float64)).T)
    count = positive.sum(0)[:, None]
    difference = np.abs(having_it / count - (total - having_it) / (len(positive) - count))
    size = min(size, difference.shape[1])
    return np.argsort(-difference, axis=1, kind="stable")[:, :size]


def _columns(largest: csr_array, chosen: npt.NDArray[np.int64]) -> Floats:
    """float64 `[values, samples, size]`."""
    table = largest.tocsc()
    return np.stack([table[:, each].toarray().astype(np.float64) for each in chosen])


def _scores(x: Floats, positive: Bools, other: Floats) -> Floats:
    """`[values, others]`: what logistic regressions, fitted by Newton's method, say of others.

    The objective is `sum(loss) + |w|^2 / 2`, with a free intercept.
    """
    ones = np.ones((*x.shape[:2], 1))
    given, y = np.concatenate([x, ones], 2), positive.T.astype(np.float64)
    ridge = np.eye(given.shape[2]) * _STRENGTH
    ridge[-1, -1] = 1e-6
    weights = np.zeros((len(given), given.shape[2]))
    for _ in range(_STEPS):
        p = 1 / (1 + np.exp(-np.einsum("vnk,vk->vn", given, weights)))
        slope = np.einsum("vnk,vn->vk", given, p - y) + weights @ ridge
        bend = np.einsum("vnk,vn,vnl->vkl", given, p * (1 - p), given) + ridge
        step = np.linalg.solve(bend, slope[:, :, None])[:, :, 0]
        weights -= step * np.minimum(1, 4 / np.maximum(np.abs(step).max(1, keepdims=True), 1e-12))
    found: Floats = np.einsum("vnk,vk->vn", other, weights[:, :-1])
    return found


def _mean_area(scores: Floats, positive: Bools) -> float:
    once = np.ones((1, scores.shape[1]))
    found = [resampled(each, positive[:, i], once)[0] for i, each in enumerate(scores)]
    return float(np.nanmean(found))
