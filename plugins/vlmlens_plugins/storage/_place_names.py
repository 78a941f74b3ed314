"""Which place a location names: a path, a URI with the backend's name, or a URL of fsspec's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from vlmlens._files import expanded
from vlmlens.errors import StoreError
from vlmlens_plugins.storage._locations import refuse_queries
from vlmlens_plugins.storage._places import Folder, Place
from vlmlens_plugins.storage._remote_place import PATIENCE, Remote

_LOCAL = ("", "file", "local")


def place_of(
    location: str,
    backend: str,
    options: Mapping[str, Any],
    *,
    take_over: bool,
    patience: float = PATIENCE,
) -> Place:
    """The place that a location names.

    Args:
        location: A folder, `BACKEND:///folder`, `BACKEND+file:///folder`, or `BACKEND+URL`.
        backend: The backend's name.
        options: For fsspec.
        take_over: See `Remote`.
        patience: See `Remote`.

    Raises:
        StoreError: It names nothing, or fsspec knows no such protocol.
    """
    scheme, slashes, rest = location.partition("://")
    if not slashes and not location.startswith(f"{backend}:"):
        return Folder(expanded(location))
    refuse_queries(location)
    protocol = scheme.partition("+")[2].lower() if slashes else ""
    if protocol not in _LOCAL:
        url = f"{protocol}://{rest}"
        return Remote(url, options, take_over=take_over, patience=patience)
    parts = urlsplit(f"{backend}://{rest}" if slashes else location)
    home = unquote(f"{parts.netloc}{parts.path}").lstrip("/")
    if home.startswith("~") and (path := expanded(home)).is_absolute():
        return Folder(path)
    if parts.netloc or not parts.path.startswith("/"):
        raise StoreError(
            f"{location!r} is not a folder.",
            subject=location,
            hint=f"Write {backend}:///path/to/folder or {backend}+s3://bucket/path.",
        )
    return Folder(Path(unquote(parts.path)))
