"""Nearest neighbours from other groups, and their votes under any labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vlmlens_plugins.analysis.concepts.options import Metric
from vlmlens_plugins.analysis.concepts.rows import Rows, centred, parts, unit

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
_BLOCK = 256
_VOTES = 4_000_000
"""So many votes are counted at a time."""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The nearest samples of each sample, none of them of its own group.

    Args:
        places: int64 `[n, k]`, their numbers, nearest first.
        there: bool `[n, k]`, whether there is such a neighbour.
    """

    places: Ints
    there: Bools

    @property
    def tested(self) -> Bools:
        """Bool `[n]`, whether a sample has a neighbour at all."""
        tested: Bools = np.any(self.there, axis=1)
        return tested

    def votes(self, labels: npt.NDArray[np.generic], classes: int) -> Ints:
        """int64 `[draws, n]`: the label that most neighbours have; of as many, the nearer one.

        Args:
            labels: `[draws, n]`, numbers from 0.
            classes: How many labels there are.
        """
        found = np.empty(labels.shape, np.int64)
        step = max(1, _VOTES // (len(labels) * self.places.shape[1]))
        for start in range(0, len(self.places), step):
            part = slice(start, start + step)
            found[:, part] = self._votes(labels, part, classes)
        return found

    def _votes(self, labels: npt.NDArray[np.generic], part: slice, classes: int) -> Ints:
        """The votes on some samples."""
        k = self.places.shape[1]
        weights = 1 + 0.5 ** np.arange(2.0, k + 2)
        weighed = np.where(self.there[part], weights, 0)
        told = labels[:, self.places[part]]
        best = np.full(told.shape[:2], -1.0)
        found = np.zeros(told.shape[:2], np.int64)
        for label in range(classes):
            counted = np.einsum("dnk,nk->dn", (told == label).astype(np.float64), weighed)
            found[counted > best] = label
            best = np.maximum(best, counted)
        return found


def find_neighbours(rows: Rows, groups: Ints, k: int, metric: Metric) -> Neighbours:
    """The `k` nearest rows of other groups, by exact search in blocks.

    Args:
        rows: float32 `[n, width]`.
        groups: int64 `[n]`.
        k: How many.
        metric: cosine is between centred rows.
    """
    near = centred(rows)
    near = unit(near, out=near) if metric == "cosine" else near
    squares = np.concatenate([np.square(near[part]).sum(1) for part in parts(near)])
    count = min(k, len(rows) - 1)
    places = np.zeros((len(rows), count), np.int64)
    there = np.zeros((len(rows), count), bool)
    for start in range(0, len(rows), _BLOCK):
        part = slice(start, start + _BLOCK)
        far = squares[None] - 2 * (near[part] @ near.T)
        far[groups[part][:, None] == groups[None]] = np.inf
        places[part], there[part] = _smallest(far, count)
    return Neighbours(places, there)


def _smallest(far: npt.NDArray[np.float32], count: int) -> tuple[Ints, Bools]:
    """Places of the smallest numbers in each row, rising, and whether these are finite."""
    first = np.sort(np.argpartition(far, count - 1, axis=1)[:, :count], axis=1)
    found = np.take_along_axis(far, first, 1)
    order = np.argsort(found, axis=1, kind="stable")
    ordered = np.take_along_axis(found, order, 1)
    return np.take_along_axis(first, order, 1), np.isfinite(ordered)
