"""Rows that a store keeps."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from vlmlens.abc.storage import ColumnStore
from vlmlens.errors import StoreError
from vlmlens.stores.writing import find_column
from vlmlens_plugins.sae.feeding.numbers import rows_of


class StoredRows:
    """The rows of a stored column, read when they are asked for.

    Args:
        store: The store, open while rows are read.
        column: The column's name. A pooled column has one row per sample.
        ids: The samples, by number.

    Raises:
        ColumnNotFound: The store has no such column.
        StoreError: A sample is not in it.
    """

    def __init__(self, store: ColumnStore, column: str, ids: Sequence[str]) -> None:
        info = find_column(column, {one.name: one for one in store.columns()})
        self._store, self.column, self._ids = store, info.name, ids
        self._width = info.width
        known = set(store.ids(column))
        missing = [name for name in ids if name not in known]
        if missing:
            raise StoreError(
                f"{len(missing)} of {len(ids)} samples have no rows in the column {column!r}, for "
                f"example {missing[0]!r}.",
                subject=column,
                hint="Extract them first: run the same command with --resume.",
            )

    @property
    def width(self) -> int:
        """See `Rows.width`."""
        return self._width

    def __len__(self) -> int:
        return len(self._ids)

    def id_of(self, number: int) -> str:
        """The id of a sample."""
        return self._ids[number]

    def read(self, samples: Sequence[int]) -> list[torch.Tensor]:
        """See `Rows.read`. Equal numbers give equal rows, bit for bit.

        Raises:
            DataError: A row holds NaN or infinity. The error names the sample.
            StoreError: The store is damaged or closed.
        """
        ids = [self._ids[number] for number in samples]
        return rows_of(self._store.read(self.column, ids), self.column, ids.__getitem__)
