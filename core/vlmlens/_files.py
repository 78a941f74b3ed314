"""Small files, written so that a reader never sees half of one, and the cache folder."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a file's content in one step; durable when this returns."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace a file's content in one step, UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Replace a file's content by strict JSON."""
    write_text(path, json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def cache_folder() -> Path:
    """Where vlmlens keeps what it can make again: VLMLENS_CACHE, else the user's cache folder."""
    chosen = os.environ.get("VLMLENS_CACHE")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "vlmlens"


def state_folder() -> Path:
    """Where vlmlens keeps what must last: VLMLENS_STATE, else the user's state folder."""
    chosen = os.environ.get("VLMLENS_STATE")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "vlmlens"
