"""Paths that come from data: they stay in their folder unless the user says otherwise."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from vlmlens._files import expanded
from vlmlens.errors import DataError, DataNotFound, did_you_mean

ALLOW_OUTSIDE = "--set options.dataset.allow_outside=true"


def existing(source: str) -> Path:
    """The user's path, made absolute without following links.

    Raises:
        DataNotFound: There is nothing; names the nearest neighbours.
    """
    path = expanded(source).absolute()
    if path.exists():
        return path
    beside = sorted(item.name for item in path.parent.iterdir()) if path.parent.is_dir() else []
    hint = did_you_mean(path.name, beside) or "Check the path; it is read from where you are."
    raise DataNotFound(f"There is no file or folder {source!r}.", subject=source, hint=hint)


def is_inside(path: Path, folder: Path) -> bool:
    """Whether a path, with all its links followed, lies in the folder, links followed too."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


class InFolder:
    """Checks that many paths lie in a folder. What their folders are is asked once.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._within = lru_cache(4096)(self._lies_within)

    def check(self, path: Path, *, where: str, given: str) -> None:
        """Like `check_inside`."""
        parent, name = os.path.split(path)
        plain = name not in ("", ".", "..") and not os.path.islink(path)  # noqa: PTH114 - faster
        if not (plain and self._within(parent)):
            check_inside(path, self._folder, where=where, given=given)

    def _lies_within(self, folder: str) -> bool:
        return is_inside(Path(folder), self._folder)


def check_inside(path: Path, folder: Path, *, where: str, given: str) -> None:
    """Refuse a path that leaves its folder.

    Raises:
        DataError: It does; says how to allow it.
    """
    if not is_inside(path, folder):
        raise DataError(
            f"{where}: {given!r} is outside the folder {str(folder)!r}.",
            subject=given,
            hint=f"Move the file there, or trust the data with {ALLOW_OUTSIDE}.",
        )
