"""Rows of columns: one per sample, read in blocks, finite."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from vlmlens.abc import ColumnInfo, ColumnStore, Values
from vlmlens_plugins.analysis import _blocks
from vlmlens_plugins.analysis._blocks import ColumnBlocks

Rows = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
MOST = 160 * 2**20
"""Bytes of rows that are held together at most."""
_NUMBERS = 2**22
"""So many numbers are float64 at a time."""
_ROUNDING = 1e-5
"""A row that is nearer to the mean, relative to the size of rows, differs by rounding only."""


class NotFinite(ValueError):
    """A column holds NaN or an infinite value, or a sample without a row."""


def placed(store: ColumnStore, info: ColumnInfo, ids: Sequence[str]) -> Iterator[tuple[Ints, Rows]]:
    """The rows of samples in blocks: numbers among `ids`, int64 `[k]`, and float32 `[k, width]`.

    Blocks come in an order of their own. Where a sample has several rows, it is their mean.

    Raises:
        NotFinite: A row is not finite.
        StoreError: A sample has no value.
    """
    for block in ColumnBlocks(store, info.name, ids, _blocks.AT_ONCE // 2):
        rows = _one_each(block.values)
        if not np.isfinite(rows).all():
            raise NotFinite(info.name)
        yield block.places, rows


def read(store: ColumnStore, info: ColumnInfo, ids: Sequence[str]) -> Rows:
    """float32 `[n, width]`, see `placed`."""
    found = np.empty((len(ids), info.width), np.float32)
    for places, rows in placed(store, info, ids):
        found[places] = rows
    return found


def centred(rows: Rows) -> Rows:
    """Rows less their mean, in units of their size; what is left by rounding alone is zero.

    The size of rows is the root of their mean square length. Nothing over- or underflows.
    """
    mean = rows.mean(0, dtype=np.float64)
    squares = [np.square(rows[part], dtype=np.float64).sum(1) for part in parts(rows)]
    size = float(np.sqrt(np.concatenate(squares).mean())) or 1.0
    moved = np.empty_like(rows)
    for part in parts(rows):
        moved[part] = (rows[part] - mean) / size
        moved[part][np.linalg.norm(moved[part], axis=1) <= _ROUNDING] = 0
    return moved


def unit(rows: Rows, out: Rows | None = None) -> Rows:
    """Rows of length 1; zero stays zero. `out` may be the rows themselves."""
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))[:, None]
    found: Rows = np.zeros_like(rows) if out is None else out
    np.divide(rows, norms, out=found, where=norms > 0)
    return found


def parts(rows: npt.NDArray[np.generic]) -> Iterable[slice]:
    """Slices of rows that are small enough to be held in float64 beside them."""
    step = max(1, _NUMBERS // max(1, rows.shape[1]))
    return (slice(start, start + step) for start in range(0, len(rows), step))


def _one_each(values: Values) -> Rows:
    """float32 `[samples, width]`."""
    if not values.ragged:
        return values.numpy().astype(np.float32, copy=False)
    means = [_mean(each, values.width) for each in values.per_sample()]
    return np.stack(means).astype(np.float32)


def _mean(rows: npt.NDArray[np.generic], width: int) -> npt.NDArray[np.float64]:
    if not len(rows):
        return np.full(width, np.nan)
    mean: npt.NDArray[np.float64] = rows.mean(0, dtype=np.float64)
    return mean
