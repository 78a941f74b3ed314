"""The seal of an SQLite store: per table, the number of rows and the sum of their checksums.

A row's checksum is `zlib.crc32` of its values as text, joined by NUL; a blob stands as its own
`zlib.crc32`.
Each write renews the sums of the tables that it changes, in its transaction.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from vlmlens.errors import StoreCorrupt

TABLE = "CREATE TABLE vlmlens_seal (what TEXT PRIMARY KEY, rows INTEGER, total INTEGER)"

ROWS = {
    "schema": "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE name = 'tensors' OR "
    "tbl_name LIKE 'vlmlens%' OR name LIKE '%vlmlens%'",
    "meta": "SELECT meta FROM vlmlens_record WHERE 1",
    "columns": "SELECT number, name, dtype, width, ragged FROM vlmlens_columns WHERE 1",
    "samples": "SELECT number, id, record FROM vlmlens_samples WHERE 1",
    "values": "SELECT column, tensor, sample, rows, start, size, crc32 FROM vlmlens_values WHERE 1",
    "tensors": "SELECT id, name, architecture, timestamp, image_path, image_id, prompt, label, "
    "layer, pooling_method, tensor_dim, tensor FROM tensors WHERE 1",
}
"""How to read what the seal covers. Values are counted per column, as `values NUMBER`."""

OF_SAMPLE = "AND id IN (SELECT tensor FROM vlmlens_values WHERE sample = ?)"


class Tally:
    """What a transaction adds to the sums.

    Args:
        db: The connection, inside its transaction.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._sums: dict[str, list[int]] = {}

    def add(self, what: str, where: str = "", *values: Any, times: int = 1) -> None:
        """Count rows as they are now.

        Args:
            what: A key of `ROWS`.
            where: Which rows: `AND ...`.
            values: What stands for the question marks.
            times: -1 takes the rows away, before they are changed.
        """
        for row in self._db.execute(f"{ROWS[what]} {where}", values):
            self.count(f"{what} {row[0]}" if what == "values" else what, row, times)

    def add_tensors(self, blobs: Mapping[int, int]) -> None:
        """Count new tensors without reading their blobs again.

        Args:
            blobs: The CRC-32 of each new blob by its row's number.
        """
        light = ROWS["tensors"].replace(", tensor FROM", " FROM")
        for row in self._db.execute(f"{light} AND id >= ?", (min(blobs),)):
            self.count("tensors", (*row, blobs[row[0]]))

    def count(self, what: str, row: Sequence[Any], times: int = 1) -> None:
        """Count one row."""
        sums = self._sums.setdefault(what, [0, 0])
        sums[0] += times
        sums[1] += times * digest(row)

    def keep(self) -> None:
        """Store the sums."""
        for what, (rows, total) in self._sums.items():
            self._db.execute("INSERT OR IGNORE INTO vlmlens_seal VALUES (?, 0, 0)", (what,))
            self._db.execute(
                "UPDATE vlmlens_seal SET rows = rows + ?, total = total + ? WHERE what = ?",
                (rows, total, what),
            )


def digest(row: Iterable[Any]) -> int:
    """A row's checksum."""
    plain = [str(zlib.crc32(v) if isinstance(v, bytes) else v) for v in row]
    return zlib.crc32("\0".join(plain).encode())


def bound(crc32: int, *names: Any) -> int:
    """A value's checksum that goes on over what the value is of: column, sample, shape."""
    return zlib.crc32("\0".join(map(str, names)).encode(), crc32)


def wrong(db: sqlite3.Connection) -> Iterator[str]:
    """What is not as the seal says."""
    kept = {what: (rows, total) for what, rows, total in db.execute("SELECT * FROM vlmlens_seal")}
    found: dict[str, tuple[int, int]] = {}
    for what, query in ROWS.items():
        for row in db.execute(query):
            name = f"{what} {row[0]}" if what == "values" else what
            rows, total = found.get(name, (0, 0))
            found[name] = rows + 1, total + digest(row)
    for what in sorted({*kept, *found}):
        if found.get(what, (0, 0)) != kept.get(what, (0, 0)):
            yield f"The rows of {what} are not as they were written."
    for (problem,) in db.execute("PRAGMA integrity_check(5)"):
        if problem != "ok":
            yield f"SQLite finds: {problem}."


def expect(db: sqlite3.Connection, what: str, rows: list[Any], path: object) -> list[Any]:
    """Rows that were read whole, if they are as they were written.

    Raises:
        StoreCorrupt: They are not.
    """
    found = db.execute("SELECT rows, total FROM vlmlens_seal WHERE what = ?", (what,)).fetchone()
    if (found or (0, 0)) != (len(rows), sum(map(digest, rows))):
        raise changed(what, path)
    return rows


def expect_count(db: sqlite3.Connection, column: int, count: int, path: object) -> None:
    """Raise an error if a column has not as many values as were written.

    Raises:
        StoreCorrupt: It has not.
    """
    what = f"values {column}"
    found = db.execute("SELECT rows FROM vlmlens_seal WHERE what = ?", (what,)).fetchone()
    if (found or (0,))[0] != count:
        raise changed(what, path)


def changed(what: str, path: object) -> StoreCorrupt:
    """The error for rows that are not as they were written."""
    return StoreCorrupt(
        f"The store {path} is damaged: its rows of {what} are not as they were written.",
        subject=str(path),
        hint="Copy the store again from its source, or extract again with --fresh.",
    )
