"""Database: one connection to an SQLite file, with vlmlens's one-writer rule and errors."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from vlmlens._locks import WriterLock
from vlmlens.abc.storage import Mode
from vlmlens.errors import StoreCorrupt, StoreError, StoreLocked
from vlmlens_plugins.storage._disk_full import FULL, full, no_room

_WAIT = 60.0
_PROBE = 16 << 20
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_NAMES_ANOTHER = bytes.fromhex("d9d505f920a163d7")
"""At the end of a rollback journal that names another one (SQLite's file format, section 3)."""


class Database:
    """An open SQLite file. Threads may share it; a forked child may not use it.

    Args:
        path: The file.
        mode: "a" makes it where it is not there, and takes the right to write.

    Raises:
        StoreLocked: Mode "a", and another store writes to it.
        StoreError: It cannot be opened.
    """

    def __init__(self, path: Path, *, mode: Mode) -> None:
        self.path = path
        self._pid = os.getpid()
        self._threads = threading.RLock()
        self._lock: WriterLock | None = None
        self._db: sqlite3.Connection | None = None
        try:
            if mode == "a":
                path.parent.mkdir(parents=True, exist_ok=True)
                self._lock = WriterLock(path.with_name(f"{path.name}.lock"), str(path))
            with self._explaining():
                self._db = _connect(path, mode)
        except OSError as error:
            self.close()
            reason = error.strerror
            if error.errno in FULL:
                raise full(str(path)) from error
            raise StoreError(
                f"The store {path} cannot be opened: {reason}.", subject=str(path)
            ) from error
        except BaseException:
            self.close()
            raise

    def prepare(self, *, sync: bool) -> None:
        """Make it ready for being written, which changes the file.

        Args:
            sync: Whether a write waits for the disk.
        """
        with self._connection() as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute(f"PRAGMA synchronous = {'FULL' if sync else 'NORMAL'}")

    def rows(self, sql: str, *values: Any) -> list[Any]:
        """All rows of a query."""
        with self._connection() as db:
            return db.execute(sql, values).fetchall()

    def row(self, sql: str, *values: Any) -> Any:
        """The first row of a query, or None."""
        with self._connection() as db:
            return db.execute(sql, values).fetchone()

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """A connection whose queries all see the same state."""
        with self._connection() as db:
            db.execute("BEGIN")
            try:
                yield db
            finally:
                db.execute("ROLLBACK")

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Like `snapshot`, or inside the transaction that this thread is in."""
        with self._connection() as db:
            if db.in_transaction:
                yield db
                return
        with self.snapshot() as db:
            yield db

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A connection whose changes become visible together when the block ends, or not at all."""
        with self._connection() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Release file and right to write."""
        if self._pid != os.getpid():
            return
        with self._threads:
            db, self._db = self._db, None
            lock, self._lock = self._lock, None
            if db is not None:
                if lock is not None:
                    with suppress(sqlite3.Error):  # readers are there: the log stays beside it
                        db.execute("PRAGMA busy_timeout = 0")
                        db.execute("PRAGMA journal_mode = DELETE")
                db.close()
            if lock is not None:
                lock.release()

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        if self._pid != os.getpid():
            raise StoreError(
                f"The store {self.path} was open when this process was forked.",
                subject=str(self.path),
                hint="Close it before the fork, or start processes with the method 'spawn'.",
            )
        with self._threads:
            if self._db is None:
                raise StoreError("The store is closed.")
            with self._explaining():
                yield self._db

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._explained(error) from error

    def _explained(self, error: sqlite3.Error) -> StoreError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        text, name = f"The store {self.path}: {error}.", str(self.path)
        if code in _DAMAGED:
            return StoreCorrupt(text, subject=name)
        if code in _BUSY:
            return StoreLocked(text, subject=name, hint="Wait for the one that writes to it.")
        if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and self._no_room()):
            return full(name)
        return StoreError(text, subject=name)

    def _no_room(self) -> bool:
        sizes = [file.stat().st_size for file in self._files() if file.exists()]
        return no_room(self.path.parent, max(sizes, default=0), _PROBE)

    def _files(self) -> list[Path]:
        return [self.path, self.path.with_name(f"{self.path.name}-wal")]


def _refuse_named_journal(path: Path) -> None:
    """Refuse a rollback journal that names another file: SQLite would remove that file.

    vlmlens writes no such journal. The name, its length and a mark are at the journal's end.
    """
    journal = path.with_name(f"{path.name}-journal")
    if not journal.is_file() or journal.stat().st_size < len(_NAMES_ANOTHER):
        return
    with journal.open("rb") as file:
        file.seek(-len(_NAMES_ANOTHER), os.SEEK_END)
        end = file.read()
    if end == _NAMES_ANOTHER:
        raise StoreError(
            f"{journal} names another file, which SQLite would remove.",
            subject=str(journal),
            hint="Remove the journal if you know where it comes from; else do not write here.",
        )


def _connect(path: Path, mode: Mode) -> sqlite3.Connection:
    if mode == "a":
        _refuse_named_journal(path)
        return _opened(path, "mode=rwc")
    db = _opened(path, "mode=ro")
    try:
        db.execute("SELECT name FROM sqlite_master LIMIT 1").fetchone()
    except sqlite3.OperationalError:
        # A finished store in a folder that may not be written to cannot have its log's index.
        db.close()
        log = path.with_name(f"{path.name}-wal")
        if os.access(path.parent, os.W_OK) or (log.exists() and log.stat().st_size):
            raise
        db = _opened(path, "immutable=1")
    return db


def _opened(path: Path, how: str) -> sqlite3.Connection:
    return sqlite3.connect(
        f"file:{quote(str(path.absolute()))}?{how}",
        uri=True,
        timeout=_WAIT,
        isolation_level=None,
        check_same_thread=False,
    )
