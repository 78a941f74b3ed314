"""Count, mean and products of rows, added up block by block: what least squares and PCA need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Float64s = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Moments:
    """Sums over rows, less a shift that keeps them small. Those of disjoint rows add up.

    Args:
        count: Number of rows.
        shift: float64 `[d]`, what was taken from each row; equal in all that are added.
        total: float64 `[d]`, the sum of the shifted rows.
        products: float64 `[d, d]`, the sum of their outer products.
    """

    count: int
    shift: Float64s
    total: Float64s
    products: Float64s

    @classmethod
    def zero(cls, shift: npt.NDArray[Any]) -> Moments:
        """Of no rows. The shift is best near the mean, such as that of a first block."""
        width = len(shift)
        return cls(0, shift.astype(np.float64), np.zeros(width), np.zeros((width, width)))

    def plus(self, rows: npt.NDArray[Any]) -> Moments:
        """With these rows `[n, d]` too."""
        shifted = rows.astype(np.float64) - self.shift
        return Moments(
            self.count + len(rows),
            self.shift,
            self.total + shifted.sum(0),
            self.products + shifted.T @ shifted,
        )

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.count + other.count,
            self.shift,
            self.total + other.total,
            self.products + other.products,
        )

    def __sub__(self, other: Moments) -> Moments:
        return Moments(
            self.count - other.count,
            self.shift,
            self.total - other.total,
            self.products - other.products,
        )

    @property
    def mean(self) -> Float64s:
        """float64 `[d]`, the mean row."""
        return self.shift + self.total / max(1, self.count)

    @property
    def centered(self) -> Float64s:
        """float64 `[d, d]`, the sum of outer products of rows less their mean."""
        found: Float64s = self.products - np.outer(self.total, self.total) / max(1, self.count)
        return found

    def principal(self, number: int) -> tuple[Float64s, Float64s]:
        """The principal axes: variances `[k]`, the largest first, and unit rows `[k, d]`."""
        from scipy.linalg import eigh

        width = len(self.shift)
        first = max(0, width - number)
        values, vectors = eigh(self.centered, subset_by_index=(first, width - 1))
        return values[::-1] / max(1, self.count - 1), np.ascontiguousarray(vectors.T[::-1])
