"""MemoryStore: columns in this process's memory, shared by name."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from vlmlens.abc.options import Options
from vlmlens.abc.storage import Array, ColumnBlock, ColumnInfo, ColumnStore, Mode, Values
from vlmlens.errors import StoreError, StoreLocked
from vlmlens.stores.writing import (
    Form,
    check_block,
    find_column,
    in_own_type,
    missing_sample,
    read_only,
    row_lengths,
    to_json,
)


@dataclass(slots=True)
class _Column:
    form: Form
    rows: dict[str, Array] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Data:
    columns: dict[str, _Column] = field(default_factory=dict)
    meta: bytes = b"{}"
    writing: bool = False
    lock: threading.RLock = field(default_factory=threading.RLock)


_data: dict[str, _Data] = {}
_data_lock = threading.Lock()


def forget(location: str) -> None:
    """Drop what is stored under a name."""
    with _data_lock:
        _data.pop(location, None)


class MemoryStore(ColumnStore):
    """Columns in memory. All stores of one name in a process are the same store.

    Made by `open`.
    """

    def __init__(self, data: _Data, mode: Mode) -> None:
        self._data: _Data | None = data
        self._mode = mode

    @classmethod
    def open(cls, location: str, *, mode: Mode, options: Options) -> Self:
        """Open the store of that name; the name may be any text."""
        del options
        with _data_lock:
            if mode == "r" and location not in _data:
                raise StoreError(f"No store {location!r} in this process.", subject=location)
            data = _data.setdefault(location, _Data())
            if mode == "a" and data.writing:
                raise StoreLocked(
                    f"This process writes to the store {location!r} already.",
                    subject=location,
                    hint="Close the other store first.",
                )
            data.writing = data.writing or mode == "a"
        return cls(data, mode)

    def write(self, block: ColumnBlock) -> None:
        """See `ColumnStore.write`; nothing survives the process."""
        data = self._writable()
        with data.lock:
            forms = {name: column.form for name, column in data.columns.items()}
            check_block(block, forms, lambda name, sample: sample in data.columns[name].rows)
            if not block.ids:
                return
            for name, values in block.columns.items():
                column = data.columns.setdefault(name, _Column(Form.of(values)))
                ends = np.cumsum(row_lengths(values))[:-1]
                parts = np.split(values.array.copy(), ends)
                column.rows.update(zip(block.ids, parts, strict=True))
                column.order.extend(block.ids)

    def columns(self) -> list[ColumnInfo]:
        """See `ColumnStore.columns`."""
        data = self._open_data()
        with data.lock:
            return [
                ColumnInfo(name, *column.form, samples=len(column.rows))
                for name, column in data.columns.items()
            ]

    def ids(self, column: str) -> list[str]:
        """See `ColumnStore.ids`."""
        data = self._open_data()
        with data.lock:
            return list(find_column(column, data.columns).rows)

    def read(self, column: str, ids: Sequence[str] | None = None) -> Values:
        """See `ColumnStore.read`."""
        data = self._open_data()
        with data.lock:
            found = find_column(column, data.columns)
            wanted = list(found.rows) if ids is None else ids
            for sample in wanted:
                if sample not in found.rows:
                    raise missing_sample(column, sample)
            parts = [found.rows[sample] for sample in wanted]
            empty = next(iter(found.rows.values()))[:0]
        lengths = tuple(len(part) for part in parts) if found.form.ragged else None
        return Values(np.concatenate([empty, *parts]), found.form.dtype, lengths)

    def read_range(self, column: str, start: int, stop: int) -> tuple[list[str], Values]:
        """See `ColumnStore.read_range`."""
        data = self._open_data()
        with data.lock:
            order = find_column(column, data.columns).order
            ids = order[max(start, 0) : max(stop, 0)]
            return ids, self.read(column, ids)

    def iterate(self, column: str) -> Iterator[tuple[str, Array]]:
        """See `ColumnStore.iterate`."""
        data = self._open_data()
        with data.lock:
            found = find_column(column, data.columns)
            rows = list(found.rows.items())
        for sample, array in rows:
            yield sample, in_own_type(array.copy(), found.form.dtype)

    def get_meta(self) -> dict[str, Any]:
        """See `ColumnStore.get_meta`."""
        meta: dict[str, Any] = json.loads(self._open_data().meta)
        return meta

    def set_meta(self, meta: Mapping[str, Any]) -> None:
        """See `ColumnStore.set_meta`."""
        self._writable().meta = to_json(meta)

    def close(self) -> None:
        """See `ColumnStore.close`; the data stay until the process ends, or `forget`."""
        if self._data is not None and self._mode == "a":
            self._data.writing = False
        self._data = None

    def _open_data(self) -> _Data:
        if self._data is None:
            raise StoreError("The store is closed.")
        return self._data

    def _writable(self) -> _Data:
        if self._mode != "a":
            raise read_only()
        return self._open_data()
