"""A column's standardized rows in a scratch file, or their principal components."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vlmlens_plugins.analysis.probe.cross_validation import within
from vlmlens_plugins.analysis.probe.equal_rows import RowCodes
from vlmlens_plugins.analysis.probe.large.partition import Bools, Ints, Partition
from vlmlens_plugins.analysis.probe.large.scratch import Scratch
from vlmlens_plugins.analysis.probe.large.spectrum import Singles, Spectrum, principal
from vlmlens_plugins.analysis.probe.large.sums import Floats, Rows, Sums, counted, no_labels

Tick = Callable[[float], None]

_TIMES = 16
_LEAST = 32_768
"""Covariances are those of so many rows, or of so many times as many rows as features."""


@dataclass(frozen=True, slots=True)
class Axes:
    """What takes a row to its coordinates.

    Args:
        shift: float64 `[d]`, the mean of the rows that are learned from.
        factor: float64 `[d]`, 1 / their deviation; 0 for a constant feature.
        size: The root of the mean squared length of rows less the mean.
        spectrum: Of the coordinates.
        basis: float32 `[d, k]`, principal components; None where coordinates are the standardized
            features themselves.
    """

    shift: Floats
    factor: Floats
    size: float
    spectrum: Spectrum
    basis: Singles | None = None

    @classmethod
    def of(
        cls, rows: Rows, learned: Bools, components: int | None, scratch: Scratch, tick: Tick
    ) -> Axes:
        """Read a column twice.

        Args:
            rows: The column.
            learned: bool `[n]`, the rows that give scale and components.
            components: The most components; None: all features.
            scratch: Where sums may lie.
            tick: Told the share of the rows that are read.

        Raises:
            NotFinite: A value is not finite.
        """
        partition = Partition.of(learned[None])
        none = np.zeros(partition.parts, bool)
        sums = Sums.collect(rows, partition, no_labels, scratch, within(tick, 0, 0.5), none)
        middle, factor = sums.scaling(partition.sets[0])
        shift, told = sums.shift + middle, within(tick, 0.5, 0.5)
        some = _drawn(learned, rows.width)
        whole = components is None or rows.width <= components
        sides = {} if whole else {"side": rows.width}
        standardized = _standardized(rows, some, shift, factor, told)
        spectrum = Spectrum.of(standardized, rows.width, **sides)
        if components is None or whole:
            return cls(shift, factor, sums.size, spectrum)
        basis, own = principal(spectrum, components)
        return cls(shift, factor, sums.size, own, basis)

    def coordinates(self, rows: Floats) -> Singles:
        """float32 `[b, k]` of rows less the shift."""
        found = (rows * self.factor).astype(np.float32)
        return found if self.basis is None else found @ self.basis

    def raw(self, weights: Singles) -> Floats:
        """Weights `[d, ...]` for rows less the shift, of weights `[k, ...]` for coordinates."""
        found = weights if self.basis is None else np.tensordot(self.basis, weights, 1)
        return np.asarray(found * self.factor.reshape(-1, *[1] * (weights.ndim - 1)))


def _drawn(learned: Bools, width: int) -> Bools:
    """Bool `[n]`: some of the rows, at random."""
    wanted = max(_LEAST, _TIMES * width)
    some = np.random.default_rng(0).random(len(learned)) * learned.sum() < wanted
    return np.asarray(learned & some)


def _standardized(
    rows: Rows, some: Bools, shift: Floats, factor: Floats, tick: Tick
) -> Iterator[Singles]:
    for places, block in counted(rows, tick, rows.count):
        values = block[some[places]].astype(np.float64)
        yield ((values - shift) * factor).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Projected:
    """The coordinates of a column's rows.

    Args:
        values: float32 `[n, k]`, on disk.
        means: float64 `[sets, k]`, of the rows of each set.
        kept: The share of the variance of the standardized rows that are learned from, 0 to 1.
        codes: int64 `[n]`, equal for equal rows of the column.
    """

    values: npt.NDArray[Any]
    means: Floats
    kept: float
    codes: Ints

    @classmethod
    def of(cls, rows: Rows, axes: Axes, sets: Bools, scratch: Scratch, tick: Tick) -> Projected:
        """Read a column once.

        Args:
            rows: The column.
            axes: Its coordinates.
            sets: bool `[sets, n]`, what is learned from.
            scratch: Where they go.
            tick: Told the share of the rows that are read.

        Raises:
            CompositionError: They do not fit on the disk.
        """
        values = scratch.array((rows.count, len(axes.spectrum.values)), "<f4")
        codes = RowCodes(axes.shift, axes.size, rows.count)
        partition = Partition.of(sets)
        totals = np.zeros((partition.parts, values.shape[1]))
        learned, squares = np.asarray(sets.any(0)), 0.0
        for places, block in counted(rows, tick, rows.count):
            centred = block.astype(np.float64)
            codes.see(places, centred)
            centred -= axes.shift
            values[places] = found = axes.coordinates(centred)
            for part, own in partition.split(places):
                totals[part] += found[own].sum(0, dtype=np.float64)
            if axes.basis is not None:
                squares += float(np.square(found[learned[places]], dtype=np.float64).sum())
        of_all = int(learned.sum()) * int((axes.factor > 0).sum())
        kept = 1.0 if axes.basis is None or not of_all else min(1.0, squares / of_all)
        means = partition.sets @ totals / np.maximum(sets.sum(1, keepdims=True), 1)
        return cls(values, means, kept, codes.codes)
