"""A file lock that says who holds it: the right to write to a store or to change a run.

The system takes the lock back when the process ends, however it ends.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import weakref
from pathlib import Path

from vlmlens.errors import StoreLocked

LOCK_FILE = "writer.lock"
"""The name of a store's lock in its folder."""

_WAIT = "Wait for it or stop it; or give --out another folder."


class WriterLock:
    """The right to write, held until `release` or the process ends.

    Args:
        file: The file whose lock is the right. It stays when the right is given back.
        store: The name of what may be written to, for the message.
        what: What that is.
        shared: Whether others may hold it at the same time if they want it shared too.

    Raises:
        StoreLocked: Another process has it. The error names the process and its host.
        OSError: The file cannot be made, or its file system has no locks.
    """

    def __init__(
        self, file: Path, store: str, *, what: str = "the store", shared: bool = False
    ) -> None:
        self._file = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
            fcntl.flock(self._file, kind | fcntl.LOCK_NB)
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, own_name(), 0)
        except BlockingIOError as error:
            owner = os.pread(self._file, 4096, 0)
            os.close(self._file)
            raise locked(store, owner, what=what) from error
        except BaseException:
            os.close(self._file)
            raise
        _held.add(self)

    def release(self) -> None:
        """Give the right back, even if a forked child still holds the file."""
        _held.discard(self)
        fcntl.flock(self._file, fcntl.LOCK_UN)
        os.close(self._file)

    def share(self) -> None:
        """From now on, let others hold it too."""
        fcntl.flock(self._file, fcntl.LOCK_SH)

    def disown(self) -> None:
        """Close a forked child's copy; the parent keeps the right."""
        os.close(self._file)


_held: weakref.WeakSet[WriterLock] = weakref.WeakSet()


def _after_fork() -> None:
    for lock in list(_held):
        lock.disown()
    _held.clear()


os.register_at_fork(after_in_child=_after_fork)


def own_name() -> bytes:
    """What a lock says of this process."""
    return json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode()


def locked(store: str, owner: bytes, hint: str = "", what: str = "the store") -> StoreLocked:
    """The error for something that another process writes to.

    Args:
        store: Its name.
        owner: What the lock says.
        hint: What to do, if it is more than the usual.
        what: What it is.
    """
    try:
        known = json.loads(owner)
        who = f"Process {known['pid']} on {known['host']}"
    except (ValueError, KeyError, TypeError):
        who = "Another process"
    return StoreLocked(f"{who} writes to {what} {store}.", subject=store, hint=hint or _WAIT)
