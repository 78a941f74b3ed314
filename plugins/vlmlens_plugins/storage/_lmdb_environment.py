"""Environment: a process's one handle on an LMDB folder.

LMDB forbids opening a folder twice in a process, so all stores on a folder share a handle. The
memory map grows by closing and opening again while no transaction runs.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import lmdb

from vlmlens.errors import StoreCorrupt, StoreError, StoreFull
from vlmlens_plugins.storage._chunk_format import Index
from vlmlens_plugins.storage._disk_full import full, no_room
from vlmlens_plugins.storage._locks import Gate

if TYPE_CHECKING:
    from lmdb import Transaction

T = TypeVar("T")
P = TypeVar("P")

DATA_FILE = "data.mdb"
LARGE_MAP = 1 << 40
SMALL_MAP = 1 << 26
_LOCKS = "lock.mdb"
_READERS = 512
_LOCKS_BYTES = 64 * (_READERS + 2)
_FREED = 24 << 20
_NO_SPACE = ("No space left", "quota exceeded", "File too large")
_DAMAGED = (
    lmdb.CorruptedError,
    lmdb.PageNotFoundError,
    lmdb.InvalidError,
    lmdb.VersionMismatchError,
    lmdb.PanicError,
)


class Environment:
    """An open LMDB folder with the index of what it holds.

    Args:
        folder: Where it lies.
        map_size: First size of the memory map in bytes; None: 1 TiB, or what the process may
            have. It costs address space only.
        sync: Whether a write waits for the disk.

    Raises:
        StoreError: The folder cannot be opened.
    """

    def __init__(self, folder: str, *, map_size: int | None, sync: bool) -> None:
        self.folder = folder
        self.verified: set[tuple[int, int]] = set()
        self._sync = sync
        self._gate = Gate()
        self._index = Index()
        self._index_lock = threading.Lock()
        self._write_lock = threading.Lock()
        self._readonly = not _may_write(folder)
        if not self._readonly:
            _keep_freed_memory()
        self._size, self._env = self._first(map_size)
        try:
            self._check_whole()
        except lmdb.Error as error:
            self._env.close()
            raise self._explained(error) from error
        except BaseException:
            self._env.close()
            raise

    def close(self) -> None:
        """Release the folder, once no transaction runs."""
        with self._gate.alone():
            self._env.close()

    def set_sync(self, sync: bool) -> None:
        """Change whether writes wait for the disk."""
        if sync != self._sync:
            self._sync = sync
            self._reopen(self._size)

    @contextmanager
    def snapshot(self, plan: Callable[[Index], P]) -> Iterator[tuple[Transaction[memoryview], P]]:
        """A read transaction with what `plan` finds in the index as of that transaction."""
        txn, planned = self._begin(plan)
        try:
            yield txn, planned
        except lmdb.Error as error:
            raise self._explained(error) from error
        finally:
            txn.abort()
            self._gate.leave()

    def write(self, work: Callable[[Transaction[bytes], Index], T]) -> T:
        """Run `work` in one write transaction; it runs again where the map has to grow.

        Raises:
            StoreFull: No space is left; nothing of the transaction is stored.
        """
        with self._write_lock:
            while True:
                try:
                    return self._attempt(work)
                except lmdb.MapFullError:
                    self._reopen(2 * self._size)
                except lmdb.MapResizedError:
                    self._reopen(2 * self._file_size())
                except lmdb.Error as error:
                    self._reopen(self._size)
                    raise self._explained(error) from error

    def _attempt(self, work: Callable[[Transaction[bytes], Index], T]) -> T:
        self._gate.enter()
        try:
            with self._env.begin(write=True) as txn:
                with self._index_lock:
                    self._index.refresh(txn, txn.id() - 1, self._file_size)
                return work(txn, self._index)
        finally:
            self._gate.leave()

    def _begin(self, plan: Callable[[Index], P]) -> tuple[Transaction[memoryview], P]:
        while True:
            try:
                return self._begin_once(plan)
            except lmdb.MapResizedError:
                self._reopen(2 * self._file_size())
            except lmdb.Error as error:
                raise self._explained(error) from error

    def _begin_once(self, plan: Callable[[Index], P]) -> tuple[Transaction[memoryview], P]:
        self._gate.enter()
        try:
            # Under the lock, so that the index never knows more than the transaction sees.
            with self._index_lock:
                txn = self._env.begin(buffers=True)
                try:
                    self._index.refresh(txn, txn.id(), self._file_size)
                    return txn, plan(self._index)
                except BaseException:
                    txn.abort()
                    raise
        except BaseException:
            self._gate.leave()
            raise

    def _first(self, map_size: int | None) -> tuple[int, lmdb.Environment]:
        sizes = [LARGE_MAP, max(SMALL_MAP, 2 * self._file_size())]
        for size in [map_size] if map_size else sizes:
            try:
                return size, self._open(size)
            except lmdb.MemoryError as error:
                last = error
            except lmdb.Error as error:
                raise self._explained(error) from error
        raise self._explained(last) from last

    def _open(self, size: int) -> lmdb.Environment:
        # py-lmdb 3 carries two engines; 0.9 is the one that every other program reads.
        newer = int(lmdb.__version__.split(".")[0]) >= 3
        engine: dict[str, Any] = {"lib_version": 0} if newer else {}
        if not self._readonly:
            _reserve_locks(Path(self.folder, _LOCKS))
        return lmdb.open(
            self.folder,
            map_size=-(-size // 65536) * 65536,
            readonly=self._readonly,
            lock=not self._readonly,
            sync=self._sync,
            max_readers=_READERS,
            **engine,
        )

    def _reopen(self, size: int) -> None:
        with self._gate.alone():
            self._env.close()
            try:
                self._env = self._open(size)
                self._size = size
            except lmdb.Error as error:
                self._env = self._open(self._size)
                raise self._explained(error) from error

    def _check_whole(self) -> None:
        """A file cut short would kill the process (SIGBUS) where its missing pages are read."""
        expected = (self._env.info()["last_pgno"] + 1) * self._env.stat()["psize"]
        found = self._file_size()
        if expected > found > 0 and self._env.info()["last_txnid"]:
            raise StoreCorrupt(
                f"The store {self.folder} is cut short: {found} of {expected} bytes are there.",
                subject=self.folder,
                hint="Copy it again from its source, or extract again with --fresh.",
            )

    def _file_size(self) -> int:
        path = Path(self.folder, DATA_FILE)
        return path.stat().st_size if path.exists() else 0

    def _explained(self, error: lmdb.Error) -> StoreError:
        text = f"The store {self.folder}: {error}."
        if isinstance(error, lmdb.MemoryError):
            return StoreFull(
                f"The process may not map {self.folder} into its address space.",
                subject=self.folder,
                hint="Raise its limit (ulimit -v).",
            )
        if isinstance(error, _DAMAGED):
            return StoreCorrupt(
                text,
                subject=self.folder,
                hint="Copy it again from its source, or extract again with --fresh.",
            )
        if any(sign in str(error) for sign in _NO_SPACE) or self._is_full():
            return full(self.folder)
        return StoreError(text, subject=self.folder)

    def _is_full(self) -> bool:
        return not self._readonly and no_room(self.folder, self._file_size(), SMALL_MAP)


def _reserve_locks(path: Path) -> None:
    """Give the table of readers its place on the disk.

    LMDB makes the file without filling it, and maps it. On a full disk, the first use of a page
    that has no place would kill the process (SIGBUS).

    Raises:
        OSError: There is no place.
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        found = os.fstat(file)
        size = found.st_size or _LOCKS_BYTES
        if found.st_blocks * 512 < size:
            os.posix_fallocate(file, 0, size)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(file)


@cache
def _keep_freed_memory() -> None:
    """Let the next transactions have the memory of the last; once per process is enough.

    LMDB allocates what a transaction writes, and frees it at its end. glibc gives large freed
    blocks back to the system, and to get them again page by page costs as much as to fill them,
    until a block as large has been freed once: it then keeps up to twice as much
    (`M_MMAP_THRESHOLD` in mallopt(3)). Models free such blocks all the time; a process that only
    copies stores does not. The block here is never filled, so it takes no memory.
    """
    bytes(_FREED)


def _may_write(folder: str) -> bool:
    data = Path(folder, DATA_FILE)
    return os.access(folder, os.W_OK) and (not data.exists() or os.access(data, os.W_OK))
