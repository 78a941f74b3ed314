"""The tables of a store that vlmlens wrote: VLM-Lens's `tensors`, and beside it what that lacks.

======================  ========================================================================
`tensors`               VLM-Lens's table: a row per sample and column, values as `torch.save` makes
`vlmlens_record`        format, version, and the run's own JSON
`vlmlens_columns`       number, name, dtype, width, ragged
`vlmlens_samples`       number, id, and the sample's JSON where a run told it
`vlmlens_values`        per column and row of `tensors`: sample, rows, where in the blob the values
                        begin, their size, their CRC-32
======================  ========================================================================
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
from vlmlens_plugins.storage._torch_blobs import save

FORMAT = "vlmlens-columns"
VERSION = 1
_AT_ONCE = 16

TENSORS = """
CREATE TABLE tensors (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    architecture TEXT NOT NULL,
    timestamp DATETIME DEFAULT CURRENT_TIMESTAMP,
    image_path TEXT NULL,
    image_id INTEGER NULL,
    prompt TEXT NOT NULL,
    label TEXT NULL,
    layer TEXT NOT NULL,
    pooling_method TEXT NULL,
    tensor_dim INTEGER NOT NULL,
    tensor BLOB NOT NULL
)"""
_BESIDE = (
    "CREATE TABLE vlmlens_record (format TEXT, version INTEGER, meta TEXT)",
    "CREATE TABLE vlmlens_columns "
    "(number INTEGER PRIMARY KEY, name TEXT UNIQUE, dtype TEXT, width INTEGER, ragged INTEGER)",
    "CREATE TABLE vlmlens_samples (number INTEGER PRIMARY KEY, id TEXT UNIQUE, record TEXT)",
    "CREATE TABLE vlmlens_values (column INTEGER, tensor INTEGER, sample INTEGER, rows INTEGER, "
    "start INTEGER, size INTEGER, crc32 INTEGER, PRIMARY KEY (column, tensor)) WITHOUT ROWID",
    "CREATE UNIQUE INDEX vlmlens_of_sample ON vlmlens_values (column, sample)",
)
_READ = (
    "SELECT s.id, v.rows, v.crc32, substr(t.tensor, v.start + 1, v.size) FROM vlmlens_values v "
    "JOIN tensors t ON t.id = v.tensor JOIN vlmlens_samples s ON s.number = v.sample "
    "WHERE v.column = ? "
)
_READ_ONE = f"{_READ} AND v.sample = (SELECT number FROM vlmlens_samples WHERE id = ?)"  # noqa: S608
_KNOWN = (
    "SELECT 1 FROM vlmlens_values WHERE column = ? "
    "AND sample = (SELECT number FROM vlmlens_samples WHERE id = ?)"
)


class OwnTables:
    """Reading and writing a database that vlmlens made.

    Args:
        database: The open file.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    @staticmethod
    def create(database: Database) -> None:
        """Make the tables in an empty database."""
        with database.writing() as db:
            for statement in (TENSORS, *_BESIDE):
                db.execute(statement)
            db.execute("INSERT INTO vlmlens_record VALUES (?, ?, '{}')", (FORMAT, VERSION))

    def write(self, block: ColumnBlock) -> None:
        """See `ColumnStore.write`."""
        with self._database.writing() as db:
            columns = _columns(db)
            check_block(
                block,
                {name: form for name, (_, form) in columns.items()},
                lambda name, sample: (
                    db.execute(_KNOWN, (columns[name][0], sample)).fetchone() is not None
                ),
            )
            if block.ids and block.columns:
                _put(db, columns, block, self.meta())

    def columns(self) -> list[ColumnInfo]:
        """See `ColumnStore.columns`."""
        found = self._database.rows(
            "SELECT name, dtype, width, ragged, (SELECT count(*) FROM vlmlens_values "
            "WHERE column = number) FROM vlmlens_columns ORDER BY number"
        )
        return [ColumnInfo(name, dtype, width, bool(r), n) for name, dtype, width, r, n in found]

    def ids(self, column: str) -> list[str]:
        """See `ColumnStore.ids`."""
        with self._database.snapshot() as db:
            number, _ = find_column(column, _columns(db))
            found = db.execute(
                "SELECT s.id FROM vlmlens_values v JOIN vlmlens_samples s ON s.number = v.sample "
                "WHERE v.column = ? ORDER BY v.tensor",
                (number,),
            )
            return [sample for (sample,) in found]

    def read(self, column: str, ids: Sequence[str] | None = None) -> Values:
        """See `ColumnStore.read`; every value's checksum is checked."""
        with self._database.snapshot() as db:
            number, form = find_column(column, _columns(db))
            found = list(
                db.execute(_READ + "ORDER BY v.tensor", (number,))
                if ids is None
                else _some(db, column, number, ids)
            )
        arrays = [self._array(column, form, *row) for row in found]
        empty = np.empty((0, form.width), DTYPES[form.dtype])
        lengths = tuple(row[1] for row in found) if form.ragged else None
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

    def meta(self) -> dict[str, Any]:
        """See `ColumnStore.get_meta`."""
        meta: dict[str, Any] = json.loads(self._database.row("SELECT meta FROM vlmlens_record")[0])
        return meta

    def set_meta(self, meta: Mapping[str, Any]) -> None:
        """See `ColumnStore.set_meta`."""
        text = to_json(meta).decode()
        with self._database.writing() as db:
            db.execute("UPDATE vlmlens_record SET meta = ?", (text,))

    def samples(self) -> list[Sample]:
        """See `ColumnStore.samples`."""
        found = self._database.rows(
            "SELECT record FROM vlmlens_samples WHERE record IS NOT NULL ORDER BY number"
        )
        return [Sample.from_dict(json.loads(record)) for (record,) in found]

    def describe(self, samples: Iterable[Sample], model: str, adapter: str) -> None:
        """See `ColumnStore.describe`."""
        meta = self.meta() | {"model": model, "adapter": adapter}
        with self._database.writing() as db:
            db.execute("UPDATE vlmlens_record SET meta = ?", (to_json(meta).decode(),))
            for sample in samples:
                _describe(db, sample)

    def _array(
        self, column: str, form: Form, sample: str, rows: int, crc32: int, raw: bytes
    ) -> Array:
        dtype = DTYPES[form.dtype]
        if len(raw) != rows * form.width * dtype.itemsize or zlib.crc32(raw) != crc32:
            raise StoreCorrupt(
                f"Column {column!r}, sample {sample!r} of the store {self._database.path} is "
                "damaged.",
                subject=column,
                hint="Copy the store again from its source, or extract again with --fresh.",
            )
        return np.frombuffer(raw, dtype).reshape(rows, form.width)


def _columns(db: sqlite3.Connection) -> dict[str, tuple[int, Form]]:
    found = db.execute(
        "SELECT name, number, dtype, width, ragged FROM vlmlens_columns ORDER BY number"
    )
    return {name: (number, Form(dtype, width, bool(r))) for name, number, dtype, width, r in found}


def _some(db: sqlite3.Connection, column: str, number: int, ids: Iterable[str]) -> Iterator[Any]:
    for sample in ids:
        row = db.execute(_READ_ONE, (number, sample)).fetchone()
        if row is None:
            raise missing_sample(column, sample)
        yield row


def _put(
    db: sqlite3.Connection,
    columns: Mapping[str, tuple[int, Form]],
    block: ColumnBlock,
    about: Mapping[str, Any],
) -> None:
    family = about.get("adapter") or ""
    model = about.get("model") or family
    known = [_sample(db, sample) for sample in block.ids]
    for name, values in block.columns.items():
        number = columns[name][0] if name in columns else _new_column(db, name, Form.of(values))
        ends = np.cumsum(row_lengths(values))[:-1]
        for (sample, shown), array in zip(known, np.split(values.array, ends), strict=True):
            blob, start = save(array if values.ragged else array[0], values.dtype)
            tensor = db.execute(
                "INSERT INTO tensors (name, architecture, image_path, image_id, prompt, label, "
                "layer, pooling_method, tensor_dim, tensor) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (model, family, *shown, name, _pooling(name), values.width, blob),
            ).lastrowid
            raw = np.ascontiguousarray(array).tobytes()
            db.execute(
                "INSERT INTO vlmlens_values VALUES (?, ?, ?, ?, ?, ?, ?)",
                (number, tensor, sample, len(array), start, len(raw), zlib.crc32(raw)),
            )


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


def _describe(db: sqlite3.Connection, sample: Sample) -> None:
    record = to_json(sample.to_dict()).decode()
    found = db.execute("SELECT number, record FROM vlmlens_samples WHERE id = ?", (sample.id,))
    number, before = found.fetchone() or (None, None)
    if number is None:
        db.execute("INSERT INTO vlmlens_samples (id, record) VALUES (?, ?)", (sample.id, record))
    elif before != record:
        db.execute("UPDATE vlmlens_samples SET record = ? WHERE number = ?", (record, number))
        db.execute(
            "UPDATE tensors SET image_path = ?, image_id = ?, prompt = ?, label = ? WHERE id IN "
            "(SELECT tensor FROM vlmlens_values WHERE sample = ?)",
            (*_shown(sample.id, sample.to_dict()), number),
        )


def _pooling(column: str) -> str | None:
    """The pooling of a column named `SITE/SELECTOR`: `mean`, `max`, or None."""
    last = column.rpartition("/")[2].rpartition(".")[2]
    return last if last in ("mean", "max") else None
