"""Scratch files: arrays on disk that are gone when they are no longer used, also after a crash."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vlmlens.errors import CompositionError

_SPARE = 64 * 2**20
"""Bytes that stay free on a disk."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_UNKNOWN = (errno.EOPNOTSUPP, errno.EINVAL)


@dataclass(frozen=True, slots=True)
class Scratch:
    """Where scratch files lie.

    Args:
        folder: The folder to prefer, such as the run's, or the nearest one above it that is there.
            None: the system's for temporary files.
    """

    folder: Path | None = None

    def array(self, shape: Sequence[int], dtype: str, order: str = "C") -> npt.NDArray[Any]:
        """An array of zeros in a file without a name, which its last user removes.

        Raises:
            CompositionError: No folder has room.
        """
        size = max(1, int(np.prod(shape)) * np.dtype(dtype).itemsize)
        kind: Any = order
        for folder in self._with_room(size):
            with tempfile.TemporaryFile(dir=folder) as file:
                if _reserved(file.fileno(), size):
                    return np.memmap(file, dtype, "r+", shape=tuple(shape), order=kind)
        raise self._no_room(size)

    def check(self, size: int) -> None:
        """Raise an error if there is no room, before anything is read.

        Args:
            size: Bytes.

        Raises:
            CompositionError: No folder has room.
        """
        if next(self._with_room(size), None) is None:
            raise self._no_room(size)

    def _no_room(self, size: int) -> CompositionError:
        return CompositionError(
            f"The probe needs {size / 1e9:.1f} GB of scratch space, which neither of these has: "
            f"{', '.join(self._folders)}.",
            subject="in_memory",
            hint="Free some, set TMPDIR to a folder with room, or probe fewer samples.",
        )

    @property
    def _folders(self) -> list[str]:
        preferred = [] if self.folder is None else [self.folder, *self.folder.parents]
        there = next((str(folder) for folder in preferred if folder.is_dir()), None)
        return [*([there] if there else []), tempfile.gettempdir()]

    def _with_room(self, size: int) -> Iterator[str]:
        for folder in self._folders:
            usable = Path(folder).is_dir() and os.access(folder, os.W_OK)
            if usable and shutil.disk_usage(folder).free >= size + _SPARE:
                yield folder


def _reserved(file: int, size: int) -> bool:
    """Give an empty file its size and its place on the disk; False if there is not so much.

    In a file without a place, a write to memory ends the process once the disk is full.
    """
    os.ftruncate(file, size)
    if not hasattr(os, "posix_fallocate"):
        return True
    try:
        os.posix_fallocate(file, 0, size)
    except OSError as error:
        if error.errno in _UNKNOWN:
            return True
        if error.errno in _FULL:
            return False
        raise
    return True
