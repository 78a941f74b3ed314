"""Reading stores of parts: what a store, an attempt at a lease and many leases have in common."""

from __future__ import annotations

import os
import threading
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial

import numpy as np

from vlmlens.abc.storage import Array, ChunkCheck, ColumnInfo, ColumnStore, Mode, Values
from vlmlens.errors import StoreError
from vlmlens.stores.writing import find_column, in_own_type, read_only
from vlmlens_plugins.storage._chunk_format import Chunk, Column, Index
from vlmlens_plugins.storage._chunk_reading import ReadPlan, gather, plan_range, plan_read
from vlmlens_plugins.storage._places import ByteRange, Place, entered
from vlmlens_plugins.storage._safetensors_part import FIRST_READ, Part, broken, read_part

_AT_ONCE = 256


class PartStore(ColumnStore):
    """A store whose columns are told by an index of chunks.

    Args:
        place: Where it lies.
        mode: "r" or "a".
    """

    def __init__(self, place: Place, mode: Mode) -> None:
        self._place = place
        self._mode = mode
        self._pid = os.getpid()
        self._open = True
        self._threads = threading.RLock()

    @property
    @abstractmethod
    def _index(self) -> Index:
        """All columns and chunks, as far as they are known."""

    @abstractmethod
    def _arrays(self, column: Column, chunks: Iterable[Chunk]) -> Iterator[Array]:
        """The stored rows of chunks, in order, checked."""

    def _follow(self, *, now: bool = False) -> None:
        """Learn what was written since. What is known never changes.

        Args:
            now: Something is asked for that is not known yet.
        """

    def columns(self) -> list[ColumnInfo]:
        """See `ColumnStore.columns`."""
        with self._entered():
            self._follow()
            return [
                ColumnInfo(column.name, *column.form, samples=self._index.samples(column))
                for column in self._index.columns.values()
            ]

    def ids(self, column: str) -> list[str]:
        """See `ColumnStore.ids`."""
        with self._entered():
            self._follow(now=column not in self._index.columns)
            chunks = self._index.chunks_of(find_column(column, self._index.columns))
            return [sample for chunk in chunks for sample in chunk.ids]

    def read(self, column: str, ids: Sequence[str] | None = None) -> Values:
        """See `ColumnStore.read`; asks for chunks at the same time."""
        with self._entered():
            if ids is None or not self._knows(column, ids):
                self._follow(now=ids is not None or column not in self._index.columns)
            return self._gathered(plan_read(self._index, column, ids))

    def read_range(self, column: str, start: int, stop: int) -> tuple[list[str], Values]:
        """See `ColumnStore.read_range`."""
        with self._entered():
            known = self._index.columns.get(column)
            if known is None or self._index.samples(known) < stop:
                self._follow(now=known is None)
            ids, plan = plan_range(self._index, column, start, stop)
            return ids, self._gathered(plan)

    def iterate(self, column: str) -> Iterator[tuple[str, Array]]:
        """See `ColumnStore.iterate`; holds what is asked for at the same time."""
        with self._entered():
            self._follow(now=column not in self._index.columns)
            found = find_column(column, self._index.columns)
            chunks = list(self._index.chunks_of(found))
            arrays = self._arrays(found, chunks)
        for chunk in chunks:
            with self._entered():
                array = next(arrays)
            yield from zip(chunk.ids, _per_sample(found, chunk, array), strict=True)

    def verify(self) -> Iterator[ChunkCheck]:
        """See `ColumnStore.verify`."""
        with self._entered():
            self._follow()
            index = self._index
            every = [(c, chunk) for c in index.columns.values() for chunk in index.chunks_of(c)]
        for column, chunk in every:
            size, problem = 0, ""
            try:
                with self._entered():
                    size = next(self._arrays(column, [chunk])).nbytes
            except StoreError as error:
                problem = error.message
            yield ChunkCheck(column.name, next(iter(chunk.ids), ""), len(chunk.ids), size, problem)

    def _knows(self, column: str, ids: Sequence[str]) -> bool:
        """Whether what is asked for can be read without following."""
        known = self._index.columns.get(column)
        return known is not None and all(self._index.place(known, each) for each in ids)

    def _gathered(self, plan: ReadPlan) -> Values:
        arrays = self._arrays(plan.column, [move.chunk for move in plan.moves])
        array = gather(plan, lambda chunk: next(arrays))
        return Values(array, plan.column.form.dtype, plan.lengths)

    def _check_writable(self) -> None:
        if self._mode != "a":
            raise read_only()

    def _entered(self) -> AbstractContextManager[None]:
        return entered(self._place, is_open=self._open, process=self._pid, threads=self._threads)


def _per_sample(column: Column, chunk: Chunk, array: Array) -> list[Array]:
    """The rows of each sample, in the type of the numbers."""
    piece = chunk.pieces[column.number]
    ends = np.cumsum(piece.entry_lengths(len(chunk.ids)), dtype=np.int64)[:-1]
    entries = np.split(in_own_type(array.copy(), column.form.dtype), ends)
    return entries if piece.order is None else [entries[entry].copy() for entry in piece.order]


def read_parts(place: Place, keys: Sequence[str]) -> list[Part | None]:
    """The parts with these keys, read from their own headers; None where there is none.

    Raises:
        StoreCorrupt: One of them is damaged.
    """
    found: list[Part | None] = []
    for start in range(0, len(keys), _AT_ONCE):
        some = keys[start : start + _AT_ONCE]
        firsts = place.fetch([ByteRange(key, 0, FIRST_READ) for key in some])
        found += [
            None if first is None else read_part(key, first, partial(_head, place, key))
            for key, first in zip(some, firsts, strict=True)
        ]
    return found


def _head(place: Place, key: str, size: int) -> bytes:
    found = place.fetch([ByteRange(key, 0, size)])[0]
    if found is None:
        raise broken(key, "it is missing")
    return found
