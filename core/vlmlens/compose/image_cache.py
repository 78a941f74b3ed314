"""What earlier runs have seen of image files, kept in the user's cache folder.

A file that has not changed is not read again: neither to see whether it is complete nor for its
digest. Changed is what has another size, time of change, or place on the disk. What was seen is
stored as it is read, so that a check that was stopped goes on where it stopped.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmlens._disk import made_cache
from vlmlens.errors import FileError

Size = tuple[int, int]

_FILE = "image-check-1.sqlite"
_LARGEST = 1 << 30
_AT_ONCE = 500
SETTLED = 0.1
"""Seconds: a file that was changed so shortly before it was read may change again unnoticed."""

_TABLE = (
    "CREATE TABLE IF NOT EXISTS images (path TEXT PRIMARY KEY, size INTEGER, changed INTEGER, "
    "modified INTEGER, inode INTEGER, width INTEGER, height INTEGER, digest BLOB, "
    "transparent INTEGER, deep INTEGER, pages INTEGER, rules TEXT, reader TEXT) WITHOUT ROWID"
)
_INSERT = f"INSERT OR REPLACE INTO images VALUES ({','.join('?' * 13)})"  # noqa: S608
_NOT_KEPT = "What is seen of images is not kept for later runs: %s"
_log = logging.getLogger("vlmlens")


@dataclass(frozen=True, slots=True)
class Seen:
    """The outcome of reading an image: its size, or what is wrong with it; what to tell of it.

    Args:
        size: Width and height.
        reason: Why it cannot be used; None if it can.
        transparent: Whether it has transparent parts.
        deep: Whether it has 16 bits per channel.
        pages: The number of its pages or frames.
        digest: SHA-256 of the file, in hexadecimal; "" for an image in memory.
        state: The file's `state_of` before it was read; empty for an image in memory.
    """

    size: Size | None = None
    reason: str | None = None
    transparent: bool = False
    deep: bool = False
    pages: int = 1
    digest: str = ""
    state: tuple[int, ...] = ()


class ImageCache:
    """What was seen of image files. Made by `image_cache`.

    Args:
        database: Holds the table of images.
        reader: What reads images: with another version, files are read again.
    """

    def __init__(self, database: sqlite3.Connection, reader: str) -> None:
        self._database = database
        self._reader = reader
        self._own: dict[str, Seen] = {}
        """What this process alone may know: files that cannot be used, or were just changed."""

    def known(self, paths: Sequence[str], rules: str) -> dict[str, Seen]:
        """What is known of those of the files that have not changed.

        Args:
            paths: The files.
            rules: How images become 8-bit RGB; it matters to files of 16 bits per channel.
        """
        own = ((path, self._own[path]) for path in paths if path in self._own)
        found = {path: seen for path, seen in own if seen.state == state_of(path)}
        for first in range(0, len(paths), _AT_ONCE):
            some = paths[first : first + _AT_ONCE]
            marks = ",".join("?" * len(some))
            rows = self._rows(
                f"SELECT * FROM images WHERE path IN ({marks}) AND reader = ?",  # noqa: S608
                (*some, self._reader),
            )
            for path, *state, width, height, digest, clear, deep, pages, by, _ in rows:
                then = tuple(state)
                if then == state_of(path) and (by == rules or not deep):
                    told = (bool(clear), bool(deep), pages, digest.hex(), then)
                    found[path] = Seen((width, height), None, *told)
        return found

    def keep(self, seen: Mapping[str, Seen], rules: str, began: float) -> None:
        """Keep what was seen of files.

        Args:
            seen: What was seen, by path.
            rules: See `known`.
            began: The time before the first of them was read.
        """
        latest = (began - SETTLED) * 1e9
        rows = []
        for path, one in seen.items():
            state = one.state
            if one.reason is not None or not state or state[1] > latest:
                self._own[path] = one
                continue
            told = (one.transparent, one.deep, one.pages, rules, self._reader)
            rows.append((path, *state, *(one.size or ()), bytes.fromhex(one.digest), *told))
        try:
            with self._database:
                self._database.executemany(_INSERT, rows)
        except sqlite3.Error as error:
            self._give_up(error)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _rows(self, query: str, values: Sequence[Any]) -> list[Any]:
        try:
            return self._database.execute(query, values).fetchall()
        except sqlite3.Error as error:
            self._give_up(error)
            return []

    def _give_up(self, error: Exception) -> None:
        """Go on with a table of this process alone."""
        _log.warning(_NOT_KEPT, error)
        self._database.close()
        self._database = _with_table("")


def state_of(path: str) -> tuple[int, ...]:
    """What tells that a file was changed: size, times and place; empty if there is no file."""
    try:
        found = os.stat(path)  # noqa: PTH116 - four times faster than Path.stat
    except OSError:
        return ()
    return found.st_size, found.st_ctime_ns, found.st_mtime_ns, found.st_ino & (2**63 - 1)


@contextmanager
def image_cache() -> Iterator[ImageCache]:
    """The user's cache of images; where it cannot be used, one for this process alone."""
    cache = ImageCache(_opened(), _reader())
    try:
        yield cache
    finally:
        cache.close()


def _opened() -> sqlite3.Connection:
    try:
        path = made_cache() / _FILE
        if path.exists() and path.stat().st_size > _LARGEST:
            path.unlink()
        return _with_table(path)
    except (sqlite3.Error, OSError, FileError) as error:
        _log.warning(_NOT_KEPT, error)
        return _with_table("")


def _with_table(path: Path | str) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=10)
    try:
        database.execute("PRAGMA synchronous = OFF")
        database.execute("PRAGMA cache_size = -4000")
        database.execute(_TABLE)
        _check_table(database)
    except BaseException:
        database.close()
        raise
    return database


def _check_table(database: sqlite3.Connection) -> None:
    kept: Any = database.execute("SELECT * FROM images LIMIT 1").description
    if len(kept) != 13:
        raise sqlite3.DatabaseError("the file holds another table")


def _reader() -> str:
    import PIL

    return f"1 Pillow {PIL.__version__}"
