"""A column's rows on their first principal components, in a scratch file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vlmlens_plugins.analysis.probe.equal_rows import RowCodes
from vlmlens_plugins.analysis.probe.large.partition import Bools, Ints, Partition
from vlmlens_plugins.analysis.probe.large.scratch import Scratch
from vlmlens_plugins.analysis.probe.large.sums import (
    Floats,
    Rows,
    Sums,
    add_products,
    counted,
    no_labels,
)

Tick = Callable[[float], None]

_ROWS = 32_768
"""Rows that principal components are taken from, about; many times as many as components."""


@dataclass(frozen=True, slots=True)
class Axes:
    """What takes a row to its coordinates: `(row - shift) @ basis`.

    Args:
        shift: float64 `[d]`, the mean of the rows that are learned from.
        basis: float64 `[d, k]`; features are divided by their deviation in it.
        features: Number of features that are not constant: the variance of a standardized row.
        size: The root of the mean squared length of rows less the mean.
    """

    shift: Floats
    basis: Floats
    features: int
    size: float

    @classmethod
    def of(cls, rows: Rows, learned: Bools, components: int, scratch: Scratch, tick: Tick) -> Axes:
        """Read a column once.

        Where there are no more features than components, the coordinates are the standardized
        features themselves. Else components are those of some 30,000 rows, drawn at random.

        Args:
            rows: The column.
            learned: bool `[n]`, the rows that give scale and components.
            components: The most components.
            scratch: Where a matrix `[d, d]` lies.
            tick: Told the share of the rows that are read.

        Raises:
            NotFinite: A value is not finite.
        """
        whole = rows.width <= components
        drawn = learned & (np.random.default_rng(0).random(len(learned)) * learned.sum() < _ROWS)
        partition = Partition.of(np.stack([learned, drawn]))
        own, some = partition.sets
        multiplied = some & (not whole)
        sums = Sums.collect(rows, partition, no_labels, scratch, tick, multiplied)
        middle, factor = sums.scaling(own)
        features = int((factor > 0).sum())
        if whole:
            return cls(sums.shift + middle, np.diag(factor), features, sums.size)
        matrix = sums.centred(some, np.empty((rows.width, rows.width), order="F"))
        sums.products.clear()
        basis = factor[:, None] * _components(matrix, factor, components)
        return cls(sums.shift + middle, basis, features, sums.size)


def _components(matrix: Floats, factor: Floats, number: int) -> Floats:
    """The first principal components `[d, k]` of scaled products."""
    from scipy.linalg import eigh

    matrix *= factor[:, None]
    matrix *= factor
    some = (len(matrix) - number, len(matrix) - 1)
    _, vectors = eigh(matrix, lower=True, overwrite_a=True, subset_by_index=some)
    return np.asarray(vectors[:, ::-1])


@dataclass(frozen=True, slots=True)
class Projected:
    """The coordinates of a column's rows.

    Args:
        values: float32 `[n, k]`, on disk.
        products: float64 `[parts, k + 1, k + 1]`, sums of outer products of the rows of each part,
            each with a 1 at its end.
        codes: int64 `[n]`, equal for equal rows of the column.
    """

    values: npt.NDArray[Any]
    products: Floats
    codes: Ints

    def kept(self, axes: Axes, learned: Bools) -> float:
        """The share of the standardized rows' variance in the coordinates of parts, 0 to 1."""
        if self.values.shape[1] == len(axes.basis) or not axes.features:
            return 1.0
        own = self.products[learned].sum(0)
        return min(1.0, float(np.trace(own[:-1, :-1]) / (own[-1, -1] * axes.features)))

    @classmethod
    def of(
        cls, rows: Rows, axes: Axes, partition: Partition, scratch: Scratch, tick: Tick
    ) -> Projected:
        """Read a column once."""
        size = axes.basis.shape[1]
        values = scratch.array((rows.count, size), "<f4")
        products = np.zeros((partition.parts, size + 1, size + 1))
        codes = RowCodes(axes.shift, axes.size, rows.count)
        basis = axes.basis.astype(np.float32)
        for places, block in counted(rows, tick, rows.count):
            centred = block.astype(np.float64)
            codes.see(places, centred)
            centred -= axes.shift
            values[places] = found = _times(centred, axes.basis, basis)
            found = np.hstack([found, np.ones((len(found), 1))])
            for part, own in partition.split(places):
                add_products(products[part].T, found[own])
        lower = np.triu(products)
        return cls(values, lower + np.triu(products, 1).swapaxes(1, 2), codes.codes)


def _times(rows: Floats, basis: Floats, single: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
    """Coordinates `[k, c]`, in single precision where it holds the numbers."""
    with np.errstate(over="ignore", invalid="ignore"):
        found = rows.astype(np.float32) @ single
    return found if np.isfinite(found).all() else rows @ basis
