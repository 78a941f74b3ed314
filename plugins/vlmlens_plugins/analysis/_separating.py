"""Whether numbers separate labels: areas under the curve, beside shuffled labels."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from vlmlens.samples import Sample
from vlmlens_plugins.analysis._statistics import permutation_p
from vlmlens_plugins.analysis._tasks import rows_by_task

Floats = npt.NDArray[np.float64]
ALPHA = 0.05
_LEAST = 3
_MOST_LABELS = 20
_AT_ONCE = 256
_FIRST, _CLEAR = 999, 50
"""After so many draws, those are enough that show so many areas as large as the label's."""


@dataclass(frozen=True, slots=True)
class Target:
    """What numbers may separate.

    Args:
        name: A task whose labels are meant, or an attribute.
        labels: Per sample, the label; None where it has none or is not meant.
    """

    name: str
    labels: tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class Separated:
    """How well some numbers separate one label from the others.

    Args:
        label: The label that they separate best.
        auc: The chance that a unit with the label has a higher value than one without it.
        areas: The area of each label.
        shuffled: The mean, over shuffled labels, of the area of the best label, at least 0.5.
        p: One-sided p-value of the best label among shuffled ones.
        least: The smallest p-value that so few units can give.
        units: Independent units.
    """

    label: str
    auc: float
    areas: tuple[tuple[str, float], ...]
    shuffled: float
    p: float
    least: float
    units: int


def targets_of(samples: Sequence[Sample], by: Sequence[str]) -> list[Target]:
    """Labels in each task, and attributes over all samples; those with two values at least."""
    found: list[Target] = []
    for name in by:
        if name == "label":
            tasks = rows_by_task(samples)
            for task, rows in tasks.items():
                own = set(rows)
                labels = [s.label if i in own else None for i, s in enumerate(samples)]
                found.append(Target(task, tuple(labels)))
        else:
            given = [sample.attributes.get(name) for sample in samples]
            labels = [None if value is None else str(value) for value in given]
            taken = name in {each.name for each in found}
            found.append(Target(f"{name} (attribute)" if taken else name, tuple(labels)))
    return [each for each in found if len(usual(each.labels)) > 1]


def separated(
    values: Floats, labels: Sequence[str], draws: int, rng: np.random.Generator
) -> Separated | None:
    """How well numbers separate labels, against shuffled ones; None if there are too few labels.

    Args:
        values: `[units]`; units are independent of each other.
        labels: The label of each; rare ones are left out.
        draws: How often labels are shuffled; fewer times if that shows that they do as well.
        rng: Of the shuffles.
    """
    names = usual(labels)
    if len(names) < 2:
        return None
    kept = [i for i, label in enumerate(labels) if label in set(names)]
    values, labels = values[kept], [labels[i] for i in kept]
    found = areas(values, labels, names)
    best = int(np.argmax(np.abs(found - 0.5) + 1e-9 * (found > 0.5)))
    far = float(np.abs(found - 0.5).max())
    numbered = [names.index(label) for label in labels]
    null = _shuffled(values, numbered, len(names), min(draws, _FIRST), rng)
    if np.count_nonzero(null >= far) < _CLEAR and draws > _FIRST:
        more = _shuffled(values, numbered, len(names), draws - _FIRST, rng)
        null = np.concatenate([null, more])
    return Separated(
        names[best],
        float(found[best]),
        tuple(zip(names, found.tolist(), strict=True)),
        float(null.mean()) + 0.5,
        permutation_p(far, null),
        _least(Counter(labels), draws),
        len(values),
    )


def draws_for(tests: int, permutations: int) -> int:
    """How often labels are shuffled, so that Holm's method can find something among `tests`."""
    return max(permutations, math.ceil(2 * tests / ALPHA))


def areas(values: Floats, labels: Sequence[str], names: Sequence[str]) -> Floats:
    """float64 `[names]`: for each label, the area under the curve of it against all others.

    Ties count half (Mann-Whitney).

    >>> areas(np.array([1.0, 2.0, 3.0, 3.0]), ["a", "a", "b", "b"], ["a", "b"]).tolist()
    [0.0, 1.0]
    """
    ranks = _ranks(values)
    held = np.array([[label == name for label in labels] for name in names], np.float64)
    return _areas(held @ ranks, held.sum(1), len(values))


def sparse_areas(values: csr_array, labels: Sequence[str], names: Sequence[str]) -> Floats:
    """`areas` of many columns of numbers that are mostly 0, in time that grows with the others.

    Args:
        values: `[units, columns]`.
        labels: The label of each unit.
        names: The labels to separate.

    Returns:
        float64 `[names, columns]`.

    >>> values = csr_array(np.array([[0.0, 2.0], [0.0, 0.0], [3.0, -1.0]]))
    >>> sparse_areas(values, ["a", "b", "b"], ["a"]).tolist()
    [[0.25, 1.0]]
    """
    units, columns = values.shape
    kept = values.tocsc()
    kept.eliminate_zeros()
    column = np.repeat(np.arange(columns), np.diff(kept.indptr))
    zeros = units - np.diff(kept.indptr)
    negative = np.bincount(column[kept.data < 0], minlength=columns)
    of_zero = negative + (zeros + 1) / 2
    kept.data = _sparse_ranks(kept.data, column, kept.indptr[:-1], zeros) - of_zero[column]
    held = np.array([[label == name for label in labels] for name in names], np.float64)
    inside = held.sum(1)[:, None]
    sums = (kept.T @ held.T).T + inside * of_zero
    return _areas(sums, inside, units)


def _sparse_ranks(
    data: Floats,
    column: npt.NDArray[np.int64],
    starts: npt.NDArray[np.int64],
    zeros: npt.NDArray[np.int64],
) -> Floats:
    """Ranks of the numbers that are not 0 in their columns, from 1."""
    order = np.lexsort((data, column))
    own, ordered = column[order], data[order]
    rank = np.arange(1, len(data) + 1) - starts[own] + np.where(ordered > 0, zeros[own], 0)
    begins = np.ones(len(data), bool)
    begins[1:] = (own[1:] != own[:-1]) | (ordered[1:] != ordered[:-1])
    run = np.cumsum(begins) - 1
    mean = np.bincount(run, rank) / np.maximum(np.bincount(run), 1)
    found = np.empty(len(data))
    found[order] = mean[run]
    return found


def usual(labels: Sequence[str | None]) -> list[str]:
    """The most frequent labels, none of them rare."""
    counts = Counter(label for label in labels if label is not None)
    return sorted(name for name, times in counts.most_common(_MOST_LABELS) if times >= _LEAST)


def _shuffled(
    values: Floats, labels: Sequence[int], names: int, draws: int, rng: np.random.Generator
) -> Floats:
    """float64 `[draws]`: how far the best area is from one half, under shuffled labels."""
    order = np.argsort(labels, kind="stable")
    counts = np.bincount(np.asarray(labels), minlength=names)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    ranks, found = _ranks(values)[order], []
    for start in range(0, draws, _AT_ONCE):
        rows = min(_AT_ONCE, draws - start)
        moved = rng.permuted(np.tile(ranks, (rows, 1)), axis=1)
        sums = np.add.reduceat(moved, starts, axis=1)
        found.append(np.abs(_areas(sums, counts, len(values)) - 0.5).max(1))
    return np.concatenate(found)


def _areas(sums: Floats, counts: npt.NDArray[np.generic], total: int) -> Floats:
    inside = counts.astype(np.float64)
    area: Floats = (sums - inside * (inside + 1) / 2) / (inside * (total - inside))
    return area


def _ranks(values: Floats) -> Floats:
    """Ranks from 1; equal values share the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: Floats = (ends - (counts - 1) / 2)[place]
    return ranks


def _least(counts: Counter[str], draws: int) -> float:
    """The smallest p-value that the numbers of units allow: all of a label on one side."""
    total = sum(counts.values())
    fewest = max(math.comb(total, times) for times in counts.values())
    return max(2 / fewest, 1 / (1 + draws))
