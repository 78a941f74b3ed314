"""The tables of a store that vlmlens wrote: VLM-Lens's `tensors`, and beside it what that lacks.

======================  ========================================================================
`tensors`               VLM-Lens's table: a row per sample and column, values as `torch.save` makes
`vlmlens_record`        format, version, and the run's own JSON
`vlmlens_columns`       number, name, dtype, width, ragged
`vlmlens_samples`       number, id, and the sample's JSON where a run told it
`vlmlens_values`        per column and row of `tensors`: sample, rows, where in the blob the values
                        begin, their size, their CRC-32
`vlmlens_seal`          per table, the number of rows and the sum of their CRC-32
======================  ========================================================================

Over 400 lines: what writes these tables and what reads them stay together.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from vlmlens.abc.storage import DTYPES, Array, ChunkCheck, ColumnBlock, ColumnInfo, Values
from vlmlens.errors import StoreCorrupt, StoreError
from vlmlens.samples import Sample
from vlmlens.stores.writing import (
    Form,
    check_block,
    find_column,
    missing_sample,
    row_lengths,
    to_json,
)
from vlmlens_plugins.storage._sqlite_database import Database
from vlmlens_plugins.storage._sqlite_schema import (
    BESIDE,
    FORMAT,
    KNOWN,
    PLACE,
    READ,
    READ_AFTER,
    READ_ONE,
    TENSORS,
    VERSION,
)
from vlmlens_plugins.storage._sqlite_seal import (
    OF_SAMPLE,
    ROWS,
    Tally,
    bound,
    changed,
    expect,
    expect_count,
    wrong,
)
from vlmlens_plugins.storage._torch_blobs import save

_AT_ONCE = 16
_WIDEST = 1 << 40
_AFTER_ALL = (1 << 63) - 1


class OwnTables:
    """Reading and writing a database that vlmlens made.

    Args:
        database: The open file.
        version: Its format version. Version 1 has no seal.
    """

    def __init__(self, database: Database, version: int = VERSION) -> None:
        self._database = database
        self._sealed = version > 1
        self._ended = (-1, 0, 0)

    @staticmethod
    def create(database: Database) -> None:
        """Make the tables in an empty database."""
        with database.writing() as db:
            for statement in (TENSORS, *BESIDE):
                db.execute(statement)
            db.execute("INSERT INTO vlmlens_record VALUES (?, ?, '{}')", (FORMAT, VERSION))
            tally = Tally(db)
            tally.add("schema")
            tally.add("meta")
            tally.keep()

    def write(self, block: ColumnBlock) -> None:
        """See `ColumnStore.write`."""
        with self._database.writing() as db:
            columns = self._columns(db)
            check_block(
                block,
                {name: form for name, (_, form) in columns.items()},
                lambda name, sample: (
                    db.execute(KNOWN, (columns[name][0], sample)).fetchone() is not None
                ),
            )
            if block.ids and block.columns:
                put = _Put(db, columns, self.meta(), sealed=self._sealed)
                put.all(block)

    def columns(self) -> list[ColumnInfo]:
        """See `ColumnStore.columns`."""
        with self._database.snapshot() as db:
            rows = db.execute(f"{ROWS['columns']} ORDER BY number").fetchall()
            counts = dict(db.execute("SELECT column, count(*) FROM vlmlens_values GROUP BY column"))
            if self._sealed:
                expect(db, "columns", rows, self._database.path)
                for number, *_ in rows:
                    expect_count(db, number, counts.get(number, 0), self._database.path)
        return [
            ColumnInfo(name, dtype, width, bool(ragged), counts.get(number, 0))
            for number, name, dtype, width, ragged in rows
        ]

    def ids(self, column: str) -> list[str]:
        """See `ColumnStore.ids`."""
        with self._database.snapshot() as db:
            number, _ = find_column(column, self._columns(db))
            found = db.execute(
                "SELECT s.id FROM vlmlens_values v JOIN vlmlens_samples s ON s.number = v.sample "
                "WHERE v.column = ? ORDER BY v.tensor",
                (number,),
            ).fetchall()
            if self._sealed:
                expect_count(db, number, len(found), self._database.path)
            return [sample for (sample,) in found]

    def read(self, column: str, ids: Sequence[str] | None = None) -> Values:
        """See `ColumnStore.read`; every value's checksum is checked."""
        with self._database.snapshot() as db:
            number, form = find_column(column, self._columns(db))
            found = list(
                db.execute(READ + "ORDER BY v.tensor", (number,))
                if ids is None
                else _some(db, column, number, ids)
            )
            if ids is None and self._sealed:
                expect_count(db, number, len(found), self._database.path)
        return self._values(column, form, found)

    def read_range(self, column: str, start: int, stop: int) -> tuple[list[str], Values]:
        """See `ColumnStore.read_range`."""
        with self._database.snapshot() as db:
            number, form = find_column(column, self._columns(db))
            start = max(start, 0)
            before = self._before(db, number, start)
            rows = db.execute(READ_AFTER, (number, before, max(stop - start, 0))).fetchall()
        if rows:
            self._ended = number, start + len(rows), rows[-1][1]
        return [row[0] for row in rows], self._values(column, form, rows)

    def _before(self, db: sqlite3.Connection, column: int, start: int) -> int:
        """The tensor before that of a column's sample `start`, counted from 0.

        Where a range goes on from the last one, it is known, and no row is counted again.
        """
        known, stop, tensor = self._ended
        if (known, stop) == (column, start):
            return tensor
        found = db.execute(PLACE, (column, start - 1)).fetchone() if start else (-1,)
        return _AFTER_ALL if found is None else int(found[0])

    def _values(self, column: str, form: Form, rows: Sequence[Any]) -> Values:
        """The values of rows, as `READ` gives them."""
        arrays = [self._array(column, form, *row) for row in rows]
        empty = np.empty((0, form.width), DTYPES[form.dtype])
        lengths = tuple(row[2] for row in rows) if form.ragged else None
        return Values(np.concatenate([empty, *arrays]), form.dtype, lengths)

    def iterate(self, column: str) -> Iterator[tuple[str, Array]]:
        """See `ColumnStore.iterate`; holds a few samples at a time."""
        ids = self.ids(column)
        for first in range(0, len(ids), _AT_ONCE):
            some = ids[first : first + _AT_ONCE]
            yield from zip(some, self.read(column, some).per_sample(), strict=True)

    def verify(self) -> Iterator[ChunkCheck]:
        """See `ColumnStore.verify`; a chunk is one sample's values."""
        for info in self.columns():
            for sample in self.ids(info.name):
                size, problem = 0, ""
                try:
                    size = self.read(info.name, [sample]).array.nbytes
                except StoreError as error:
                    problem = error.message
                yield ChunkCheck(info.name, sample, 1, size, problem)
        if self._sealed:
            with self._database.snapshot() as db:
                for problem in wrong(db):
                    yield ChunkCheck("", "", 0, 0, problem)

    def meta(self) -> dict[str, Any]:
        """See `ColumnStore.get_meta`."""
        rows = self._whole("meta")
        return self._parsed(rows[0][0] if rows else "", "meta")

    def set_meta(self, meta: Mapping[str, Any]) -> None:
        """See `ColumnStore.set_meta`."""
        text = to_json(meta).decode()
        with self._database.writing() as db:
            tally = Tally(db)
            self._replace_meta(db, text, tally)
            self._keep(tally)

    def samples(self) -> list[Sample]:
        """See `ColumnStore.samples`."""
        records = [
            self._parsed(record, "samples")
            for _, _, record in self._whole("samples", "ORDER BY number")
            if record is not None
        ]
        try:
            return [Sample.from_dict(record) for record in records]
        except (KeyError, TypeError, ValueError) as error:
            raise changed("samples", self._database.path) from error

    def describe(self, samples: Iterable[Sample], model: str, adapter: str) -> None:
        """See `ColumnStore.describe`."""
        meta = self.meta() | {"model": model, "adapter": adapter}
        with self._database.writing() as db:
            tally = Tally(db)
            self._replace_meta(db, to_json(meta).decode(), tally)
            for sample in samples:
                _describe(db, sample, tally)
            self._keep(tally)

    def _columns(self, db: sqlite3.Connection) -> dict[str, tuple[int, Form]]:
        """Number and form of each column by name."""
        found = {}
        for number, name, dtype, width, ragged in db.execute(f"{ROWS['columns']} ORDER BY number"):
            sized = isinstance(width, int) and 0 <= width < _WIDEST
            if not (isinstance(name, str) and dtype in DTYPES and sized):
                raise changed("columns", self._database.path)
            found[name] = (number, Form(dtype, width, bool(ragged)))
        return found

    def _parsed(self, text: Any, what: str) -> dict[str, Any]:
        try:
            record = json.loads(text)
        except (ValueError, TypeError, RecursionError) as error:
            raise changed(what, self._database.path) from error
        if not isinstance(record, dict):
            raise changed(what, self._database.path)
        return record

    def _replace_meta(self, db: sqlite3.Connection, text: str, tally: Tally) -> None:
        tally.add("meta", times=-1)
        db.execute("UPDATE vlmlens_record SET meta = ?", (text,))
        tally.add("meta")

    def _keep(self, tally: Tally) -> None:
        if self._sealed:
            tally.keep()

    def _whole(self, what: str, order: str = "") -> list[Any]:
        """All rows of a table that are as they were written."""
        with self._database.reading() as db:
            rows = db.execute(f"{ROWS[what]} {order}").fetchall()
            return expect(db, what, rows, self._database.path) if self._sealed else rows

    def _array(
        self,
        column: str,
        form: Form,
        sample: str,
        tensor: int,
        rows: int,
        crc32: int,
        raw: bytes,
    ) -> Array:
        dtype = DTYPES[form.dtype]
        whole = isinstance(raw, bytes) and isinstance(rows, int)
        found = zlib.crc32(raw) if whole else None
        if found is not None and self._sealed:
            found = bound(found, column, *form, sample, tensor, rows)
        if not whole or len(raw) != rows * form.width * dtype.itemsize or found != crc32:
            raise StoreCorrupt(
                f"Column {column!r}, sample {sample!r} of the store {self._database.path} is "
                "damaged.",
                subject=column,
                hint="Copy the store again from its source, or extract again with --fresh.",
            )
        return np.frombuffer(raw, dtype).reshape(rows, form.width)


def _some(db: sqlite3.Connection, column: str, number: int, ids: Iterable[str]) -> Iterator[Any]:
    for sample in ids:
        row = db.execute(READ_ONE, (number, sample)).fetchone()
        if row is None:
            raise missing_sample(column, sample)
        yield row


class _Put:
    """Storing a block.

    Args:
        db: The connection, inside its transaction.
        columns: Number and form of the columns that are there.
        about: The store's record.
        sealed: Whether the store has a seal.
    """

    def __init__(
        self,
        db: sqlite3.Connection,
        columns: Mapping[str, tuple[int, Form]],
        about: Mapping[str, Any],
        *,
        sealed: bool,
    ) -> None:
        self._db = db
        self._columns = columns
        self._family = about.get("adapter") or ""
        self._model = about.get("model") or self._family
        self._sealed = sealed
        self._tally = Tally(db)
        self._blobs: dict[int, int] = {}

    def all(self, block: ColumnBlock) -> None:
        """Store all columns, and renew the seal."""
        db, tally = self._db, self._tally
        last = db.execute("SELECT coalesce(max(number), 0) FROM vlmlens_samples").fetchone()[0]
        known = [_sample(db, sample) for sample in block.ids]
        for name, values in block.columns.items():
            self._column(name, values, block.ids, known)
        if not self._sealed:
            return
        tally.add("columns", "AND number >= ?", len(self._columns))
        tally.add("samples", "AND number > ?", last)
        tally.add_tensors(self._blobs)
        tally.keep()

    def _column(
        self,
        name: str,
        values: Values,
        ids: Sequence[str],
        known: Sequence[tuple[int, tuple[str | None, ...]]],
    ) -> None:
        db, form = self._db, Form.of(values)
        number = self._columns[name][0] if name in self._columns else _new_column(db, name, form)
        ends = np.cumsum(row_lengths(values))[:-1]
        for (sample, shown), own, array in zip(
            known, ids, np.split(values.array, ends), strict=True
        ):
            blob, start = save(array if values.ragged else array[0], values.dtype)
            tensor = db.execute(
                "INSERT INTO tensors (name, architecture, image_path, image_id, prompt, label, "
                "layer, pooling_method, tensor_dim, tensor) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (self._model, self._family, *shown, name, _pooling(name), values.width, blob),
            ).lastrowid
            raw = np.ascontiguousarray(array).tobytes()
            crc32 = zlib.crc32(raw)
            if self._sealed:
                crc32 = bound(crc32, name, *form, own, tensor, len(array))
            entry = (number, tensor, sample, len(array), start, len(raw), crc32)
            db.execute("INSERT INTO vlmlens_values VALUES (?, ?, ?, ?, ?, ?, ?)", entry)
            if self._sealed:
                self._tally.count(f"values {number}", entry)
                self._blobs[int(tensor or 0)] = zlib.crc32(blob)


def _new_column(db: sqlite3.Connection, name: str, form: Form) -> int:
    number = db.execute("SELECT count(*) FROM vlmlens_columns").fetchone()[0]
    db.execute("INSERT INTO vlmlens_columns VALUES (?, ?, ?, ?, ?)", (number, name, *form))
    return int(number)


def _sample(db: sqlite3.Connection, sample: str) -> tuple[int, tuple[str | None, ...]]:
    """A sample's number, and what VLM-Lens's table says of it: image_path, id, prompt, label."""
    found = db.execute("SELECT number, record FROM vlmlens_samples WHERE id = ?", (sample,))
    number, record = found.fetchone() or (None, None)
    if number is None:
        made = db.execute("INSERT INTO vlmlens_samples (id) VALUES (?)", (sample,))
        number = made.lastrowid
    return int(number or 0), _shown(sample, json.loads(record) if record else {})


def _shown(sample: str, record: Mapping[str, Any]) -> tuple[str | None, ...]:
    image = next(iter(record.get("images", ())), None)
    return image, sample, record.get("prompt", ""), record.get("label")


def _describe(db: sqlite3.Connection, sample: Sample, tally: Tally) -> None:
    record = to_json(sample.to_dict()).decode()
    found = db.execute("SELECT number, record FROM vlmlens_samples WHERE id = ?", (sample.id,))
    number, before = found.fetchone() or (None, None)
    if number is None:
        db.execute("INSERT INTO vlmlens_samples (id, record) VALUES (?, ?)", (sample.id, record))
    elif before != record:
        tally.add("samples", "AND number = ?", number, times=-1)
        tally.add("tensors", OF_SAMPLE, number, times=-1)
        db.execute("UPDATE vlmlens_samples SET record = ? WHERE number = ?", (record, number))
        db.execute(
            "UPDATE tensors SET image_path = ?, image_id = ?, prompt = ?, label = ? WHERE id IN "
            "(SELECT tensor FROM vlmlens_values WHERE sample = ?)",
            (*_shown(sample.id, sample.to_dict()), number),
        )
        tally.add("tensors", OF_SAMPLE, number)
    if before != record:
        tally.add("samples", "AND id = ?", sample.id)


def _pooling(column: str) -> str | None:
    """The pooling of a column named `SITE/SELECTOR`: `mean`, `max`, or None."""
    last = column.rpartition("/")[2].rpartition(".")[2]
    return last if last in ("mean", "max") else None
