"""The results of units of model work, kept in the run's folder, so that none is computed twice.

Rows are found by the content of their unit, see `vlmlens.abc.model_work.keys_of`. Each is signed
with the user's own key, and others are not used: whoever hands over a run does not decide what the
model says here.
"""

from __future__ import annotations

import hmac
import json
import logging
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from vlmlens.errors import StoreError, StoreFull, StoreLocked
from vlmlens.runs.signing import signer

if TYPE_CHECKING:
    from vlmlens.abc.model_work import JSON

FILE = "units.sqlite"
ASIDE = "units.damaged.sqlite"
"""Where a file goes that cannot be read."""

_TABLE = (
    "CREATE TABLE results "
    "(unit BLOB PRIMARY KEY, result TEXT NOT NULL, signature BLOB NOT NULL) WITHOUT ROWID"
)
_WAIT = 60.0
_AT_ONCE = 500
_UNREADABLE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)

_log = logging.getLogger("vlmlens")


class UnitResults:
    """The results of units in one run. Several processes may read and write them at once.

    Args:
        folder: The run's folder.
        sign: Signs a row.

    Raises:
        StoreError: The file cannot be opened.
    """

    def __init__(self, folder: Path, sign: Callable[[bytes], bytes]) -> None:
        self._path = folder / FILE
        self._sign = sign
        self.foreign = 0
        """How many rows were not used, because they are not signed by this user."""
        with self._explained():
            self._db = self._opened()

    def read(self, keys: Iterable[bytes]) -> dict[bytes, JSON]:
        """The results that are known, by key."""
        asked = list(dict.fromkeys(keys))
        found: dict[bytes, JSON] = {}
        with self._explained():
            try:
                for start in range(0, len(asked), _AT_ONCE):
                    found |= dict(self._rows(asked[start : start + _AT_ONCE]))
            except sqlite3.DatabaseError as error:
                self._begin_again(error)
        return found

    def add(self, results: Mapping[bytes, JSON]) -> None:
        """Keep results, in one transaction."""
        rows = []
        for key, result in results.items():
            text = json.dumps(result, separators=(",", ":"))
            rows.append((key, text, self._sign(key + text.encode())))
        with self._explained():
            try:
                self._write(rows)
            except sqlite3.DatabaseError as error:
                self._begin_again(error)
                self._write(rows)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _rows(self, keys: list[bytes]) -> Iterator[tuple[bytes, JSON]]:
        places = ",".join("?" * len(keys))
        asked = f"SELECT unit, result, signature FROM results WHERE unit IN ({places})"  # noqa: S608 - question marks only
        for key, text, signature in self._db.execute(asked, keys):
            if hmac.compare_digest(self._sign(bytes(key) + _bytes(text)), _bytes(signature)):
                yield key, json.loads(text)
            else:
                self.foreign += 1

    def _write(self, rows: list[tuple[bytes, str, bytes]]) -> None:
        with _transaction(self._db):
            self._db.executemany("INSERT OR REPLACE INTO results VALUES (?, ?, ?)", rows)

    def _opened(self) -> sqlite3.Connection:
        if self._path.is_symlink():
            self._set_aside("it is a link")
        try:
            return _connected(self._path)
        except sqlite3.DatabaseError as error:
            if not _unreadable(error):
                raise
            self._set_aside(str(error))
        return _connected(self._path)

    def _begin_again(self, error: sqlite3.DatabaseError) -> None:
        """Go on with an empty file, if the file is damaged."""
        if not _unreadable(error):
            raise error
        self._db.close()
        self._set_aside(str(error))
        self._db = _connected(self._path)

    def _set_aside(self, why: str) -> None:
        _log.warning(
            "%s cannot be read (%s). It is now %s, and what was in it is computed again.",
            self._path,
            why,
            ASIDE,
        )
        self._path.replace(self._path.with_name(ASIDE))
        for suffix in ("-wal", "-shm"):
            self._path.with_name(f"{FILE}{suffix}").unlink(missing_ok=True)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise _error(self._path, error) from error


@contextmanager
def unit_results(folder: Path) -> Iterator[UnitResults | None]:
    """The results of units in a run; None if this user has no key to recognise them by.

    Args:
        folder: The run's folder. The caller may change it.
    """
    sign = signer(FILE)
    if sign is None:
        yield None
        return
    kept = UnitResults(folder, sign)
    try:
        yield kept
    finally:
        kept.close()


class _OtherContent(sqlite3.DatabaseError):
    sqlite_errorcode = sqlite3.SQLITE_NOTADB


def _connected(path: Path) -> sqlite3.Connection:
    """A connection to the file, made if it is not there.

    A rollback journal is removed first. vlmlens writes none, and SQLite removes the file that a
    journal names, whichever it is.
    """
    path.with_name(f"{path.name}-journal").unlink(missing_ok=True)
    db = sqlite3.connect(path, timeout=_WAIT, isolation_level=None)
    try:
        db.text_factory = bytes
        db.execute("PRAGMA trusted_schema = OFF")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        with _transaction(db):
            tables = db.execute("SELECT sql FROM sqlite_master").fetchall()
            if not tables:
                db.execute(_TABLE)
            elif tables != [(_TABLE.encode(),)]:
                raise _OtherContent("it has other tables")
    except BaseException:
        db.close()
        raise
    return db


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _bytes(value: object) -> bytes:
    """A value of a row; empty where the row holds something else."""
    return value if isinstance(value, bytes) else b""


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _unreadable(error: sqlite3.Error) -> bool:
    return _code(error) in _UNREADABLE


def _error(path: Path, error: sqlite3.Error) -> StoreError:
    name = str(path)
    if _code(error) == sqlite3.SQLITE_FULL:
        return StoreFull(
            f"No space is left for {name!r}.",
            subject=name,
            hint="Free some space, and run the same command again (`vlmlens run` with --resume): "
            "it goes on from here.",
        )
    if _code(error) in _BUSY:
        return StoreLocked(
            f"Another process has been writing to {name!r} for a minute.",
            subject=name,
            hint="Wait for it or stop it, and run the same command again.",
        )
    return StoreError(
        f"The results of the model's passes cannot be kept in {name!r}: {error}.",
        subject=name,
        hint="Move the file away; what was in it is computed again.",
    )
