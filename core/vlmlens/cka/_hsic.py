"""HSIC of every two columns, as kernels are made block by block and strip by strip."""

from __future__ import annotations

import numpy as np

from vlmlens.cka._blocks import LEAST_SAMPLES
from vlmlens.cka._jackknife import Floats, Ints, as_cosines, jackknife, runs

_CONSTANT = 1e-12
"""A column's variance as a share of its mean square, below which there is only rounding."""


class Block:
    """Sums of the kernels of a block with a zero diagonal: of all rows, and without each fold.

    Args:
        columns: How many kernels there are.
        folds: `[m]`, ascending: the fold of each row.
    """

    def __init__(self, columns: int, folds: Ints) -> None:
        self.rows, self.runs = len(folds), list(runs(folds))
        count = len(self.runs)
        self.inner, self._less = np.zeros((columns,) * 2), np.zeros((count, columns, columns))
        self.totals, self.rest = np.zeros(columns), np.zeros((count, columns))
        self.squares, self.rest_squares = np.zeros_like(self.inner), np.zeros_like(self._less)

    def add(self, strip: Floats, first: int) -> None:
        """Add rows of the kernels, which are changed.

        Args:
            strip: `[columns, r, m]`.
            first: Number of the first of these rows.
        """
        columns, height, _ = strip.shape
        own = np.arange(height)
        strip[:, own, own + first] = 0.0
        parts = np.add.reduceat(strip, [start for _, start, _ in self.runs], axis=2)
        sums = parts.sum(2)
        self.totals += sums.sum(1)
        self.squares += sums @ sums.T
        for k, (_, start, stop) in enumerate(self.runs):
            rest = sums - parts[:, :, k]
            low, high = max(start - first, 0), min(stop - first, height)
            if low < high:
                rest[:, low:high] = 0.0
                rows = strip[:, low:high].reshape(columns, -1)
                near = strip[:, low:high, start:stop].reshape(columns, -1)
                self.inner += (of_rows := rows @ rows.T)
                self._less[k] += 2 * of_rows - near @ near.T
            self.rest[k] += rest.sum(1)
            self.rest_squares[k] += rest @ rest.T

    def hsic(self) -> Floats:
        """`[columns, columns]`, of all rows."""
        return _unbiased(self.inner, self.totals, self.squares, self.rows)

    def hsic_without(self, k: int, kept: int) -> Floats:
        """`[columns, columns]`, without the rows of the fold in `runs[k]`, which leave `kept`."""
        inner = self.inner - self._less[k]
        return _unbiased(inner, self.rest[k], self.rest_squares[k], kept)


class Hsic:
    """HSIC of every two columns: means over blocks, of all samples and without each fold."""

    def __init__(self, columns: int, count: int) -> None:
        self.count = count
        self._sizes = np.zeros(self.count, np.intp)
        self._whole = np.zeros((columns, columns))
        self._without = np.zeros((self.count, columns, columns))
        self._short = np.zeros(self.count)

    def add(self, block: Block) -> None:
        """Add a block."""
        own = block.rows * block.hsic()
        self._whole += own
        left = np.ones(self.count, bool)
        for k, (fold, start, stop) in enumerate(block.runs):
            left[fold] = False
            kept = block.rows - (stop - start)
            self._sizes[fold] += stop - start
            if kept < LEAST_SAMPLES:
                self._short[fold] = np.nan
            else:
                self._without[fold] += kept * block.hsic_without(k, kept)
        self._without[left] += own

    def cka(self, left_out: frozenset[int]) -> tuple[Floats, Floats]:
        """Values and errors `[c, c]`, without those of some columns."""
        value = as_cosines(self._whole)
        without = as_cosines(self._without) + self._short[:, None, None]
        for c in left_out:
            value[c] = value[:, c] = np.nan
        with np.errstate(invalid="ignore"):
            return value, jackknife(value, without, self._sizes)


def _unbiased(inner: Floats, totals: Floats, squares: Floats, m: int) -> Floats:
    """HSIC_1 of kernels K, L of m rows with a zero diagonal.

    `(sum(K L) + sum(K) sum(L) / ((m-1)(m-2)) - 2 (K 1)'(L 1) / (m-2)) / (m (m-3))`

    Args:
        inner: `[c, c]`, `sum(K L)`.
        totals: `[c]`, `sum(K)`.
        squares: `[c, c]`, `(K 1)'(L 1)`.
        m: Rows.
    """
    both = np.outer(totals, totals) / ((m - 1) * (m - 2))
    found: Floats = (inner + both - 2 / (m - 2) * squares) / (m * (m - 3))
    return found


class Spread:
    """Which columns are constant or not finite, as rows are read."""

    def __init__(self, columns: int) -> None:
        self._square, self._variance = np.zeros(columns), np.zeros(columns)

    def shift(self, values: Floats) -> Floats:
        """`[width]`, the mean of rows `[n, width]`."""
        with np.errstate(invalid="ignore", over="ignore"):
            mean: Floats = values.mean(0)
        return mean

    def centred(
        self, column: int, values: Floats, shift: Floats | None = None, *, counted: bool = True
    ) -> Floats:
        """Rows less a shift, which changes no estimate and keeps digits; zeros if not finite.

        Args:
            column: The column's number.
            values: `[n, width]`.
            shift: `[width]`, the same for all rows of a block; None: the mean of these.
            counted: Whether the rows tell how the column spreads; False: they come again.
        """
        with np.errstate(invalid="ignore", over="ignore"):
            own: Floats = values - (self.shift(values) if shift is None else shift)
            square = float(np.vdot(own, own))
            if counted:
                self._square[column] += np.vdot(values, values)
                self._variance[column] += square
        known = np.isfinite(square) and np.isfinite(self._variance[column])
        return own if known else np.zeros_like(own)

    @property
    def constant(self) -> frozenset[int]:
        """Columns whose rows are the same up to rounding."""
        flat = self._variance <= _CONSTANT * self._square
        return frozenset(np.flatnonzero(flat & np.isfinite(self._square)).tolist())

    @property
    def broken(self) -> frozenset[int]:
        """Columns with NaN or infinity."""
        return frozenset(np.flatnonzero(~np.isfinite(self._variance + self._square)).tolist())
