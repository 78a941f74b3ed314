"""Rows of columns: one per sample, read in blocks, finite."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from vlmlens.abc import ColumnInfo, ColumnStore

Rows = npt.NDArray[np.float32]
_AT_ONCE, _RAGGED_AT_ONCE = 1024, 32
_ROUNDING = 1e-5
"""A row that is nearer to the mean, relative to the size of rows, differs by rounding only."""


class NotFinite(ValueError):
    """A column holds NaN or an infinite value, or a sample without a row."""


def blocks(store: ColumnStore, info: ColumnInfo, ids: Sequence[str]) -> Iterator[Rows]:
    """The rows of samples, float32 `[block, width]`; the mean where a sample has several.

    Raises:
        NotFinite: A row is not finite.
    """
    step = _RAGGED_AT_ONCE if info.ragged else _AT_ONCE
    for start in range(0, len(ids), step):
        values = store.read(info.name, list(ids[start : start + step]))
        if values.ragged:
            means = [_mean(each, info.width) for each in values.per_sample()]
            rows = np.stack(means).astype(np.float32)
        else:
            rows = values.numpy().astype(np.float32, copy=False)
        if not np.isfinite(rows).all():
            raise NotFinite(info.name)
        yield rows


def read(store: ColumnStore, info: ColumnInfo, ids: Sequence[str]) -> Rows:
    """float32 `[n, width]`, see `blocks`."""
    found = np.empty((len(ids), info.width), np.float32)
    start = 0
    for block in blocks(store, info, ids):
        found[start : start + len(block)] = block
        start += len(block)
    return found


def centred(rows: Rows) -> Rows:
    """Rows less their mean, in units of their size; what is left by rounding alone is zero.

    The size of rows is the root of their mean square length. Nothing over- or underflows.
    """
    mean = rows.mean(0, dtype=np.float64)
    size = float(np.sqrt(np.square(rows, dtype=np.float64).sum(1).mean())) or 1.0
    moved: Rows = ((rows - mean) / size).astype(np.float32)
    moved[np.linalg.norm(moved, axis=1) <= _ROUNDING] = 0
    return moved


def unit(rows: Rows) -> Rows:
    """Rows of length 1; zero stays zero."""
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))[:, None]
    found: Rows = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
    return found


def _mean(rows: npt.NDArray[np.generic], width: int) -> npt.NDArray[np.float64]:
    if not len(rows):
        return np.full(width, np.nan)
    mean: npt.NDArray[np.float64] = rows.mean(0, dtype=np.float64)
    return mean
