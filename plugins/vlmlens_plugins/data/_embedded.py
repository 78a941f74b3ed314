"""Images inside tables: bytes, base64 and `{bytes, path}` become files of the cache."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any

from vlmlens._disk import made_cache
from vlmlens._files import cache_folder, write_bytes

_SHORTEST = 64
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]+={0,2}")
_DATA_URI = re.compile(r"data:image/[\w.+-]+;base64,")
_BEGINNINGS = (
    b"\x89PNG",
    b"\xff\xd8\xff",
    b"GIF8",
    b"BM",
    b"II*\0",
    b"MM\0*",
    b"\xff\x4f\xff\x51",
    b"\0\0\0\x0cjP",
)


class Stored(str):
    """The path of an image that was inside the data: a file of the cache."""

    __slots__ = ()


def taken_out(cell: Any) -> Any:
    """A cell in which every embedded image is the path of its file; other cells as they are."""
    return [_one(item) for item in cell] if isinstance(cell, list) else _one(cell)


def _one(cell: Any) -> Any:
    if isinstance(cell, dict) and cell and set(cell) <= {"bytes", "path"}:
        return _of_struct(cell)
    if isinstance(cell, bytes) and _is_image(cell):
        return stored(cell)
    if isinstance(cell, str) and len(cell) >= _SHORTEST:
        data = _decoded(cell)
        return cell if data is None else stored(data)
    return cell


def stored(data: bytes) -> Stored:
    """The cache's file with these bytes, named by their digest; complete or not there at all."""
    digest = hashlib.sha256(data).hexdigest()
    path = cache_folder() / "images" / digest[:2] / digest
    if not path.exists():
        write_bytes(made_cache("images", digest[:2]) / digest, data, durable=False)
    return Stored(path)


def _of_struct(cell: dict[str, Any]) -> Any:
    """An image as Parquet files of the hub hold it."""
    data = cell.get("bytes")
    if isinstance(data, str) and data:
        decoded = _decoded(data)
        return cell if decoded is None else stored(decoded)
    return stored(data) if data else (cell.get("path") or None)


def _decoded(text: str) -> bytes | None:
    """The image that base64 text holds; None for other text."""
    uri = _DATA_URI.match(text)
    body = text[uri.end() :] if uri else text
    if not _is_image(_bytes_of(body[:64].strip()[:32]) or b""):
        return None
    body = "".join(body.split())
    return _bytes_of(body) if _BASE64.fullmatch(body) else None


def _bytes_of(text: str) -> bytes | None:
    try:
        return base64.b64decode(text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4))
    except ValueError:  # no base64, or letters beyond ASCII
        return None


def _is_image(data: bytes) -> bool:
    container = data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    return container or data[4:8] == b"ftyp" or data.startswith(_BEGINNINGS)
