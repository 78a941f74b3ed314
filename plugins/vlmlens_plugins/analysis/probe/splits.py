"""Which samples a probe is trained on, and which it is tested on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from vlmlens.errors import MissingAnnotation

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
_TRIES = 20
_QUANTILES = 5
_MANY = 20_000
"""From so many groups on, they are dealt out to folds without trying every fold for each."""


@dataclass(frozen=True)
class Split:
    """Cells of samples that are held out together, and what is learned from for each.

    Args:
        cell: int64 `[n]`, the cell in which each sample is held out; -1 for never.
        train: bool `[cells, n]`, the samples that the cell's probe learns from.
        block: int64 `[n]`, held-out labels are exchanged within these for p-values.
    """

    cell: Ints
    train: Bools
    block: Ints

    @property
    def cells(self) -> int:
        """Number of cells."""
        return len(self.train)

    @cached_property
    def tested(self) -> Bools:
        """Bool `[n]`: the samples that are held out at some time."""
        found: Bools = self.cell >= 0
        return found

    @cached_property
    def learned(self) -> Bools:
        """Bool `[n]`: the samples that some probe learns from."""
        found: Bools = np.asarray(self.train.any(axis=0))
        return found


def exchanged_within(split: Split, groups: Ints) -> Ints:
    """int64 `[n]`: the parts within which controls exchange labels, if possible the split's blocks.

    Folds are stratified by the true labels. Shuffled over all folds at once, a class that is rarer
    in a training part is more frequent in its held-out part, and a control scores below chance.

    Where a group lies in several blocks (a random split), labels are exchanged over all of them: a
    group must keep one label, or a control could not gain by recognizing it as the probe can.
    """
    used = split.learned | split.tested
    pairs = np.unique(np.stack([groups[used], split.block[used]]), axis=1)
    if len(np.unique(pairs[0])) < pairs.shape[1]:
        return np.zeros_like(split.block)
    return split.block


def folded(fold: Ints) -> Split:
    """Plain cross-validation: every fold is held out once and learned from in the others."""
    cells = np.arange(int(fold.max()) + 1)
    return Split(fold, fold[None] != cells[:, None], fold)


def assign_folds(y: npt.NDArray[np.generic], groups: Ints | None, *, folds: int, seed: int) -> Ints:
    """int64 `[n]`: the fold in which each sample is held out.

    scikit-learn's `StratifiedGroupKFold` (`StratifiedKFold` without groups; numbers are stratified
    by fifths); where a draw leaves a class out of a training part, other draws are tried.

    Args:
        y: `[n]`, class numbers, each with at least `folds` samples, or float numbers.
        groups: int64 `[n]`, group numbers, or None.
        folds: Number of folds.
        seed: Seed of the draw.

    Raises:
        MissingAnnotation: Every draw leaves a class out of a training part.
    """
    strata = _strata(y)
    for attempt in range(_TRIES):
        fold = _dealt(strata, groups, folds, seed + attempt)
        present = {i: len(np.unique(strata[fold != i])) for i in range(folds)}
        if y.dtype.kind == "f" or all(n == strata.max() + 1 for n in present.values()):
            return fold
    raise MissingAnnotation(
        f"With {folds} folds, a class is missing from a training part: it has too few groups.",
        subject="folds",
        hint="Use fewer folds, more groups, or a higher min_per_class.",
    )


def by_both(fold: Ints, units: Sequence[str], folds: int, seed: int) -> Split:
    """Held out by group and by `units` (templates) at once: neither is shared with the training.

    Units are dealt into at most `folds` parts; a sample is tested by a probe that saw neither its
    group nor its unit, so every pair of a fold and a part is a cell.

    Raises:
        MissingAnnotation: There is one unit only.
    """
    names = list(dict.fromkeys(units))
    if len(names) < 2:
        raise MissingAnnotation(
            "The samples have only one prompt template, so none can be held out.",
            subject="split",
            hint="Use split: group, or give samples an attribute named template.",
        )
    parts = min(folds, len(names))
    order = np.random.default_rng(seed).permutation(len(names))
    place = {names[i]: int(rank) % parts for rank, i in enumerate(order)}
    part = np.array([place[unit] for unit in units])
    pairs, cell = np.unique(np.stack([fold, part]), axis=1, return_inverse=True)
    train = (fold[None] != pairs[0][:, None]) & (part[None] != pairs[1][:, None])
    cell = np.asarray(cell, np.int64).reshape(-1)
    return Split(cell, train, fold)


def by_value(values: Sequence[str | None], groups: Ints) -> Split:
    """Each value (say, red cubes) is held out once; its samples' groups are not learned from.

    Within a cell labels may all be equal, so for p-values they are exchanged over all cells.

    Raises:
        MissingAnnotation: There is one value only.
    """
    names = sorted({value for value in values if value is not None})
    if len(names) < 2:
        raise MissingAnnotation(
            f"The samples have {len(names)} value{'s' * (not names)} to hold out; two are needed.",
            subject="hold_out",
            hint="Name an attribute with several values, or several joined by +: shape+color.",
        )
    cell = np.array([-1 if value is None else names.index(value) for value in values], np.int64)
    train = np.stack([~np.isin(groups, groups[cell == i]) for i in range(len(names))])
    return Split(cell, train, np.zeros(len(cell), np.int64))


def across(first: int, groups: Ints) -> Split:
    """Learn from the first samples and test on the others; no group on both sides."""
    later = np.arange(len(groups)) >= first
    train = ~later & ~np.isin(groups, groups[later])
    return Split(np.where(later, 0, -1).astype(np.int64), train[None], later.astype(np.int64))


def learnable(split: Split, y: npt.NDArray[np.generic]) -> Split:
    """The split without cells that cannot be tested: fewer than two classes to learn from.

    A sample whose class is not among those that its probe learned from is not held out either.

    Raises:
        MissingAnnotation: Nothing is left.
    """
    cell = split.cell.copy()
    for i in range(split.cells):
        known = np.unique(y[split.train[i]])
        fair = len(known) >= 2 and (y.dtype.kind == "f" or np.isin(y, known))
        cell[(split.cell == i) & ~np.broadcast_to(fair, len(y))] = -1
    kept = np.unique(cell[cell >= 0])
    if not len(kept):
        raise MissingAnnotation(
            "With this split, no probe has two classes to train on and a known one to test.",
            subject="split",
            hint="Use another split, or more samples.",
        )
    renumbered = np.where(cell < 0, -1, np.searchsorted(kept, cell))
    return Split(renumbered, split.train[kept], split.block)


def inner_folds(y: npt.NDArray[np.generic], groups: Ints, folds: int, seed: int) -> Ints:
    """int64 `[n]`: grouped parts for choosing a strength inside of every training part."""
    count = len(np.unique(groups))
    return _dealt(_strata(y), groups, min(folds, count), seed)


def _dealt(strata: Ints, groups: Ints | None, folds: int, seed: int) -> Ints:
    """int64 `[n]`: a fold for each sample, stratified, each group in one fold.

    scikit-learn tries every fold for every group, which takes minutes for a million. Many groups
    are dealt out instead, class by class (the most frequent one of each) and from large to small.
    """
    if groups is None or int(groups.max()) < _MANY:
        kind = StratifiedKFold if groups is None else _GroupFolds
        splitter = kind(folds, shuffle=True, random_state=seed)
        fold = np.empty(len(strata), np.int64)
        for i, (_, test) in enumerate(splitter.split(np.zeros(len(strata)), strata, groups)):
            fold[test] = i
        return fold
    pairs, sizes = np.unique(np.stack([groups, strata]), axis=1, return_counts=True)
    largest = np.lexsort((sizes, pairs[0]))
    names, last = np.unique(pairs[0][largest][::-1], return_index=True)
    main = pairs[1][largest][::-1][last]
    size = np.bincount(groups, minlength=int(names.max()) + 1)[names]
    order = np.lexsort((np.random.default_rng(seed).random(len(names)), -size, main))
    of_group = np.empty(int(names.max()) + 1, np.int64)
    of_group[names[order]] = np.arange(len(order)) % folds
    return of_group[groups]


class _GroupFolds(StratifiedGroupKFold):  # type: ignore[misc]
    """The folds of scikit-learn, several times as fast: a group's folds are tried all at once."""

    def _find_best_fold(
        self, y_counts_per_fold: Floats, y_cnt: Ints, group_y_counts: Floats
    ) -> int:
        every = np.arange(len(y_counts_per_fold))
        tried = np.repeat(y_counts_per_fold[None], len(every), axis=0)
        tried[every, every] += group_y_counts
        uneven = (tried / y_cnt).std(axis=1).mean(axis=1).tolist()
        samples = y_counts_per_fold.sum(axis=1).tolist()
        best = 0
        for i in range(1, len(every)):
            near = abs(uneven[i] - uneven[best]) <= 1e-8 + 1e-5 * uneven[best]  # `np.isclose`
            if uneven[i] < uneven[best] or (near and samples[i] < samples[best]):
                best = i
        return best


def _strata(y: npt.NDArray[np.generic]) -> Ints:
    if y.dtype.kind != "f":
        return y.astype(np.int64)
    ranks = np.argsort(np.argsort(y, kind="stable"), kind="stable")
    return (ranks * _QUANTILES // len(y)).astype(np.int64)
