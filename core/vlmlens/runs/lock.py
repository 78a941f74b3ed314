"""The right to change a run: taken before the first byte of it is written or removed."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vlmlens._disk import disk_errors
from vlmlens._files import remove_abandoned
from vlmlens._locks import WriterLock
from vlmlens.errors import StoreLocked

FILE = "run.lock"
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
_WRITTEN_TO = (".", "results", "images", "papers", "plugins", "columns", "columns/commits")

_log = logging.getLogger("vlmlens")


@contextmanager
def changing(folder: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold the right to change the run in a folder. The folder is made if it is not there.

    Temporary files that killed processes left in the run are removed.

    Args:
        folder: The run's folder.
        shared: Others may hold it at the same time if they want it shared too, as analyses do.

    Raises:
        StoreLocked: Another process works on the run.
        FileError: The folder cannot be made or written to.
    """
    with disk_errors():
        folder.mkdir(parents=True, exist_ok=True)
        lock = _lock(folder, shared=shared)
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def _lock(folder: Path, *, shared: bool) -> WriterLock | None:
    """The lock; None on a file system that has none."""
    place, name = folder / FILE, str(folder)
    try:
        try:
            lock = WriterLock(place, name, what="the run")
        except StoreLocked:
            if not shared:
                raise
            return WriterLock(place, name, what="the run", shared=True)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        _log.warning("%s has no file locks: work on the run in one process only.", folder)
        return None
    for part in _WRITTEN_TO:
        remove_abandoned(folder / part)
    if shared:
        lock.share()
    return lock
