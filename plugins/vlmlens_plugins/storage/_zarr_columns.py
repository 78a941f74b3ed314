"""The Zarr arrays of a store: one per column, rows in written order."""

from __future__ import annotations

from typing import Any

import numpy as np

from vlmlens.abc.storage import DTYPES, Array
from vlmlens.errors import StoreCorrupt
from vlmlens_plugins.storage._chunk_format import Column

_SMALLEST, _LARGEST = 64 << 10, 8 << 20


class ZarrColumns:
    """The arrays under `columns/`.

    Args:
        store: A `zarr.abc.store.Store`.
    """

    def __init__(self, store: Any) -> None:
        self._store = store
        self._arrays: dict[int, Any] = {}

    def create(self, column: Column, rows: int) -> None:
        """Make a new column's array; what a killed writer left in its place is removed.

        Args:
            column: The column.
            rows: Rows of its first block, which later ones will probably have too: a block that
                fills whole Zarr chunks rewrites none.
        """
        import zarr

        dtype, width = DTYPES[column.form.dtype], column.form.width
        row_bytes = max(1, width * dtype.itemsize)
        wanted = max(rows, -(-_SMALLEST // row_bytes))
        self._arrays[column.number] = zarr.create_array(
            self._store,
            name=_path(column),
            shape=(0, width),
            chunks=(max(1, min(wanted, _LARGEST // row_bytes)), max(1, width)),
            dtype=dtype,
            compressors=None,
            fill_value=0,
            attributes=column.to_record(),
            # A chunk of -0.0 equals the fill value and is another number all the same.
            config={"write_empty_chunks": True},
            overwrite=True,
        )

    def put(self, column: Column, start: int, array: Array) -> list[str]:
        """Write rows from `start` on, and name the objects that were touched."""
        stored, stop = self._array(column), start + len(array)
        if stored.shape[0] < stop:
            stored.resize((stop, column.form.width))
        base = f"{_path(column)}/"
        if start == stop:
            return [f"{base}zarr.json"]
        stored[start:stop] = array
        rows = stored.chunks[0]
        chunks = range(start // rows, -(-stop // rows))
        keys = [stored.metadata.encode_chunk_key((chunk, 0)) for chunk in chunks]
        return [f"{base}zarr.json", *(base + key for key in keys)]

    def get(self, column: Column, start: int, stop: int) -> Array:
        """Rows `start` to `stop` as a new array; fewer where the store has lost some."""
        if start == stop:
            return np.empty((0, column.form.width), DTYPES[column.form.dtype])
        if self._array(column).shape[0] < stop:
            del self._arrays[column.number]
        stored = self._array(column)
        try:
            array: Array = np.asarray(stored[start:stop])
        except ValueError as error:  # a chunk of another size
            raise _unreadable(column, error) from error
        return array

    def _array(self, column: Column) -> Any:
        import zarr

        if column.number not in self._arrays:
            try:
                array = zarr.open_array(self._store, path=_path(column))
            except OSError:
                raise
            except Exception as error:  # zarr raises whatever it stumbles over in damaged metadata
                raise _unreadable(column, error) from error
            if array.dtype != DTYPES[column.form.dtype] or array.shape[1:] != (column.form.width,):
                raise _unreadable(column, f"it has shape {array.shape} and type {array.dtype}")
            self._arrays[column.number] = array
        return self._arrays[column.number]


def _unreadable(column: Column, why: object) -> StoreCorrupt:
    return StoreCorrupt(
        f"The array of column {column.name!r} is damaged: {why}.",
        subject=column.name,
        hint="Copy the store again from its source, or extract again with --fresh.",
    )


def _path(column: Column) -> str:
    return f"columns/{column.number}"
