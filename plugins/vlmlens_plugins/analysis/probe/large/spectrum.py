"""Eigenvectors of the covariance of a column's rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh
from scipy.linalg.blas import ssyrk

from vlmlens_plugins.analysis.probe.large.sums import Floats

Singles = npt.NDArray[np.float32]

_SIDE = 4096
"""Features whose covariances are held together."""


@dataclass(frozen=True, slots=True)
class Spectrum:
    """Eigenvectors of a covariance, or of its diagonal blocks where there are many features.

    Args:
        values: float64 `[d]`, eigenvalues, block by block from small to large.
        vectors: float32 `[side, side]` for each block; none where features are uncorrelated.
    """

    values: Floats
    vectors: tuple[Singles, ...]

    @classmethod
    def of(cls, blocks: Iterable[Singles], width: int, side: int = _SIDE) -> Spectrum:
        """Read rows `[b, d]` whose mean is about 0.

        Args:
            blocks: The rows.
            width: Number of features.
            side: The largest block.
        """
        sides = [slice(i, min(i + side, width)) for i in range(0, width, side)]
        products = [np.zeros((s.stop - s.start,) * 2, np.float32, order="F") for s in sides]
        count = 0
        for rows in blocks:
            count += len(rows)
            for own, into in zip(sides, products, strict=True):
                some = np.ascontiguousarray(rows[:, own])
                ssyrk(1.0, some.T, beta=1.0, c=into, lower=1, overwrite_c=1)
        values, vectors = [], []
        while products:
            found, axes = _eigen(products.pop(0))
            values.append(found / max(count, 1))
            vectors.append(axes)
        return cls(np.concatenate(values), tuple(vectors))

    def divided(self, vectors: Floats, heavy: Floats, more: Floats) -> Floats:
        """Vectors `[d, outputs, jobs]` times the inverse of `heavy * covariance + more`.

        Args:
            vectors: What is multiplied.
            heavy: `[outputs, jobs]`.
            more: `[jobs]`, above 0.
        """
        if not self.vectors:
            return vectors / (self.values[:, None, None] * heavy + more)
        found, start = np.empty_like(vectors), 0
        for axes in self.vectors:
            own = slice(start, start + len(axes))
            turned = axes.T @ _flat(vectors[own])
            turned /= _flat(self.values[own, None, None] * heavy + more)
            found[own] = (axes @ turned).reshape(found[own].shape)
            start = own.stop
        return found


def _flat(vectors: Floats) -> Singles:
    return vectors.reshape(len(vectors), -1).astype(np.float32)


def _eigen(matrix: Singles) -> tuple[Floats, Singles]:
    """Eigenvalues and vectors of a lower triangle, which is overwritten."""
    found, vectors = eigh(matrix, lower=True, overwrite_a=True, check_finite=False, driver="evd")
    least = np.finfo(np.float32).eps * max(float(found[-1]), 0.0)
    return np.maximum(found, least).astype(np.float64), np.asarray(vectors, np.float32)


def principal(spectrum: Spectrum, number: int) -> tuple[Any, Spectrum]:
    """The first eigenvectors `[d, k]`, and the spectrum of coordinates on them."""
    (vectors,) = spectrum.vectors
    kept = np.ascontiguousarray(vectors[:, ::-1][:, :number])
    return kept, Spectrum(spectrum.values[::-1][:number].copy(), ())
