"""A place in an object store, or in anything else that fsspec reaches."""

from __future__ import annotations

import json
import os
import random
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from vlmlens._locks import LOCK_FILE, locked, own_name
from vlmlens.errors import StoreError, StoreLocked
from vlmlens_plugins.storage._places import ByteRange, Pieces, Place

T = TypeVar("T")

PATIENCE = 30.0
"""Seconds for which a request is repeated, beside what fsspec's module does itself."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_PIECE = 32 << 20
_FINAL = (
    FileNotFoundError,
    FileExistsError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
    StoreError,
)
"""Errors that another try does not cure."""

_IMPOSSIBLE = (NotImplementedError, ValueError, TypeError, ImportError)
"""What fsspec's modules raise for what they cannot do, and for options that they do not know."""

_PERMANENT = (
    "NoCredentialsError",
    "PartialCredentialsError",
    "ParamValidationError",
    "NoRegionError",
)
"""Those of botocore's errors that another try does not cure either."""

_PACKAGES = {
    **dict.fromkeys(("s3", "s3a"), '"vlmlens[s3]"'),
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("abfs", "abfss", "az", "adl"), "adlfs"),
}
"""What to install for a protocol."""


class Remote(Place):
    """A place that fsspec reaches: an object store, memory, ...

    The right to write is an object there. It stays where a writer is killed; a later one on the
    same host sees that the process is gone and takes over, another one has to be told.

    Args:
        url: As fsspec understands it.
        options: For fsspec: endpoint, credentials, ...
        take_over: Write although the lock says that somebody does.
        patience: Seconds for which a request is repeated that fails for a passing reason.
    """

    delay: ClassVar[float] = 1.0

    def __init__(
        self,
        url: str,
        options: Mapping[str, Any],
        *,
        take_over: bool,
        patience: float = PATIENCE,
    ) -> None:
        super().__init__(url)
        self._url = url
        self._options = dict(options)
        self._take_over = take_over
        self._patience = patience
        self._held: bytes | None = None
        self._fs, self._root = _filesystem(url, self._options)

    def arrays(self) -> Any:
        """See `Place.arrays`."""
        from zarr.storage import FsspecStore

        return FsspecStore.from_url(self._url, storage_options=self._options)

    def get(self, key: str) -> bytes | None:
        """See `Place.get`; one request, unless the object is large.

        A large one is asked for as a whole: it may be replaced between two requests.
        """
        found = self.fetch([ByteRange(key, 0, _PIECE)])[0]
        if found is None or len(found) < _PIECE:
            return found
        return bytes(self._tried(self._fs.cat_file, self._at(key)))

    def put(self, key: str, data: bytes, *, new: bool = False) -> None:
        """See `Place.put`."""
        mode = {"mode": "create"} if new else {}
        try:
            self._tried(self._fs.pipe_file, self._at(key), data, **mode)
        except FileExistsError:
            # The answer to a request that succeeded may have been lost, and the request repeated.
            if not new or self.get(key) != data:
                raise

    def put_pieces(self, key: str, size: int, pieces: Pieces) -> None:
        """See `Place.put_pieces`: larger objects in several requests, which count once all did."""
        if size <= _PIECE:
            self.put(key, b"".join(pieces()))
        else:
            self._tried(self._upload, self._at(key), max(_PIECE, size // 9000), pieces)

    def _upload(self, path: str, block: int, pieces: Pieces) -> None:
        file = self._fs.open(path, "wb", block_size=block)
        try:
            for piece in pieces():
                file.write(piece)
            file.close()
        except BaseException:
            _discard(file)
            raise

    def fetch(self, ranges: Sequence[ByteRange]) -> list[bytes | None]:
        """See `Place.fetch`."""
        found: dict[int, bytes | None] = {}

        def ask() -> None:
            """Ask for what is not there yet, and raise the first error that may pass."""
            left = [i for i in range(len(ranges)) if i not in found]
            wanted = [ranges[i] for i in left]
            answers = self._fs.cat_ranges(
                [self._at(each.key) for each in wanted],
                [each.start for each in wanted],
                [each.stop for each in wanted],
                on_error="return",
            )
            failed: BaseException | None = None
            for i, answer in zip(left, answers, strict=True):
                if not isinstance(answer, BaseException):
                    found[i] = self._whole(ranges[i], bytes(answer))
                elif isinstance(answer, FileNotFoundError | NotADirectoryError):
                    found[i] = None
                elif _says(answer, "InvalidRange", "416"):
                    found[i] = b""
                else:
                    failed = failed or answer
            if failed is not None:
                raise failed

        self._tried(ask)
        return [found[i] for i in range(len(ranges))]

    def _whole(self, asked: ByteRange, answer: bytes) -> bytes:
        """The bytes of a range, if they are not those of the whole object."""
        if len(answer) > asked.stop - asked.start:
            raise StoreError(
                f"The object store {self.name} gave {len(answer)} bytes of {asked.key} instead of "
                f"{asked.stop - asked.start}.",
                subject=self.name,
                hint="It cannot read parts of objects: copy the store to a disk.",
            )
        return answer

    def remove(self, key: str) -> None:
        """See `Place.remove`."""
        if self.get(key) is not None:
            self._tried(self._fs.rm_file, self._at(key))

    def clear(self) -> None:
        """See `Place.clear`."""
        if self._tried(self._fs.exists, self._root):
            with suppress(FileNotFoundError):  # gone by a request whose answer was lost
                self._tried(self._fs.rm, self._root, recursive=True)

    def settle(self, keys: Iterable[str]) -> None:
        """See `Place.settle`: a finished upload is kept by the service."""

    def lock(self, *folders: str) -> None:
        """See `Place.lock`; there are no folders."""
        mine = json.dumps({**_own(), "token": secrets.token_hex(8)}).encode()
        try:
            self.put(LOCK_FILE, mine, new=True)
        except FileExistsError:
            owner = self.get(LOCK_FILE) or b""
            if not (self._take_over or _is_gone(owner)):
                raise self._locked(owner) from None
            self.put(LOCK_FILE, mine)
        self._held = mine

    def check_lock(self) -> None:
        """See `Place.check_lock`."""
        owner = self.get(LOCK_FILE)
        if owner != self._held:
            raise self._locked(owner or b"")

    def unlock(self) -> None:
        """See `Place.unlock`."""
        held, self._held = self._held, None
        if held is not None and self.get(LOCK_FILE) == held:
            self._tried(self._fs.rm_file, self._at(LOCK_FILE))

    def _at(self, key: str) -> str:
        return f"{self._root.rstrip('/')}/{key}"

    def _tried(self, action: Callable[..., T], *args: Any, **more: Any) -> T:
        """What an action gives, which is repeated where it fails for a reason that may pass.

        Raises:
            StoreError: It failed for as long as the patience lasts, or what is asked for cannot be
                done there.
            OSError: Another try would not help.
        """
        begin, pause = time.monotonic(), _FIRST_PAUSE
        while True:
            try:
                return action(*args, **more)
            except _IMPOSSIBLE as error:
                raise self._impossible(error) from error
            except _FINAL:
                raise
            except Exception as error:  # what fsspec's modules raise has no common class
                if type(error).__name__ in _PERMANENT:
                    raise self._impossible(error) from error
                if _says(error, "PreconditionFailed", "412"):
                    raise FileExistsError(str(error)) from error
                spent = time.monotonic() - begin
                if spent + pause > self._patience:
                    raise self._unusable(error, spent) from error
            time.sleep(pause * random.uniform(0.5, 1))  # noqa: S311  so that not all come back at once
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _impossible(self, error: Exception) -> StoreError:
        return StoreError(
            f"The object store {self.name} cannot be used: {str(error) or type(error).__name__}.",
            subject=self.name,
            hint="Check the place (--storage), the options for it (options.storage.remote), and "
            "the credentials in the environment.",
        )

    def _unusable(self, error: Exception, spent: float) -> StoreError:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return StoreError(
            f"The object store {self.name} cannot be used: {reason} (tried for {spent:.0f} s).",
            subject=self.name,
            hint="What was stored before is there. Check endpoint and network, and run the same "
            "command again with --resume.",
        )

    def _locked(self, owner: bytes) -> StoreLocked:
        return locked(
            self.name,
            owner,
            hint=f"Wait for it. If it was killed: remove the object {LOCK_FILE} there, or give "
            "--set options.storage.take_over=true.",
        )


def _filesystem(url: str, options: Mapping[str, Any]) -> tuple[Any, str]:
    from fsspec import url_to_fs
    from fsspec.registry import known_implementations

    try:
        fs, root = url_to_fs(url, use_listings_cache=False, **options)
    except ImportError as error:
        package = _PACKAGES.get(url.partition(":")[0])
        raise StoreError(
            f"{url!r} needs a module that is not installed: {error}.",
            subject=url,
            hint=f"pip install {package}" if package else "",
        ) from error
    except (ValueError, TypeError) as error:
        protocol = url.partition(":")[0]
        known = ", ".join(sorted(known_implementations)[:40])
        hint = "" if protocol in known_implementations else f"fsspec knows {known}, ..."
        raise StoreError(f"{url!r} cannot be reached: {error}.", subject=url, hint=hint) from error
    return fs, str(root)


def _own() -> dict[str, Any]:
    """What a lock says of this process: hosts and containers may have the same name."""
    found: dict[str, Any] = {**json.loads(own_name()), "processes": ""}
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        found["processes"] = f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    return found


def _is_gone(owner: bytes) -> bool:
    """Whether the owner of a lock was a process of this host, and has ended."""
    try:
        known, own = json.loads(owner), _own()
        if (known["host"], known.get("processes", own["processes"])) != (
            own["host"],
            own["processes"],
        ):
            return False
        os.kill(int(known["pid"]), 0)
    except ProcessLookupError:
        return True
    except (ValueError, KeyError, TypeError, AttributeError, OSError):
        return False
    return False


def _says(error: BaseException, *codes: str) -> bool:
    """Whether the service answered with one of some error codes, as botocore tells them."""
    for each in (error, error.__cause__):
        response = getattr(each, "response", None)
        if isinstance(response, dict) and response.get("Error", {}).get("Code") in codes:
            return True
    return False


def _discard(file: Any) -> None:
    """Drop an upload, which must not be completed with what is missing of it."""
    with suppress(Exception):  # the error that led here is the one to tell
        file.discard()
    with suppress(AttributeError):
        file.closed = True
