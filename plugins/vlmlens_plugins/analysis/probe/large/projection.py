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


@dataclass(frozen=True, slots=True)
class Axes:
    """What takes a row to its coordinates: `(row - shift) @ basis`.

    Args:
        shift: float64 `[d]`, the mean of the rows that are learned from.
        basis: float64 `[d, k]`; features are divided by their deviation in it.
        kept: The share of the standardized rows' variance that the coordinates keep, 0 to 1.
        size: The root of the mean squared length of rows less the mean.
    """

    shift: Floats
    basis: Floats
    kept: float
    size: float

    @classmethod
    def of(cls, rows: Rows, learned: Bools, components: int, scratch: Scratch, tick: Tick) -> Axes:
        """Read a column once.

        Where there are no more features than components, the coordinates are the standardized
        features themselves.

        Args:
            rows: The column.
            learned: bool `[n]`, the rows that give scale and components.
            components: The most components.
            scratch: Where a matrix `[d, d]` lies.
            tick: Told the share of the rows that are read.

        Raises:
            NotFinite: A value is not finite.
        """
        partition = Partition.of(learned[None])
        whole = rows.width <= components
        sums = Sums.collect(rows, partition, no_labels, None if whole else scratch, tick)
        own = partition.sets[0]
        middle, factor = sums.scaling(own)
        size = sums.size
        if whole:
            return cls(sums.shift + middle, np.diag(factor), 1.0, size)
        matrix = sums.centred(own, np.empty((rows.width, rows.width), order="F"))
        sums.products.clear()
        vectors, kept = _components(matrix, factor, components)
        return cls(sums.shift + middle, factor[:, None] * vectors, kept, size)


def _components(matrix: Floats, factor: Floats, number: int) -> tuple[Floats, float]:
    """The first principal components `[d, k]` of scaled products, and the share that they keep."""
    from scipy.linalg import eigh

    matrix *= factor[:, None]
    matrix *= factor
    width, whole = len(matrix), float(np.trace(matrix))
    some = (width - number, width - 1)
    values, vectors = eigh(matrix, lower=True, overwrite_a=True, subset_by_index=some)
    kept = float(values.sum()) / whole if whole > 0 else 1.0
    return np.asarray(vectors[:, ::-1]), min(1.0, kept)


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

    @classmethod
    def of(
        cls, rows: Rows, axes: Axes, partition: Partition, scratch: Scratch, tick: Tick
    ) -> Projected:
        """Read a column once."""
        size = axes.basis.shape[1]
        values = scratch.array((rows.count, size), "<f4")
        products = np.zeros((partition.parts, size + 1, size + 1))
        codes = RowCodes(axes.shift, axes.size, rows.count)
        for places, block in counted(rows, tick, rows.count):
            centred = block.astype(np.float64)
            codes.see(places, centred)
            centred -= axes.shift
            found = centred @ axes.basis
            values[places] = found
            found = np.hstack([found, np.ones((len(found), 1))])
            for part, own in partition.split(places):
                add_products(products[part].T, found[own])
        lower = np.triu(products)
        return cls(values, lower + np.triu(products, 1).swapaxes(1, 2), codes.codes)
