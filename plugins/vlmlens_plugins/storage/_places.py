"""Where a store of several files lies: a local folder, or anything that fsspec reaches.

A place keeps objects that are written as a whole, and gives the right to write.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from vlmlens._files import create_only, write_bytes
from vlmlens._locks import LOCK_FILE, WriterLock
from vlmlens.abc.storage import remove_path
from vlmlens.errors import StoreError
from vlmlens_plugins.storage._disk_full import FULL, full

_HINTS: Mapping[type[OSError], str] = {
    FileNotFoundError: "Check that the bucket or folder is there, and that its name is right.",
    PermissionError: "Check permissions, or credentials and their rights: to read, write, list and "
    "remove what is there.",
}

Pieces = Callable[[], Iterable[bytes | memoryview]]
"""Gives an object's content in pieces, from the beginning each time it is called."""


class ByteRange(NamedTuple):
    """A part of an object: its name, the first byte, and the byte after the last one."""

    key: str
    start: int
    stop: int


class Place(ABC):
    """Where a store lies.

    Args:
        name: As the user gave it, for messages.
    """

    delay: ClassVar[float] = 0.0
    """Seconds for which a reader need not ask again what is new."""

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def arrays(self) -> Any:
        """The `zarr.abc.store.Store` of this place."""

    @abstractmethod
    def get(self, key: str) -> bytes | None:
        """An object, or None where there is none."""

    @abstractmethod
    def put(self, key: str, data: bytes, *, new: bool = False) -> None:
        """Replace an object in one step.

        Args:
            key: Its name.
            data: Its content.
            new: It must not be there yet.

        Raises:
            FileExistsError: It is new, and there.
        """

    @abstractmethod
    def put_pieces(self, key: str, size: int, pieces: Pieces) -> None:
        """Replace an object in one step, without holding all of it in memory.

        Args:
            key: Its name.
            size: In bytes.
            pieces: Its content.
        """

    @abstractmethod
    def fetch(self, ranges: Sequence[ByteRange]) -> list[bytes | None]:
        """Parts of objects, at the same time where the place can do that.

        Returns:
            The bytes of each, fewer where the object ends before; None where there is no object.
        """

    @abstractmethod
    def remove(self, key: str) -> None:
        """Remove an object, if it is there."""

    @abstractmethod
    def clear(self) -> None:
        """Remove everything."""

    @abstractmethod
    def settle(self, keys: Iterable[str]) -> None:
        """Wait until what was written under these keys survives a power cut."""

    @abstractmethod
    def lock(self, *folders: str) -> None:
        """Take the right to write.

        Args:
            folders: Folders of the store. They are made, so that a run can list from the beginning
                what belongs to it.

        Raises:
            StoreLocked: Another writer has it.
        """

    @abstractmethod
    def check_lock(self) -> None:
        """Check that the right to write was not taken over.

        Raises:
            StoreLocked: It was.
        """

    @abstractmethod
    def unlock(self) -> None:
        """Give the right to write back."""


class Folder(Place):
    """A local folder.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path
        self._lock: WriterLock | None = None

    def arrays(self) -> Any:
        """See `Place.arrays`."""
        from zarr.storage import LocalStore

        return LocalStore(self._path)

    def get(self, key: str) -> bytes | None:
        """See `Place.get`."""
        path = self._path / key
        try:
            return path.read_bytes() if path.is_file() else None
        except (FileNotFoundError, NotADirectoryError):
            return None

    def put(self, key: str, data: bytes, *, new: bool = False) -> None:
        """See `Place.put`; on the disk when this returns."""
        path = self._path / key
        path.parent.mkdir(parents=True, exist_ok=True)
        if not new:
            write_bytes(path, data)
        elif not create_only(path, data):
            raise FileExistsError(str(path))

    def put_pieces(self, key: str, size: int, pieces: Pieces) -> None:
        """See `Place.put_pieces`."""
        path = self._path / key
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, pieces())

    def fetch(self, ranges: Sequence[ByteRange]) -> list[bytes | None]:
        """See `Place.fetch`."""
        return [self._part(*each) for each in ranges]

    def _part(self, key: str, start: int, stop: int) -> bytes | None:
        try:
            with (self._path / key).open("rb") as file:
                left = os.fstat(file.fileno()).st_size - start
                file.seek(start)
                return file.read(max(0, min(stop - start, left)))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def remove(self, key: str) -> None:
        """See `Place.remove`; done on the disk when this returns."""
        (self._path / key).unlink(missing_ok=True)
        self.settle([key.rpartition("/")[0]])

    def clear(self) -> None:
        """See `Place.clear`."""
        remove_path(self._path)

    def settle(self, keys: Iterable[str]) -> None:
        """See `Place.settle`."""
        paths = [self._path / key for key in keys]
        for path in dict.fromkeys([*paths, *(path.parent for path in paths)]):
            file = os.open(path, os.O_RDONLY)
            try:
                os.fsync(file)
            finally:
                os.close(file)

    def lock(self, *folders: str) -> None:
        """See `Place.lock`; the system takes it back when the process ends."""
        for name in folders or ("",):
            (self._path / name).mkdir(parents=True, exist_ok=True)
        self._lock = WriterLock(self._path / LOCK_FILE, self.name)

    def check_lock(self) -> None:
        """See `Place.check_lock`: the system keeps it."""

    def unlock(self) -> None:
        """See `Place.unlock`."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None


@contextmanager
def entered(
    place: Place, *, is_open: bool, process: int, threads: AbstractContextManager[Any]
) -> Iterator[None]:
    """Use a store in the process that opened it, one thread at a time; errors as of `explaining`.

    Args:
        place: Where the store lies.
        is_open: Whether it is open.
        process: The process that opened it.
        threads: The store's lock.

    Raises:
        StoreError: The store is closed, or was opened before a fork.
    """
    if not is_open:
        raise StoreError("The store is closed.")
    if process != os.getpid():
        raise StoreError(
            f"The store {place.name} was open when this process was forked.",
            subject=place.name,
            hint="Close it before the fork, or start processes with the method 'spawn'.",
        )
    with threads, explaining(place):
        yield


@contextmanager
def explaining(place: Place) -> Iterator[None]:
    """Turn what the system says into errors of the store."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise full(place.name) from error
        reason = (error.strerror or str(error) or type(error).__name__).rstrip(".")
        hint = next((text for kind, text in _HINTS.items() if isinstance(error, kind)), "")
        raise StoreError(
            f"The store {place.name} cannot be used: {reason}.", subject=place.name, hint=hint
        ) from error
