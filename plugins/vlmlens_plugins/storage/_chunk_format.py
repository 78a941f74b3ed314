"""Format version 3 on disk: keys, records, and the index that is made of them.

docs/storage-format.md describes the format for other programs.
"""

from __future__ import annotations

import json
import struct
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vlmlens.abc.storage import DTYPES, Values
from vlmlens.errors import StoreCorrupt
from vlmlens.stores.writing import Form
from vlmlens_plugins.storage._seal import Seal
from vlmlens_plugins.storage._shared_values import firsts

if TYPE_CHECKING:
    from lmdb import Transaction

FORMAT = "vlmlens-columns"
VERSION = 3
META_KEY = b"meta"
SEAL_KEY = b"seal"
_LARGEST = 1 << 48


def column_key(column: int) -> bytes:
    """Key of a column's record."""
    return b"c" + struct.pack(">I", column)


def header_key(chunk: int) -> bytes:
    """Key of a chunk's header."""
    return b"h" + struct.pack(">I", chunk)


def value_key(column: int, chunk: int) -> bytes:
    """Key of a column's values in a chunk; one column's chunks lie side by side."""
    return b"v" + struct.pack(">II", column, chunk)


@dataclass(frozen=True, slots=True)
class Column:
    """A column's record."""

    number: int
    name: str
    form: Form

    @classmethod
    def of(cls, number: int, name: str, values: Values) -> Column:
        """The column that some values would begin."""
        return cls(number, name, Form.of(values))

    def to_record(self) -> dict[str, Any]:
        """The record as JSON-ready data."""
        return {"number": self.number, "name": self.name, **self.form._asdict()}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Column:
        """The inverse of `to_record`."""
        form = Form(record["dtype"], record["width"], record["ragged"])
        DTYPES[form.dtype]
        if not isinstance(record["name"], str) or not _is_count(form.width):
            raise TypeError(record)
        return cls(record["number"], record["name"], form)


@dataclass(frozen=True, slots=True)
class Piece:
    """What a chunk's header says of one column's values.

    Args:
        crc32: `zlib.crc32` of the value.
        lengths: Rows per sample, where the column is ragged.
        order: Per sample, the number of its entry, where samples with equal values share one.
    """

    crc32: int
    lengths: tuple[int, ...] | None
    order: tuple[int, ...] | None = None

    def entry_lengths(self, samples: int) -> tuple[int, ...]:
        """Rows of each stored entry; `samples` is the number of the chunk's samples."""
        lengths = (1,) * samples if self.lengths is None else self.lengths
        return lengths if self.order is None else tuple(lengths[i] for i in firsts(self.order))


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk's header: which samples it holds, and which columns' values of them."""

    number: int
    ids: tuple[str, ...]
    pieces: Mapping[int, Piece]

    def rows(self, column: int) -> int:
        """Number of a column's rows in it."""
        lengths = self.pieces[column].lengths
        return len(self.ids) if lengths is None else sum(lengths)

    def stored_rows(self, column: int) -> int:
        """Number of a column's rows in its value, where what samples share stands once."""
        piece = self.pieces[column]
        if piece.order is None:
            return self.rows(column)
        return sum(piece.entry_lengths(len(self.ids)))

    def to_record(self) -> dict[str, Any]:
        """The header as JSON-ready data; columns with the same lengths share one list."""
        lengths = list(dict.fromkeys(p.lengths for p in self.pieces.values() if p.lengths))
        orders = list(dict.fromkeys(p.order for p in self.pieces.values() if p.order))
        place = {item: i for i, item in enumerate(lengths)}
        columns: list[dict[str, Any]] = [
            {"number": number, "crc32": piece.crc32, "lengths": place.get(piece.lengths or ())}
            for number, piece in self.pieces.items()
        ]
        for entry, piece in zip(columns, self.pieces.values(), strict=True):
            if piece.order:
                entry["order"] = orders.index(piece.order)
        shared = {"orders": orders} if orders else {}
        return {"ids": self.ids, "lengths": lengths, **shared, "columns": columns}

    @classmethod
    def from_record(cls, number: int, record: Mapping[str, Any]) -> Chunk:
        """The inverse of `to_record`."""
        lengths = [tuple(item) for item in record["lengths"]]
        orders = [tuple(item) for item in record.get("orders", ())]
        pieces = {
            entry["number"]: Piece(
                entry["crc32"],
                None if entry["lengths"] is None else lengths[entry["lengths"]],
                orders[entry["order"]] if "order" in entry else None,
            )
            for entry in record["columns"]
        }
        chunk = cls(number, tuple(record["ids"]), pieces)
        chunk._check()
        return chunk

    def _check(self) -> None:
        """Refuse a header that contradicts itself.

        Raises:
            TypeError: It does.
        """
        if not all(isinstance(sample, str) for sample in self.ids):
            raise TypeError("ids")
        for counts in {p.lengths for p in self.pieces.values()} - {None}:
            if len(counts or ()) != len(self.ids) or not all(map(_is_count, counts or ())):
                raise TypeError("lengths")
        for order in {p.order for p in self.pieces.values()} - {None}:
            if len(order or ()) != len(self.ids) or not _is_order(order or ()):
                raise TypeError("order")


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < _LARGEST


def _is_order(order: Sequence[int]) -> bool:
    """Whether entries are numbered by their first appearance."""
    return list(dict.fromkeys(order)) == list(range(len(set(order))))


class Index:
    """Columns and chunks of a store, read once and kept up with what is added.

    Records are only ever added, and numbered from 0 without gaps.
    """

    def __init__(self) -> None:
        self.columns: dict[str, Column] = {}
        self.chunks: list[Chunk] = []
        self._of_column: list[list[Chunk]] = []
        self._ragged: list[bool] = []
        self._ends: list[list[int]] = []
        self._rows: list[int] = []
        self._first_rows: dict[tuple[int, int], int] = {}
        self._known_places: dict[str, int | tuple[int, ...]] = {}
        self._placed = 0
        self._seen = -1
        self.seal = Seal()

    def refresh(self, txn: Transaction[Any], state: int, size: Callable[[], int]) -> None:
        """Add the records that a transaction sees and the index lacks.

        Args:
            txn: The transaction.
            state: Number of the last write that it sees.
            size: Gives the file's size in bytes: no record is larger, and to read behind the
                file's end would kill the process.

        Raises:
            StoreCorrupt: A record cannot be understood, or is not as it was written.
        """
        if state == self._seen:
            return
        limit = size()
        for number, raw, record in _records(txn, column_key, len(self.columns), "column", limit):
            self.add_column(number, record)
            self.seal = self.seal.with_column(raw)
        for number, raw, record in _records(txn, header_key, len(self.chunks), "chunk", limit):
            self.add_chunk(number, record)
            self.seal = self.seal.with_chunk(raw)
        if (seal := txn.get(SEAL_KEY)) is not None:
            try:
                Seal.from_bytes(bytes(seal)).check(self.seal)
            except StoreCorrupt:
                if not is_newer(bytes(txn.get(META_KEY) or b"")):
                    raise
        self._seen = state

    def forms(self) -> dict[str, Form]:
        """Every column's form by name."""
        return {name: column.form for name, column in self.columns.items()}

    def chunks_of(self, column: Column) -> Sequence[Chunk]:
        """The chunks that hold values of a column, in written order; grows with the index."""
        return self._of_column[column.number]

    def samples(self, column: Column) -> int:
        """Number of samples that have a column."""
        return next(reversed(self._ends[column.number]), 0)

    def chunks_between(self, column: Column, start: int, stop: int) -> Iterator[tuple[int, Chunk]]:
        """The chunks with the samples `start` to `stop` of a column, in written order.

        Yields:
            The number of the chunk's first sample in the column, and the chunk.
        """
        ends, chunks = self._ends[column.number], self._of_column[column.number]
        first = bisect_right(ends, max(start, 0))
        for place in range(first, len(chunks)):
            begin = ends[place] - len(chunks[place].ids)
            if begin >= stop:
                return
            yield begin, chunks[place]

    def rows(self, column: int) -> int:
        """Number of rows of a column in all chunks; 0 for one that is not there."""
        return self._rows[column] if column < len(self._rows) else 0

    def first_row(self, column: Column, chunk: Chunk) -> int:
        """Number of a column's rows in the chunks before this one."""
        return self._first_rows[column.number, chunk.number]

    def has_any(self, samples: Iterable[str]) -> bool:
        """Whether any of the samples has a value in any column."""
        places = self._places()
        return any(sample in places for sample in samples)

    def has(self, column: str, sample: str) -> bool:
        """Whether a sample has a value in a column of that name."""
        return self.place(self.columns[column], sample) is not None

    def place(self, column: Column, sample: str) -> tuple[Chunk, int] | None:
        """The chunk that holds a sample's values in a column, and the sample's position in it."""
        places = self._places().get(sample, ())
        for place in (places,) if isinstance(places, int) else places:
            number, position = divmod(place, _LARGEST)
            if column.number in self.chunks[number].pieces:
                return self.chunks[number], position
        return None

    def _places(self) -> dict[str, int | tuple[int, ...]]:
        """Where each sample stands: chunk * _LARGEST + position, several if it has several."""
        places = self._known_places
        for chunk in self.chunks[self._placed :]:
            start = chunk.number * _LARGEST
            for position, sample in enumerate(chunk.ids):
                before = places.get(sample, ())
                here = start + position
                known = (before,) if isinstance(before, int) else before
                places[sample] = (*known, here) if known else here
        self._placed = len(self.chunks)
        return places

    def add_column(self, number: int, record: Mapping[str, Any]) -> None:
        """Add a column's record.

        Raises:
            StoreCorrupt: It cannot be understood, or has another number.
        """
        try:
            column = Column.from_record(record)
        except (KeyError, TypeError) as error:
            raise _corrupt("column", number) from error
        if column.number != number or column.name in self.columns:
            raise _corrupt("column", number)
        self.columns[column.name] = column
        self._of_column.append([])
        self._ragged.append(column.form.ragged)
        self._ends.append([])
        self._rows.append(0)

    def add_chunk(self, number: int, record: Mapping[str, Any]) -> None:
        """Add a chunk's header.

        Raises:
            StoreCorrupt: It cannot be understood, or names columns that are not there.
        """
        try:
            chunk = Chunk.from_record(number, record)
        except (KeyError, TypeError, IndexError) as error:
            raise _corrupt("chunk", number) from error
        self.append(chunk)

    def append(self, chunk: Chunk) -> None:
        """Add a chunk, whose number is that of the chunks before it.

        Raises:
            StoreCorrupt: It names columns that are not there, or are of another form.
        """
        number = chunk.number
        for column, piece in chunk.pieces.items():
            if column not in range(len(self._of_column)):
                raise _corrupt("chunk", number)
            if self._ragged[column] != (piece.lengths is not None):
                raise _corrupt("chunk", number)
        self.chunks.append(chunk)
        for column in chunk.pieces:
            self._of_column[column].append(chunk)
            ends = self._ends[column]
            ends.append(next(reversed(ends), 0) + len(chunk.ids))
            self._first_rows[column, number] = self._rows[column]
            self._rows[column] += chunk.rows(column)


def is_newer(meta: bytes) -> bool:
    """Whether the store's record says that a newer vlmlens wrote it."""
    try:
        return int(json.loads(meta)["version"]) > VERSION
    except (ValueError, TypeError, KeyError, RecursionError):
        return False


def _records(
    txn: Transaction[Any], key: Any, start: int, what: str, limit: int
) -> Iterator[tuple[int, bytes, Mapping[str, Any]]]:
    number = start
    while (value := txn.get(key(number))) is not None:
        if len(value) > limit:
            raise _corrupt(what, number)
        raw = bytes(value)
        try:
            record = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise _corrupt(what, number) from error
        if not isinstance(record, dict):
            raise _corrupt(what, number)
        yield number, raw, record
        number += 1


def _corrupt(what: str, number: int) -> StoreCorrupt:
    return StoreCorrupt(
        f"The record of {what} {number} is damaged.",
        subject=number,
        hint="Copy the store again from its source, or extract again with --fresh.",
    )
