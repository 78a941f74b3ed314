"""Grouped stratified folds, and label shufflings that respect groups."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import StratifiedGroupKFold

from vlmlens.errors import MissingAnnotation

Ints = npt.NDArray[np.int64]
_TRIES = 20


def assign_folds(y: Ints, groups: Ints, *, folds: int, seed: int) -> Ints:
    """int64 `[n]`: the fold in which each sample is held out.

    scikit-learn's `StratifiedGroupKFold`; where a draw leaves a class out of a training part,
    other draws are tried.

    Args:
        y: int64 `[n]`, class numbers, each with at least `folds` samples.
        groups: int64 `[n]`, group numbers.
        folds: Number of folds.
        seed: Seed of the draw.

    Raises:
        MissingAnnotation: Every draw leaves a class out of a training part.
    """
    for attempt in range(_TRIES):
        splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed + attempt)
        fold = np.empty(len(y), np.int64)
        for i, (_, test) in enumerate(splitter.split(np.zeros(len(y)), y, groups)):
            fold[test] = i
        if all(len(np.unique(y[fold != i])) == y.max() + 1 for i in range(folds)):
            return fold
    raise MissingAnnotation(
        f"With {folds} folds some class is missing from a training part: its groups are too few.",
        subject="folds",
        hint="Use fewer folds, more groups, or a higher min_per_class.",
    )


def shuffled(y: Ints, groups: Ints, draws: int, rng: np.random.Generator) -> Ints:
    """int64 `[draws, n]`: labels shuffled so that they say nothing of the samples any more.

    Groups are the units that are exchanged (A. Winkler et al., "Permutation inference for the
    general linear model", NeuroImage 92, 2014). Where every group has one label, whole groups
    exchange labels, so that each group still has one. Where labels differ within groups, the
    labels are laid out group after group in random order (in random order within each), and dealt
    out again over another such order: labels that stood together mostly stay together.
    """
    if constant_in_groups(y, groups):
        _, first = np.unique(groups, return_index=True)
        of_groups = rng.permuted(np.tile(y[first], (draws, 1)), axis=1)
        return of_groups[:, np.unique(groups, return_inverse=True)[1]]
    source = _group_orders(groups, draws, rng)
    target = _group_orders(groups, draws, rng)
    result = np.empty((draws, len(y)), np.int64)
    np.put_along_axis(result, target, y[source], axis=1)
    return result


def constant_in_groups(y: Ints, groups: Ints) -> bool:
    """Whether every group has a single label."""
    pairs = np.unique(np.stack([groups, y]), axis=1)
    return int(pairs.shape[1]) == len(np.unique(groups))


def shuffled_within_folds(
    y: Ints, groups: Ints, fold: Ints, draws: int, rng: np.random.Generator, *, chunk: int = 500
) -> Iterator[Ints]:
    """Chunks int64 `[<= chunk, n]` of `draws` shufflings, each within every fold by itself."""
    for start in range(0, draws, chunk):
        size = min(chunk, draws - start)
        result = np.empty((size, len(y)), np.int64)
        for i in np.unique(fold):
            rows = np.flatnonzero(fold == i)
            result[:, rows] = shuffled(y[rows], groups[rows], size, rng)
        yield result


def _group_orders(groups: Ints, draws: int, rng: np.random.Generator) -> Ints:
    inverse = np.unique(groups, return_inverse=True)[1]
    count = int(inverse.max()) + 1
    ranks = rng.permuted(np.tile(np.arange(count), (draws, 1)), axis=1)
    keys = ranks[:, inverse] + rng.random((draws, len(groups)))
    return np.argsort(keys, axis=1)
