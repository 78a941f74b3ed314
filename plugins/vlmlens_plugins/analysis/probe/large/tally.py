"""What probes predict, taken in block by block."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from vlmlens_plugins.analysis.probe.large.partition import Ints
from vlmlens_plugins.analysis.probe.large.sums import Floats
from vlmlens_plugins.analysis.probe.splits import Split

Array = npt.NDArray[Any]


class Tally:
    """Held-out predictions, and how good the probes are on their training parts.

    Args:
        labels: `[fits, n]`, class numbers or float64 numbers.
        split: What is learned from and tested.
    """

    def __init__(self, labels: Array, split: Split) -> None:
        self._labels, self._split = labels, split
        self._numbers = labels.dtype.kind == "f"
        self._lost = np.zeros((split.cells, len(labels)))
        self.held_out = np.zeros(labels.shape, labels.dtype)

    def see(self, places: Ints, out: Array) -> None:
        """Take in outputs `[k, cells, outputs, fits]` for samples of those numbers."""
        told = out[:, :, 0] if self._numbers else _classes(out)
        cell = np.maximum(self._split.cell[places], 0)
        self.held_out[:, places] = told[np.arange(len(places)), cell].T
        y = self._labels[:, places].T[:, None]
        wrong = (told - y) ** 2 if self._numbers else told != y
        used = self._split.train[:, places].T[:, :, None]
        self._lost += (wrong * used).sum(0)

    def take(self, some: slice, other: Tally) -> None:
        """Take in what another one has seen of some of the label vectors."""
        self.held_out[some] = other.held_out
        self._lost[:, some] = other._lost

    @property
    def train_score(self) -> Floats:
        """float64 `[fits]`: accuracy or R2 on the training parts, averaged over cells."""
        if not self._numbers:
            return np.asarray(1 - (self._lost / self._split.train.sum(1)[:, None]).mean(0))
        spread = [[_spread(y[own]) for y in self._labels] for own in self._split.train]
        return np.asarray((1 - self._lost / np.maximum(spread, 1e-30)).mean(0))


def _classes(out: Array) -> Ints:
    if out.shape[2] == 1:
        return (out[:, :, 0] > 0).astype(np.int64)
    return np.asarray(out.argmax(2))


def _spread(y: Array) -> float:
    return float(((y - y.mean()) ** 2).sum())
