"""Control labels: shuffled by whole groups, or drawn at random for each type."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Labels = npt.NDArray[np.generic]
"""int64 class numbers or float64 numbers."""
_AT_ONCE = 5_000_000
"""Labels that are shuffled at a time."""


def shuffled(y: Labels, groups: Ints, draws: int, rng: np.random.Generator) -> Labels:
    """`[draws, n]`: labels shuffled so that they say nothing of the samples any more.

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
    result = np.empty((draws, len(y)), y.dtype)
    np.put_along_axis(result, target, y[source], axis=1)
    return result


def random_by_type(y: Labels, types: Ints, draws: int, rng: np.random.Generator) -> Labels:
    """`[draws, n]`: every type gets one label, drawn from the labels as often as they occur.

    The control task of J. Hewitt and P. Liang, "Designing and interpreting probes with control
    tasks" (EMNLP 2019): it can be learned only by telling types apart and memorizing them.
    """
    names, of_sample = np.unique(types, return_inverse=True)
    return rng.choice(y, size=(draws, len(names)))[:, of_sample]


def constant_in_groups(y: Labels, groups: Ints) -> bool:
    """Whether every group has a single label."""
    order = np.lexsort((y, groups))
    same = groups[order][1:] == groups[order][:-1]
    return bool((y[order][1:] == y[order][:-1])[same].all())


def shuffled_within(
    y: Labels, groups: Ints, block: Ints, draws: int, rng: np.random.Generator, *, chunk: int = 500
) -> Iterator[Labels]:
    """Chunks `[<= chunk, n]` of `draws` shufflings, each within every block by itself."""
    chunk = max(1, min(chunk, _AT_ONCE // len(y)))
    for start in range(0, draws, chunk):
        size = min(chunk, draws - start)
        result = np.empty((size, len(y)), y.dtype)
        for i in np.unique(block):
            rows = np.flatnonzero(block == i)
            result[:, rows] = shuffled(y[rows], groups[rows], size, rng)
        yield result


def _group_orders(groups: Ints, draws: int, rng: np.random.Generator) -> Ints:
    inverse = np.unique(groups, return_inverse=True)[1]
    count = int(inverse.max()) + 1
    ranks = rng.permuted(np.tile(np.arange(count), (draws, 1)), axis=1)
    keys = ranks[:, inverse] + rng.random((draws, len(groups)))
    return np.argsort(keys, axis=1)
