"""Samples that are equal although they have different names, found by their activations."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from vlmlens_plugins.analysis.probe.splits import Split

Ints = npt.NDArray[np.int64]
Array = npt.NDArray[Any]
_NEAR = 1e-3
"""Rows are equal if they are nearer than this, in units of the rows' distance from their mean."""
_DIRECTIONS = 8
_FACTOR = np.int64(1_000_003)


class EqualRows:
    """Finds samples whose rows are equal, up to rounding, in every column that it sees.

    A single column would not do: at the first layers, the last token is the same for all pictures.
    """

    def __init__(self) -> None:
        self._kind: Ints | None = None

    def see(self, x: Array) -> None:
        """Take in a column `[n, features]`."""
        rows = x.astype(np.float32)
        rows -= rows.mean(0)
        size = float(np.sqrt(np.square(rows, dtype=np.float64).sum(1).mean()))
        kind = np.zeros(len(rows), np.int64) if self._kind is None else self._kind
        if size > 0 and len(np.unique(kind)) < len(kind):
            kind = _divided(kind, rows / size)
        self._kind = kind

    def on_both_sides(self, split: Split, groups: Ints) -> int:
        """How many samples are tested by a probe that learned from an equal one."""
        if self._kind is None:
            return 0
        shared = 0
        order = np.argsort(self._kind, kind="stable")
        starts = np.flatnonzero(np.diff(self._kind[order], prepend=-1))
        for same in np.split(order, starts[1:]):
            if len(same) > 1 and len(np.unique(groups[same])) > 1:
                tested = same[split.tested[same]]
                learned = np.asarray(split.train[:, same].any(1))
                shared += int(learned[split.cell[tested]].sum())
        return shared

    def see_codes(self, codes: Ints) -> None:
        """Take in a column by the codes `[n]` of its rows, equal for equal rows."""
        kind = np.zeros(len(codes), np.int64) if self._kind is None else self._kind
        pairs = np.stack([kind, codes])
        order = np.lexsort(pairs)
        new = np.abs(np.diff(pairs[:, order], axis=1)).max(0, initial=0) > 0
        self._kind = np.empty(len(codes), np.int64)
        self._kind[order] = np.cumsum(np.concatenate([[0], new]))


class RowCodes:
    """Codes of rows, seen block by block, that are equal where rows are equal up to rounding.

    Rows are projected on a few random directions, and those on a grid. A pair that differs by
    rounding is missed where a line of the grid falls between; about one in a hundred.

    Args:
        mean: float64 `[d]`, the rows' mean.
        size: The root of their mean squared distance from it.
        count: Number of rows.
    """

    def __init__(self, mean: npt.NDArray[np.float64], size: float, count: int) -> None:
        self._mean = mean
        width = len(mean)
        directions = np.random.default_rng(0).normal(size=(width, _DIRECTIONS))
        self._directions = directions / max(size, 1e-300)
        self._flat = size == 0
        self.codes = np.zeros(count, np.int64)

    def see(self, places: Ints, rows: Array) -> None:
        """Take in rows `[k, d]` of the samples with these numbers."""
        if self._flat:
            return
        placed = (rows - self._mean) @ self._directions
        cells = np.floor(placed / (2 * _NEAR)).astype(np.int64)
        with np.errstate(over="ignore"):
            code = np.zeros(len(rows), np.int64)
            for one in cells.T:
                code = code * _FACTOR + one
        self.codes[places] = code


def _divided(kind: Ints, rows: npt.NDArray[np.float32]) -> Ints:
    """Kinds of equal rows within the kinds so far; rows that lie side by side on a line."""
    direction = np.random.default_rng(0).normal(size=rows.shape[1]) / np.sqrt(rows.shape[1])
    order = np.lexsort((rows @ direction.astype(np.float32), kind))
    apart = np.ones(len(order), bool)
    steps = np.linalg.norm(np.diff(rows[order], axis=0), axis=1)
    apart[1:] = (kind[order][1:] != kind[order][:-1]) | (steps > _NEAR)
    found = np.empty_like(kind)
    found[order] = np.cumsum(apart) - 1
    return found
