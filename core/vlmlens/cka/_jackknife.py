"""Cosines of matrices, and their standard errors from leaving out groups."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]

LEAST_GROUPS = 5
"""Fewer give no interval."""

_LEVEL = 0.975


@dataclass(frozen=True, slots=True)
class Similarities:
    """A number for every two of `c` columns, with its jackknife error.

    Args:
        value: `[c, c]`; NaN where it is not defined.
        error: `[c, c]`, standard errors; NaN where there are too few groups.
        folds: Parts of the groups that were left out, one at a time.
    """

    value: Floats
    error: Floats
    folds: int

    @property
    def interval(self) -> tuple[Floats, Floats]:
        """Ends `[c, c]` of 95 % intervals by Student's t; nothing exceeds 1."""
        from scipy.special import stdtrit

        reach = stdtrit(max(self.folds - 1, 1), _LEVEL) * self.error
        return self.value - reach, np.minimum(self.value + reach, 1.0)


def products(matrices: Floats, folds: Ints, count: int) -> tuple[Floats, Floats]:
    """Inner products of symmetric matrices, of all rows and without those of each fold.

    Args:
        matrices: float64 `[c, n, n]`.
        folds: `[n]`, ascending: the fold of each row and column.
        count: How many folds there are.

    Returns:
        `[c, c]`; and `[count, c, c]`, without the rows and columns of a fold.
    """
    columns = len(matrices)
    whole = np.zeros((columns, columns))
    less = np.zeros((count, columns, columns))
    for fold, start, stop in runs(folds):
        rows = matrices[:, start:stop].reshape(columns, -1)
        inner = np.ascontiguousarray(matrices[:, start:stop, start:stop]).reshape(columns, -1)
        of_rows = rows @ rows.T
        whole += of_rows
        less[fold] = 2 * of_rows - inner @ inner.T
    return whole, whole - less


def jackknife(value: Floats, without: Floats, sizes: Ints) -> Floats:
    """Standard errors from leaving out folds of unequal size.

    F. Busing, E. Meijer and R. van der Leeden, "Delete-m jackknife for unequal m", Statistics and
    Computing 9 (1999).

    Args:
        value: `[...]`, from all samples.
        without: `[folds, ...]`, without each fold.
        sizes: `[folds]`, samples of each fold.

    Returns:
        `[...]`; NaN where a part is.
    """
    if len(sizes) < LEAST_GROUPS:
        return np.full_like(value, np.nan)
    shape = (-1, *(1 for _ in value.shape))
    parts = (sizes.sum() / sizes).reshape(shape)
    mean = len(sizes) * value - ((1 - 1 / parts) * without).sum(0)
    pseudo = parts * value - (parts - 1) * without
    error: Floats = np.sqrt((np.square(pseudo - mean) / (parts - 1)).mean(0))
    return error


def as_cosines(inner: Floats) -> Floats:
    """`[..., c, c]`: inner products over the lengths; NaN where one is not positive."""
    squares = np.diagonal(inner, axis1=-2, axis2=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        lengths = np.sqrt(np.where(squares > 0, squares, np.nan))
        found: Floats = inner / (lengths[..., :, None] * lengths[..., None, :])
    return found


def runs(folds: Ints) -> Iterator[tuple[int, int, int]]:
    """Each fold that is there, with where its rows begin and end."""
    starts = np.flatnonzero(np.diff(folds, prepend=-1))
    for start, stop in zip(starts, [*starts[1:], len(folds)], strict=True):
        yield int(folds[start]), int(start), int(stop)
