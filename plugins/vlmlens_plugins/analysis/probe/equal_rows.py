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
        for number in np.flatnonzero(np.bincount(self._kind) > 1):
            same = np.flatnonzero(self._kind == number)
            if len(np.unique(groups[same])) > 1:
                tested = same[split.tested[same]]
                shared += int(split.train[split.cell[tested]][:, same].any(1).sum())
        return shared


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
