"""Where a Zarr store lies: a local folder, or anything that fsspec reaches.

A place keeps small objects that are replaced as a whole, names the Zarr store of the arrays beside
them, and gives the right to write.
"""

from __future__ import annotations

import json
import os
import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from vlmlens._files import expanded, write_bytes
from vlmlens._locks import LOCK_FILE, WriterLock, locked, own_name
from vlmlens.abc.storage import remove_path
from vlmlens.errors import StoreError, StoreLocked
from vlmlens_plugins.storage._disk_full import FULL, full

_LOCAL = ("", "file", "local")


class Place(ABC):
    """Where a store lies.

    Args:
        name: As the user gave it, for messages.
    """

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
    def remove(self, key: str) -> None:
        """Remove an object, if it is there."""

    @abstractmethod
    def clear(self) -> None:
        """Remove everything."""

    @abstractmethod
    def settle(self, keys: Iterable[str]) -> None:
        """Wait until what was written under these keys survives a power cut."""

    @abstractmethod
    def lock(self) -> None:
        """Take the right to write.

        Raises:
            StoreLocked: Another writer has it.
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
        if new and path.exists():
            raise FileExistsError(str(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, data)

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

    def lock(self) -> None:
        """See `Place.lock`; the system takes it back when the process ends."""
        # With all its folders, so that a run can list what belongs to the store from the beginning.
        (self._path / "commits").mkdir(parents=True, exist_ok=True)
        self._lock = WriterLock(self._path / LOCK_FILE, self.name)

    def unlock(self) -> None:
        """See `Place.unlock`."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None


class Remote(Place):
    """A place that fsspec reaches: an object store, memory, ...

    The right to write is an object there. It stays where a writer is killed; a later one on the
    same host sees that the process is gone and takes over, another one has to be told.

    Args:
        url: As fsspec understands it.
        options: For fsspec: endpoint, credentials, ...
        take_over: Write although the lock says that somebody does.
    """

    def __init__(self, url: str, options: Mapping[str, Any], *, take_over: bool) -> None:
        super().__init__(url)
        self._url = url
        self._options = dict(options)
        self._take_over = take_over
        self._held: bytes | None = None
        self._fs, self._root = _filesystem(url, self._options)

    def arrays(self) -> Any:
        """See `Place.arrays`."""
        from zarr.storage import FsspecStore

        return FsspecStore.from_url(self._url, storage_options=self._options)

    def get(self, key: str) -> bytes | None:
        """See `Place.get`."""
        try:
            data: bytes = self._fs.cat_file(self._at(key))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return data

    def put(self, key: str, data: bytes, *, new: bool = False) -> None:
        """See `Place.put`."""
        path = self._at(key)
        if new:
            self._fs.pipe_file(path, data, mode="create")
            return
        self._fs.pipe_file(path, data)

    def remove(self, key: str) -> None:
        """See `Place.remove`."""
        if self.get(key) is not None:
            self._fs.rm_file(self._at(key))

    def clear(self) -> None:
        """See `Place.clear`."""
        if self._fs.exists(self._root):
            self._fs.rm(self._root, recursive=True)

    def settle(self, keys: Iterable[str]) -> None:
        """See `Place.settle`: a finished upload is kept by the service."""

    def lock(self) -> None:
        """See `Place.lock`."""
        mine = json.dumps({**json.loads(own_name()), "token": secrets.token_hex(8)}).encode()
        try:
            self.put(LOCK_FILE, mine, new=True)
        except FileExistsError:
            owner = self.get(LOCK_FILE) or b""
            if not (self._take_over or _is_gone(owner)):
                raise self._locked(owner) from None
            self.put(LOCK_FILE, mine)
        self._held = mine

    def unlock(self) -> None:
        """See `Place.unlock`."""
        held, self._held = self._held, None
        if held is not None and self.get(LOCK_FILE) == held:
            self._fs.rm_file(self._at(LOCK_FILE))

    def _at(self, key: str) -> str:
        return f"{self._root.rstrip('/')}/{key}"

    def _locked(self, owner: bytes) -> StoreLocked:
        return locked(
            self.name,
            owner,
            hint="Wait for it. If it was killed: --set options.storage.take_over=true.",
        )


def place_of(location: str, options: Mapping[str, Any], *, take_over: bool) -> Place:
    """The place that a location names.

    Args:
        location: A folder, `zarr:///folder`, `zarr+file:///folder`, or `zarr+URL`.
        options: For fsspec.
        take_over: See `Remote`.

    Raises:
        StoreError: It names nothing, or fsspec knows no such protocol.
    """
    if not location.startswith(("zarr:", "zarr+")):
        return Folder(expanded(location))
    parts = urlsplit(location)
    protocol = parts.scheme.partition("+")[2]
    if protocol not in _LOCAL:
        return Remote(location.removeprefix("zarr+"), options, take_over=take_over)
    home = unquote(f"{parts.netloc}{parts.path}").lstrip("/")
    if home.startswith("~") and (path := expanded(home)).is_absolute():
        return Folder(path)
    if parts.netloc or not parts.path.startswith("/"):
        raise StoreError(
            f"{location!r} is not a folder.",
            subject=location,
            hint="Write zarr:///path/to/folder or zarr+s3://bucket/path.",
        )
    return Folder(Path(unquote(parts.path)))


def _filesystem(url: str, options: Mapping[str, Any]) -> tuple[Any, str]:
    from fsspec import url_to_fs
    from fsspec.registry import known_implementations

    try:
        fs, root = url_to_fs(url, use_listings_cache=False, **options)
    except ImportError as error:
        raise StoreError(
            f"{url!r} needs a module that is not installed: {error}.", subject=url
        ) from error
    except (ValueError, TypeError) as error:
        protocol = url.partition(":")[0]
        known = ", ".join(sorted(known_implementations)[:40])
        hint = "" if protocol in known_implementations else f"fsspec knows {known}, ..."
        raise StoreError(f"{url!r} cannot be reached: {error}.", subject=url, hint=hint) from error
    return fs, str(root)


def _is_gone(owner: bytes) -> bool:
    """Whether the owner of a lock was a process of this host, and has ended."""
    try:
        known, own = json.loads(owner), json.loads(own_name())
        if known["host"] != own["host"]:
            return False
        os.kill(int(known["pid"]), 0)
    except ProcessLookupError:
        return True
    except (ValueError, KeyError, TypeError, OSError):
        return False
    return False


@contextmanager
def explaining(place: Place) -> Iterator[None]:
    """Turn what the system says into errors of the store."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise full(place.name) from error
        reason = error.strerror or str(error)
        raise StoreError(
            f"The store {place.name} cannot be used: {reason}.", subject=place.name
        ) from error
