"""The two locks of a store: one writer among processes, and a gate among threads."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vlmlens.errors import StoreLocked

LOCK_FILE = "writer.lock"


class WriterLock:
    """The right to write to a store, held until `release` or the process ends.

    Args:
        file: The file whose lock is the right.
        store: The store, for the message.

    Raises:
        StoreLocked: Another process has it; names the process and its host.
    """

    def __init__(self, file: Path, store: str) -> None:
        self._file = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, own_name(), 0)
        except BlockingIOError as error:
            owner = os.pread(self._file, 4096, 0)
            os.close(self._file)
            raise locked(store, owner) from error
        except BaseException:
            os.close(self._file)
            raise

    def release(self) -> None:
        """Give the right back, also where a forked child still holds the file."""
        fcntl.flock(self._file, fcntl.LOCK_UN)
        os.close(self._file)

    def disown(self) -> None:
        """Close a forked child's copy; the parent keeps the right."""
        os.close(self._file)


class Gate:
    """Many threads pass together, or one alone; newcomers let the one that waits go first."""

    def __init__(self) -> None:
        self._state = threading.Condition()
        self._inside = 0
        self._waiting = 0

    def enter(self) -> None:
        """Go in with others."""
        with self._state:
            while self._waiting:
                self._state.wait()
            self._inside += 1

    def leave(self) -> None:
        """Go out."""
        with self._state:
            self._inside -= 1
            if self._waiting:
                self._state.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until nobody is inside, and keep others out."""
        with self._state:
            self._waiting += 1
            try:
                self._state.wait_for(lambda: self._inside == 0)
                yield
            finally:
                self._waiting -= 1
                self._state.notify_all()


def own_name() -> bytes:
    """What a lock says of this process."""
    return json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode()


def locked(store: str, owner: bytes, hint: str = "") -> StoreLocked:
    """The error for a store that has a writer.

    Args:
        store: Its name.
        owner: What the writer's lock says.
        hint: What to do, where it is more than the usual.
    """
    try:
        known = json.loads(owner)
        who = f"Process {known['pid']} on {known['host']}"
    except (ValueError, KeyError, TypeError):
        who = "Another process"
    return StoreLocked(
        f"{who} writes to the store {store}.",
        subject=store,
        hint=hint or "Wait for it or stop it; or give --out another folder.",
    )
