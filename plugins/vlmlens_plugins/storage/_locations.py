"""Locations on this machine, given as paths or URIs."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from vlmlens._files import expanded
from vlmlens.errors import StoreError


def refuse_queries(location: str) -> None:
    """Refuse a URI with a query or a fragment: without them, it would name another place.

    Raises:
        StoreError: It has one.
    """
    if "?" in location or "#" in location:
        raise StoreError(
            f"{location!r} has a '?' or a '#', which begin a query or a fragment in a URI.",
            subject=location,
            hint="In a path, write %3F for '?' and %23 for '#'; in the name of an object store, "
            "leave them out. Options go into options.storage.",
        )


def local_path(location: str, name: str, example: str) -> str:
    """The path that a location names: itself, or that of `NAME:///path` (or `NAME:////path`).

    Args:
        location: As the user gave it.
        name: The backend's name.
        example: What to write, for the error.

    Raises:
        StoreError: A URI that names a host, another machine's place, or no path.

    >>> local_path("lmdb:///data/my%20run/columns", "lmdb", "lmdb:///path/to/folder")
    '/data/my run/columns'
    >>> local_path("sqlite:////data/x.db", "sqlite", "sqlite:///path/to/x.db")
    '/data/x.db'
    >>> local_path("sqlite:///~no-such-user/x.db", "sqlite", "sqlite:///path/to/x.db")
    '/~no-such-user/x.db'
    """
    if "://" not in location and not location.startswith(f"{name}:"):
        return str(expanded(location))
    refuse_queries(location)
    parts = urlsplit(location)
    home = unquote(f"{parts.netloc}{parts.path}").lstrip("/")
    if home.startswith("~") and (path := expanded(home)).is_absolute():
        return str(path)
    if parts.netloc or "+" in parts.scheme or not parts.path.startswith("/"):
        raise StoreError(
            f"{location!r} is not a place on this machine.",
            subject=location,
            hint=f"Write {example}.",
        )
    return "/" + unquote(parts.path).lstrip("/")
