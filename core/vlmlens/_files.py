"""Files, written so that a reader never sees half of one, and the cache folder."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

FILE_MODULE = "vlmlens_file_"
"""How names of modules begin that were imported from `FILE.py`, not from a package."""

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")
_KEPT_OF_NAME = 48


def write_bytes(
    path: Path, data: bytes | Iterable[bytes | memoryview], *, durable: bool = True
) -> None:
    """Replace a file's content in one step.

    Args:
        path: The file.
        data: Its content; it may be given in pieces.
        durable: Whether to wait until it survives a power cut.
    """
    temporary = _temporary(path)
    try:
        with temporary.open("xb") as file:
            _mark_as_used(file.fileno())
            file.writelines([data] if isinstance(data, bytes) else data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    if durable:
        _settle(path.parent)


def write_text(path: Path, text: str) -> None:
    """Replace a file's content in one step, UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Replace a file's content by strict JSON."""
    write_text(path, json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def create_only(path: Path, data: bytes) -> bool:
    """Write a file in one step, if there is none.

    Returns:
        Whether it was written; False if there was one, which stays as it is.
    """
    temporary = _temporary(path)
    try:
        with temporary.open("xb") as file:
            _mark_as_used(file.fileno())
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            try:
                path.hardlink_to(temporary)
            except FileExistsError:
                return False
            except OSError:  # a file system without links
                return _create_in_place(path, data)
    finally:
        temporary.unlink(missing_ok=True)
    _settle(path.parent)
    return True


def _create_in_place(path: Path, data: bytes) -> bool:
    try:
        with path.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        return False
    return True


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write a file or a folder to, which is moved to `path` at the end.

    What killed processes left of `path` is removed first.
    """
    remove_abandoned(path.parent, path.name)
    folder = _temporary(path)
    folder.mkdir()
    handle = os.open(folder, os.O_RDONLY)
    try:
        _mark_as_used(handle)
        yield folder / path.name
        (folder / path.name).rename(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def remove_abandoned(folder: Path, name: str | None = None) -> None:
    """Remove the temporary files that killed processes left in a folder.

    Args:
        folder: The folder; nothing happens if there is none.
        name: Only those of the file with this name.
    """
    with suppress(OSError):
        for path in list(folder.iterdir()):
            ours = _TEMPORARY.fullmatch(path.name)
            if ours and (name is None or path.name.startswith(f".{name[:_KEPT_OF_NAME]}.")):
                _remove_if_abandoned(path)


def is_temporary(name: str) -> bool:
    """Whether a file name is that of a temporary file of `write_bytes` or `replacing`."""
    return _TEMPORARY.fullmatch(name) is not None


def expanded(path: str | os.PathLike[str]) -> Path:
    """The path; `~` and `~user` at its beginning are home folders, if there are such."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # no such user, or no home folder
        return Path(path)


def cache_folder() -> Path:
    """Where vlmlens keeps what it can make again: VLMLENS_CACHE, else the user's cache folder."""
    chosen = os.environ.get("VLMLENS_CACHE")
    if chosen:
        return expanded(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (expanded(base) if base else Path.home() / ".cache") / "vlmlens"


def state_folder() -> Path:
    """Where vlmlens keeps what must last: VLMLENS_STATE, else the user's state folder."""
    chosen = os.environ.get("VLMLENS_STATE")
    if chosen:
        return expanded(chosen)
    base = os.environ.get("XDG_STATE_HOME")
    return (expanded(base) if base else Path.home() / ".local" / "state") / "vlmlens"


def _temporary(path: Path) -> Path:
    """A name beside `path`, cut so that it is no longer than file systems allow."""
    return path.with_name(f".{path.name[:_KEPT_OF_NAME]}.{os.urandom(4).hex()}.tmp")


def _mark_as_used(file: int) -> None:
    """Hold a lock until the file is closed, or the process ends."""
    with suppress(OSError):  # a file system without locks: then nothing is taken for abandoned
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _remove_if_abandoned(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return
    else:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    finally:
        os.close(handle)


def _settle(folder: Path) -> None:
    """Make a new name in a folder survive a power cut."""
    with suppress(OSError):  # some file systems cannot
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
