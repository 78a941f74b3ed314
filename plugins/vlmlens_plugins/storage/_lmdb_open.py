"""Which LMDB folders this process has open."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path

from vlmlens._locks import LOCK_FILE, WriterLock
from vlmlens.errors import StoreError
from vlmlens_plugins.storage._lmdb_environment import DATA_FILE, Environment


@dataclass(slots=True)
class _Entry:
    environment: Environment
    file: tuple[int, int]
    users: int = 0


class Lease:
    """A store's share of an environment; the last one to be returned closes it."""

    def __init__(self, environment: Environment, key: str, writer: WriterLock | None) -> None:
        self._environment = environment
        self._key = key
        self._writer = writer
        self._pid = os.getpid()

    @property
    def environment(self) -> Environment:
        """The environment.

        Raises:
            StoreError: The process is a fork of the one that opened the store.
        """
        if self._pid != os.getpid():
            raise _forked(self._key)
        return self._environment

    def give_back(self) -> None:
        """Return the share."""
        if self._pid != os.getpid():
            return
        with _lock:
            if self._writer is not None:
                self._writer.release()
            _release(self._key, self._environment)


_entries: dict[str, _Entry] = {}
_inherited: dict[str, _Entry] = {}
_lock = threading.Lock()


def lease(folder: str, *, writer: bool, map_size: int | None, sync: bool) -> Lease:
    """A share of the environment at `folder`, opened where this process has it not open yet.

    Raises:
        StoreLocked: Another store writes to the folder.
        StoreError: It cannot be opened.
    """
    key = str(Path(folder).resolve())
    with _lock:
        lock = WriterLock(Path(key, LOCK_FILE), key) if writer else None
        try:
            entry = _entry(key, map_size, sync)
            if writer:
                entry.environment.set_sync(sync)
        except BaseException:
            if lock is not None:
                lock.release()
            raise
        entry.users += 1
        return Lease(entry.environment, key, lock)


def _entry(key: str, map_size: int | None, sync: bool) -> _Entry:
    if key in _inherited:
        raise _forked(key)
    entry = _entries.get(key)
    if entry is not None and entry.file != _identity(key):
        raise StoreError(
            f"The store {key} was replaced while this process has it open.",
            subject=key,
            hint="Close it before it is removed or copied over.",
        )
    if entry is None:
        environment = Environment(key, map_size=map_size, sync=sync)
        entry = _entries[key] = _Entry(environment, _identity(key))
    return entry


def _release(key: str, environment: Environment) -> None:
    entry = _entries[key]
    entry.users -= 1
    if entry.users == 0:
        del _entries[key]
        environment.close()


def _forked(key: str) -> StoreError:
    return StoreError(
        f"The store {key} was open when this process was forked, and LMDB does not survive that.",
        subject=key,
        hint="Close it before the fork, or start processes with the method 'spawn'.",
    )


def _identity(key: str) -> tuple[int, int]:
    try:
        stat = Path(key, DATA_FILE).stat()
    except FileNotFoundError:
        return (0, 0)
    return (stat.st_dev, stat.st_ino)


def _after_fork() -> None:
    """A child must neither use nor close what it inherits.

    LMDB forbids both, and closing would free the parent's reader slots. The environments are
    kept, because py-lmdb closes what is no longer referred to.
    """
    global _lock  # noqa: PLW0603  another thread of the parent may have held it
    _lock = threading.Lock()
    _inherited.update(_entries)
    _entries.clear()


os.register_at_fork(after_in_child=_after_fork)
