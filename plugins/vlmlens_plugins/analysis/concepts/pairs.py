"""Pairs of samples of different groups: cosines within and between concepts, and silhouettes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vlmlens_plugins.analysis.concepts.options import Metric
from vlmlens_plugins.analysis.concepts.rows import Rows, centred, unit

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
MOST = 1000
"""So many samples are compared in pairs at most."""
_AT_ONCE = 2_000_000


@dataclass(frozen=True, slots=True)
class Measured:
    """Means over pairs, for each sample and each labelling.

    Args:
        within: float64 `[draws, n]`, mean cosine with others of the same label; NaN if there are
            none of another group.
        between: float64 `[draws, n]`, mean cosine with those of other labels, likewise.
        silhouette: float64 `[draws, n]`: P. Rousseeuw, "Silhouettes: a graphical aid to the
            interpretation and validation of cluster analysis", J. Comput. Appl. Math. 20 (1987),
            over pairs of different groups; 0 for a label without another group.
    """

    within: Floats
    between: Floats
    silhouette: Floats

    @property
    def separation(self) -> Floats:
        """float64 `[draws, n]`: within less between."""
        return self.within - self.between


class Pairs:
    """All pairs of rows from different groups.

    Args:
        rows: float32 `[n, width]`.
        groups: int64 `[n]`, numbers from 0.
        metric: Of silhouettes: 1 - cosine of centred rows, or Euclidean.
    """

    def __init__(self, rows: Rows, groups: Ints, metric: Metric) -> None:
        moved = centred(rows)
        near = unit(moved)
        other = groups[:, None] != groups[None]
        self._groups = np.unique(groups, return_inverse=True)[1]
        self._cosines = np.where(other, near @ near.T, 0)
        self._far = None if metric == "cosine" else np.where(other, _distances(moved), 0)

    def measure(self, labels: npt.NDArray[np.generic], classes: int) -> Measured:
        """Everything for each of several labellings `[draws, n]`, numbers from 0."""
        step = max(1, _AT_ONCE // (labels.shape[1] * classes))
        parts = [self._some(labels[i : i + step], classes) for i in range(0, len(labels), step)]
        names = ("within", "between", "silhouette")
        return Measured(*(np.concatenate([getattr(each, n) for each in parts]) for n in names))

    def _some(self, labels: npt.NDArray[np.generic], classes: int) -> Measured:
        held = labels.T[:, :, None] == np.arange(classes)
        own = held.transpose(1, 0, 2)
        counts = self._counts(held)
        cosines = self._summed(self._cosines, held)
        far = counts - cosines if self._far is None else self._summed(self._far, held)
        inside, outside = _split(cosines, own)
        number, others = _split(counts, own)
        with np.errstate(divide="ignore", invalid="ignore"):
            within, between = inside / number, outside / others
            mean = np.where(counts > 0, far / counts, np.inf)
            near = np.where(own, mean, 0).sum(2, where=own)
            nearest = np.where(own, np.inf, mean).min(2)
            silhouette = (nearest - near) / np.maximum(nearest, near)
        known = np.isfinite(near) & np.isfinite(nearest) & (np.maximum(nearest, near) > 0)
        return Measured(within, between, np.where(known, silhouette, 0))

    def _summed(self, pairs: npt.NDArray[np.float32], held: npt.NDArray[np.bool_]) -> Floats:
        """float64 `[draws, n, classes]`: sums over the samples of each label."""
        count, draws, classes = held.shape
        flat = held.reshape(count, -1).astype(np.float32)
        return (pairs @ flat).reshape(count, draws, classes).transpose(1, 0, 2).astype(np.float64)

    def _counts(self, held: npt.NDArray[np.bool_]) -> Floats:
        """float64 `[draws, n, classes]`: samples of each label in other groups."""
        of_groups = np.zeros((int(self._groups.max()) + 1, *held.shape[1:]))
        np.add.at(of_groups, self._groups, held)
        counts: Floats = held.sum(0)[None] - of_groups[self._groups]
        return counts.transpose(1, 0, 2)


def _split(sums: Floats, own: npt.NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """What is of the own label, and of all others."""
    inside: Floats = sums.sum(2, where=own)
    return inside, sums.sum(2) - inside


def _distances(rows: Rows) -> npt.NDArray[np.float32]:
    squares = np.square(rows).sum(1)
    far = squares[:, None] + squares[None] - 2 * (rows @ rows.T)
    found: npt.NDArray[np.float32] = np.sqrt(np.clip(far, 0, None))
    return found
