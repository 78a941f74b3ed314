"""Scratch files: arrays on disk that are gone when they are no longer used, also after a crash."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vlmlens.errors import CompositionError

_SPARE = 64 * 2**20
"""Bytes that stay free on a disk."""


@dataclass(frozen=True, slots=True)
class Scratch:
    """Where scratch files lie.

    Args:
        folder: The folder to prefer, such as the run's; None: the system's for temporary files.
    """

    folder: Path | None = None

    def array(self, shape: Sequence[int], dtype: str, order: str = "C") -> npt.NDArray[Any]:
        """An array of zeros in a file without a name, which its last user removes.

        Raises:
            CompositionError: No folder has room.
        """
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        with tempfile.TemporaryFile(dir=self._with_room(size)) as file:
            file.truncate(max(1, size))
            kind: Any = order
            return np.memmap(file, dtype, "r+", shape=tuple(shape), order=kind)

    def _with_room(self, size: int) -> str:
        tried = [*([str(self.folder)] if self.folder else []), tempfile.gettempdir()]
        for folder in tried:
            if not (Path(folder).is_dir() and os.access(folder, os.W_OK)):
                continue
            if shutil.disk_usage(folder).free >= size + _SPARE:
                return folder
        raise CompositionError(
            f"The probe needs {size / 1e9:.1f} GB of scratch space, which neither of these has: "
            f"{', '.join(tried)}.",
            subject="in_memory",
            hint="Free some, set TMPDIR to a folder with room, or probe fewer samples.",
        )
