"""Telling a full disk from other trouble."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

from vlmlens.errors import StoreFull

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""System errors that say that a file cannot grow."""


def no_room(folder: str | Path, size: int, extra: int) -> bool:
    """Whether a file of `size` bytes in a folder could not grow by `extra`.

    Databases report a short write as an input/output error, whatever its cause.
    """
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            os.posix_fallocate(probe.fileno(), size, extra)
    except OSError as error:
        return error.errno in FULL
    return False


def full(store: str) -> StoreFull:
    """The error for a store whose disk is full."""
    return StoreFull(
        f"No space is left for the store {store}; what was stored before is there.",
        subject=store,
        hint="Free some disk space and run the same command again.",
    )
