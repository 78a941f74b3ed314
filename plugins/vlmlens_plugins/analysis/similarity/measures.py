"""The three measures of how alike columns are, each with its interval and permuted baseline."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import isqrt

import numpy as np
import numpy.typing as npt

from vlmlens.cka import Floats, Ints, Similarities, as_cosines, folds_of, jackknife, products
from vlmlens_plugins.analysis._statistics import generator
from vlmlens_plugins.analysis.similarity.geometry import (
    centred_kernel,
    closeness,
    neighbours,
    ranks,
)
from vlmlens_plugins.analysis.similarity.options import SimilarityOptions

Halves = npt.NDArray[np.float32]
Geometry = Callable[[Floats], Floats]
"""Makes a matrix `[n, n]` of rows `[n, width]`."""

CKA, RSA, NEIGHBOURS = "cka", "rsa", "neighbours"
_FEWEST_PER_NEIGHBOUR = 2
"""Samples per neighbour: with fewer, most samples are neighbours of each other."""


@dataclass(frozen=True, slots=True)
class Measure:
    """One measure of `a` columns with `b` others.

    Args:
        name: `CKA`, `RSA` or `NEIGHBOURS`.
        value: `[a, b]`; NaN where it is not defined.
        low: Lower ends of 95 % intervals; `high` likewise. NaN where there are too few groups.
        error: Their standard errors.
        folds: Parts of the groups that were left out for the errors.
        permuted: Means with the rows of one side permuted.
        p: How often the largest permuted number of all pairs reaches the number of the subset.
    """

    name: str
    value: Floats
    low: Floats
    high: Floats
    error: Floats
    folds: int
    permuted: Floats
    p: Floats


@dataclass(frozen=True)
class Pairs:
    """Which columns are held against which.

    Args:
        first: How many columns stand first.
        second: How many follow, of another run; 0: the first are compared with each other.
    """

    first: int
    second: int

    @property
    def count(self) -> int:
        """All columns."""
        return self.first + self.second

    def cut(self, square: npt.NDArray[np.float64]) -> Floats:
        """`[..., a, b]` of `[..., c, c]`."""
        return square[..., : self.first, self.first if self.second else 0 :]

    @property
    def different(self) -> npt.NDArray[np.bool_]:
        """`[a, b]`: the pairs that are no column with itself, each once."""
        if self.second:
            return np.ones((self.first, self.second), bool)
        return np.triu(np.ones((self.first, self.first), bool), 1)


@dataclass(frozen=True)
class Settings:
    """How baselines are made.

    Args:
        permutations: How many.
        seed: Of folds and permutations.
        step: Called after each column and permutation.
    """

    permutations: int
    seed: int
    step: Callable[[], None] = lambda: None

    def told(self, made: Floats) -> Floats:
        """What was made, once it is told."""
        self.step()
        return made


def subset_of(groups: Sequence[str], columns: int, options: SimilarityOptions, seed: int) -> Ints:
    """Numbers of samples of different groups, at random, as many as options and memory allow."""
    most = min(options.subset, isqrt((options.memory << 20) // (24 * columns)))
    of_group: dict[str, int] = {}
    for place in generator(seed, "similarity", "subset").permutation(len(groups)):
        of_group.setdefault(groups[place], int(place))
    return np.array(list(of_group.values())[:most], np.intp)


def geometries(options: SimilarityOptions, samples: int) -> dict[str, Geometry]:
    """By measure, what makes a matrix of a column's rows."""
    found: dict[str, Geometry] = {
        CKA: centred_kernel,
        RSA: lambda rows: ranks(closeness(rows, options.distance)),
    }
    if samples >= _FEWEST_PER_NEIGHBOUR * options.neighbours:
        found[NEIGHBOURS] = lambda rows: neighbours(
            closeness(rows, options.distance), options.neighbours
        )
    return found


def measured(
    name: str,
    rows: Callable[[int], Floats],
    geometry: Geometry,
    pairs: Pairs,
    known: Similarities | None,
    settings: Settings,
) -> Measure:
    """One measure.

    Args:
        name: Of the measure.
        rows: Reads the rows `[n, width]` of a column, of the subset.
        geometry: One of `geometries`.
        pairs: Which columns are compared.
        known: The numbers, where they are known from more samples; None: they are the subset's.
        settings: Permutations, the seed, and what is told of each step.
    """
    stack = np.stack([settings.told(geometry(rows(c))) for c in range(pairs.count)])
    own = _similarities(name, stack, settings.seed)
    draws = _permuted(_unit(stack), pairs, settings.permutations, settings.seed)
    null = np.stack([settings.told(draw) for draw in draws])
    said = own if known is None else known
    ends = said.interval
    value, error, low, high = map(pairs.cut, (said.value, said.error, *ends))
    p = _corrected(pairs.cut(own.value), null, pairs.different)
    return Measure(name, value, low, high, error, said.folds, null.mean(0), p)


def _similarities(name: str, matrices: Floats, seed: int) -> Similarities:
    """Numbers of the subset with their errors; each of its samples is a group."""
    n = matrices.shape[1]
    folds = np.sort(folds_of([str(i) for i in range(n)], generator(seed, "similarity", name)))
    count = int(folds.max()) + 1
    if name == RSA:
        ones = 1.0 - np.eye(n)
        whole, without = products(np.concatenate([matrices, ones[None]]), folds, count)
        inner, rest = _less_means(whole), _less_means(without)
    else:
        inner, rest = products(matrices, folds, count)
    value = as_cosines(inner)
    error = jackknife(value, as_cosines(rest), np.bincount(folds, minlength=count))
    return Similarities(value, error, count)


def _less_means(inner: Floats) -> Floats:
    """Covariances from inner products, of which the last matrix is of ones."""
    sums, count = inner[..., :-1, -1], inner[..., -1:, -1:]
    found: Floats = inner[..., :-1, :-1] - sums[..., :, None] * sums[..., None, :] / count
    return found


def _unit(matrices: Floats) -> Halves:
    """Matrices of length 1; zeros stay."""
    lengths = np.sqrt(np.square(matrices).sum((1, 2), keepdims=True))
    found: Halves = (matrices / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)
    return found


def _permuted(unit: Halves, pairs: Pairs, draws: int, seed: int) -> Iterator[Floats]:
    """`[a, b]` per draw: rows and columns of the matrices of one side in random order."""
    n = unit.shape[1]
    flat = unit.reshape(len(unit), -1)
    first, second = flat[: pairs.first], flat[pairs.first if pairs.second else 0 :]
    moved, fixed = (first, second) if len(first) < len(second) else (second, first)
    rng = generator(seed, "similarity", "permutations")
    for _ in range(draws):
        order = rng.permutation(n)
        places = (order[:, None] * n + order[None, :]).ravel()
        found = fixed @ np.take(moved, places, axis=1).T
        yield (found if fixed is first else found.T).astype(np.float64)


def _corrected(value: Floats, null: Floats, different: npt.NDArray[np.bool_]) -> Floats:
    """p-values corrected for all pairs by the largest number of each permutation.

    P. Westfall and S. Young, "Resampling-based multiple testing" (1993): single-step maxT.
    """
    counted = different & np.isfinite(value)
    if not counted.any():
        return np.full_like(value, np.nan)
    largest = np.sort(null[:, counted].max(1))
    reached = len(largest) - np.searchsorted(largest, value - 1e-6)
    found: Floats = np.where(np.isfinite(value), (1 + reached) / (1 + len(largest)), np.nan)
    return found
