"""What the system says about disks and files, as errors that tell the user what to do."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vlmlens._files import cache_folder, remove_abandoned
from vlmlens.errors import FileError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_ELSEWHERE = "Choose another folder, for example with --out."
_REASONS = {
    errno.EROFS: ("lies on a read-only file system", _ELSEWHERE),
    errno.EACCES: ("is not open to this user", "Change its permissions, or choose another place."),
    errno.EPERM: ("is not open to this user", "Change its permissions, or choose another place."),
    errno.ENAMETOOLONG: ("has a longer name than the file system allows", "Choose a shorter name."),
    errno.ENOTDIR: ("lies below something that is no folder", _ELSEWHERE),
    errno.EEXIST: ("exists already, and is no folder", _ELSEWHERE),
    errno.EISDIR: ("is a folder, and a file was expected", "Name a file."),
    errno.ELOOP: ("is a link that leads to itself", "Remove the link, or choose another place."),
    errno.EFBIG: ("is larger than the file system allows", _ELSEWHERE),
    errno.EIO: ("cannot be read or written (input/output error)", "Check the disk."),
    errno.ESTALE: ("is on a network file system that has gone", "Connect it, and try again."),
    errno.EMFILE: ("is one file too many for this process", "Raise the limit: ulimit -n 4096."),
    errno.ENFILE: ("is one file too many for this machine", "Close other programs."),
}


def disk_error(error: OSError) -> FileError | None:
    """The error to show for what the system says; None if it is not about disks and files."""
    name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
    if error.errno in _FULL:
        return _full(name)
    if error.errno not in _REASONS:
        return None
    reason, hint = _REASONS[error.errno]
    return FileError(f"{_shown(name)} {reason}.", subject=name or None, hint=hint)


@contextmanager
def disk_errors() -> Iterator[None]:
    """Raise `FileError` for what the system says about disks and files."""
    try:
        yield
    except OSError as error:
        found = disk_error(error)
        if found is None:
            raise
        raise found from error


def made_cache(*parts: str) -> Path:
    """A folder in the cache folder, made if it is not there.

    Raises:
        FileError: It cannot be made.
    """
    try:
        folder = cache_folder().joinpath(*parts)
        folder.mkdir(parents=True, exist_ok=True)
        remove_abandoned(folder)
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise FileError(
            f"The cache folder {_cache_name()!r} cannot be made: {reason}.",
            subject=_cache_name(),
            hint="Name a folder that can be written with the variable VLMLENS_CACHE.",
        ) from error
    return folder


def _cache_name() -> str:
    try:
        return str(cache_folder())
    except RuntimeError:
        return "~/.cache/vlmlens"


def _full(name: str) -> FileError:
    return FileError(
        f"No space is left on the disk{f' for {_shown(name)}' if name else ''}"
        f"{' (it has no inodes left)' if _no_inodes(name) else ''}.",
        subject=name or None,
        hint="What was stored before is there. Free some space, and run the same command again.",
    )


def _no_inodes(name: str) -> bool:
    place = Path(name or ".").absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    found = os.statvfs(place)
    return bool(found.f_files) and not found.f_favail


def _shown(name: str) -> str:
    """The name for a message; one that is too long is cut."""
    if not name:
        return "A file"
    return repr(name if len(name) <= 160 else f"{name[:120]}...{name[-20:]}")
