"""A part that is being made: blocks are collected, and then written as one safetensors file."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from vlmlens.abc.storage import DTYPES, Array, ColumnBlock
from vlmlens.errors import StoreError, StoreFull
from vlmlens.stores.writing import to_json
from vlmlens_plugins.storage._chunk_encoding import prepared
from vlmlens_plugins.storage._chunk_format import Chunk, Column, Index
from vlmlens_plugins.storage._chunks import split_block
from vlmlens_plugins.storage._disk_full import FULL
from vlmlens_plugins.storage._safetensors_part import (
    RESERVED,
    Part,
    header_of,
    pieces_in_order,
    record_of,
)

CHUNK_BYTES = 8 << 20
"""Values of a column are checked in chunks of at most this size, which are read as a whole."""

_IN_MEMORY = 64 << 20

Raw = bytes | memoryview
Kept = Callable[[], Raw]


class Spool:
    """Bytes that are kept until they are needed: in memory, and on the disk when they are many."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115
        self._end = 0

    def keep(self, raw: Raw) -> Kept:
        """Keep bytes.

        Returns:
            A function that gives them back.
        """
        start, size = self._end, len(raw)
        try:
            self._file.seek(start)
            self._file.write(raw)
        except OSError as error:
            if error.errno not in FULL:
                raise
            raise StoreFull(
                f"No space is left in {tempfile.gettempdir()}, where the rows of a lease wait for "
                "their upload.",
                subject=tempfile.gettempdir(),
                hint="Set TMPDIR to a folder on a larger disk, and run the same command again.",
            ) from error
        self._end += size
        return lambda: self._read(start, size)

    def _read(self, start: int, size: int) -> bytes:
        self._file.seek(start)
        return self._file.read(size)

    def close(self) -> None:
        """Drop all of them."""
        self._file.close()


def as_given(raw: Raw) -> Kept:
    """Keep bytes where they are, until their owner changes them."""
    return lambda: raw


class Draft:
    """A part that is being made.

    Args:
        keep: Keeps bytes: `as_given`, or a spool's.
    """

    def __init__(self, keep: Callable[[Raw], Kept] = as_given) -> None:
        self.index = Index()
        self._keep = keep
        self._kept: dict[tuple[int, int], Kept] = {}

    def add(self, block: ColumnBlock) -> None:
        """Add a block that fits to what is there.

        Raises:
            StoreError: A column has a name that safetensors files use themselves.
        """
        if RESERVED in block.columns:
            raise StoreError(
                f"A column cannot be named {RESERVED!r} in a safetensors file.", subject=RESERVED
            )
        for name, values in block.columns.items():
            if name not in self.index.columns:
                number = len(self.index.columns)
                self.index.add_column(number, Column.of(number, name, values).to_record())
        for ids, parts in split_block(block, CHUNK_BYTES):
            number, pieces = len(self.index.chunks), {}
            for name, values in parts.items():
                column = self.index.columns[name].number
                raw, pieces[column] = prepared(values)
                self._kept[column, number] = self._keep(raw)
            self.index.append(Chunk(number, ids, pieces))

    def load(self, column: Column, chunk: Chunk) -> Array:
        """A chunk's stored rows of a column."""
        return array_of(self._kept[column.number, chunk.number](), column, chunk)

    def part(self, key: str, number: int, meta: Mapping[str, Any], after: str = "") -> Part:
        """What the part's header will say.

        Args:
            key: The name of its object.
            number: Its number in the store.
            meta: The record that the writer has set.
            after: The `writer` of the part before it.

        Raises:
            StoreError: It is too much for a header.
        """
        text = to_json(record_of(self.index, number, secrets.token_hex(8), after, meta))
        return Part(key, len(header_of(text, self.index)), text, self.index)

    def pieces(self, part: Part) -> Iterator[Raw]:
        """The content of the part's object."""
        yield header_of(part.text, self.index)
        for each in pieces_in_order(self.index):
            yield self._kept[each]()


def array_of(raw: Raw, column: Column, chunk: Chunk) -> Array:
    """A chunk's stored rows of a column `[rows, width]`, from their bytes."""
    shape = chunk.stored_rows(column.number), column.form.width
    dtype = DTYPES[column.form.dtype]
    array: Array = np.frombuffer(raw, dtype) if len(raw) else np.empty(0, dtype)
    return array.reshape(shape)
