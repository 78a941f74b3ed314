"""Signatures that tell a run of this user from one that somebody else made or edited.

A secret key lies in the user's own state folder, never in a run. What a run's folder says is
believed only if its signature was made with that key.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import secrets
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

from vlmlens._files import state_folder

KEY = "run-key"
"""The file of the key in the state folder."""

_BYTES = 32
_PIECE = 1 << 20
_log = logging.getLogger("vlmlens")


def signature(name: str, content: bytes | Iterable[bytes]) -> str | None:
    """The signature of a file of a run; None if the key cannot be kept on this machine.

    Args:
        name: The file's name in the run's folder.
        content: What it holds; it may be given in pieces.
    """
    key = _kept_key()
    if key is None:
        return None
    return _digest(key, name, [content] if isinstance(content, bytes) else content)


def signer(name: str) -> Callable[[bytes], bytes] | None:
    """A function that signs many small records of a file; None if the key cannot be kept.

    Args:
        name: The file's name in the run's folder.
    """
    key = _kept_key()
    if key is None:
        return None
    own = hmac.digest(key, f"vlmlens records 1\0{name}".encode(), hashlib.sha256)
    return lambda record: hmac.digest(own, record, hashlib.sha256)[:16]


def is_own(folder: Path, name: str) -> bool:
    """Whether a file in a run's folder is as this user's vlmlens wrote it."""
    try:
        signed, key = _signed(folder, name), _key_file().read_bytes()
        with (folder / name).open("rb") as file:
            return _fits(key, name, iter(lambda: file.read(_PIECE), b""), signed)
    except (OSError, RuntimeError, ValueError, RecursionError, KeyError, TypeError):
        return False


def fits(name: str, content: bytes, given: object) -> bool:
    """Whether a signature of a content was made with this user's key."""
    try:
        key = _key_file().read_bytes()
    except (OSError, RuntimeError):
        return False
    return _fits(key, name, [content], given)


def is_signed(folder: Path, name: str, content: bytes) -> bool:
    """Whether run.json has this user's signature of something that is in no file.

    Args:
        folder: The run's folder.
        name: What it is.
        content: What it must be.
    """
    try:
        return _fits(_key_file().read_bytes(), name, [content], _signed(folder, name))
    except (OSError, RuntimeError, ValueError, RecursionError, KeyError, TypeError):
        return False


def _signed(folder: Path, name: str) -> object:
    return json.loads((folder / "run.json").read_bytes())["signed"][name]


def _kept_key() -> bytes | None:
    """The key, made if there is none; None, with a warning, if it cannot be kept."""
    try:
        return _made_key(_key_file())
    except (OSError, RuntimeError) as error:
        _warn_once(f"Runs cannot be signed as yours ({error}), so later commands need --trust.")
        return None


def _fits(key: bytes, name: str, content: Iterable[bytes], given: object) -> bool:
    right = len(key) == _BYTES and isinstance(given, str) and given.isascii()
    return right and hmac.compare_digest(_digest(key, name, content), str(given))


def _digest(key: bytes, name: str, content: Iterable[bytes]) -> str:
    made = hmac.new(key, f"vlmlens run 1\0{name}\0".encode(), hashlib.sha256)
    for piece in content:
        made.update(piece)
    return made.hexdigest()


def _key_file() -> Path:
    return state_folder() / KEY


def _made_key(path: Path) -> bytes:
    """The key; it is made if there is none. Several processes may do so at once."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = path.with_name(f".{KEY}.{secrets.token_hex(4)}.tmp")
        try:
            number = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            with os.fdopen(number, "wb") as file:
                file.write(secrets.token_bytes(_BYTES))
                file.flush()
                os.fsync(file.fileno())
            _give_name(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    key = path.read_bytes()
    if len(key) != _BYTES:
        raise OSError(f"{path} holds no key: remove it")
    return key


def _give_name(temporary: Path, path: Path) -> None:
    """Name the key, unless another process was faster; not all file systems have links."""
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        return
    except OSError:
        temporary.replace(path)


@cache
def _warn_once(message: str) -> None:
    _log.warning("%s", message)
