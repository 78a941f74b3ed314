"""Opening a store: by its backend's name, by a URI, or by trying the installed backends."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from vlmlens.errors import StoreError, VlmlensError
from vlmlens.manifest import Manifest, PluginKind
from vlmlens.spec.credentials import refuse_in_uri

if TYPE_CHECKING:
    from vlmlens.abc.storage import ColumnStore, Mode
    from vlmlens.registry import Registry

UNFINISHED = "unfinished"
"""Key in a store's record for an unfinished copy; removed at the end."""

_EXPORTED = (".npz", ".parquet", ".safetensors")

_NO_OPTIONS: Mapping[str, Any] = {}


def is_uri(storage: str) -> bool:
    """Whether a storage is given as a URI (`sqlite:///x.db`), not as a name (`sqlite`).

    >>> is_uri("zarr+s3://bucket/x"), is_uri("lmdb"), is_uri("./backend.py:Store")
    (True, False, False)
    """
    return "://" in storage


def is_passing(manifest: Manifest, storage: str) -> bool:
    """Whether a storage keeps columns in the memory of this process, where they end with it.

    Args:
        manifest: Its backend.
        storage: A name or a URI.
    """
    protocol = storage.partition("://")[0].partition("+")[2].lower()
    return "durable" not in manifest.offers or (is_uri(storage) and protocol == "memory")


def beside(storage: str) -> str:
    """What the locations beside the store at a URI begin with; `.NAME` follows.

    Raises:
        StoreError: The URI names a whole bucket or host, beside which is nothing of the user's.

    >>> beside("zarr+s3://bucket/x/")
    'zarr+s3://bucket/x'
    """
    place = storage.rstrip("/")
    if "/" not in place.partition("://")[2]:
        raise StoreError(
            f"{storage!r} names no place within a bucket, so there is none beside it for what "
            "several processes write.",
            subject=storage,
            hint=f"Add a name: {place}/NAME.",
        )
    return place


def open_named(
    registry: Registry,
    storage: str,
    place: str,
    *,
    mode: Mode,
    options: Mapping[str, Any] = _NO_OPTIONS,
) -> ColumnStore:
    """Open a store by its backend's name, or by a URI with backend and place.

    Args:
        registry: The installed plugins.
        storage: A name or a URI.
        place: Where the store is, if `storage` is a name.
        mode: "r" or "a".
        options: Options of the backend.

    Raises:
        PluginError: There is no such backend. The error names the installed ones.
        SpecError: The backend does not have such an option.
        StoreError: It cannot be opened.
    """
    refuse_in_uri(storage)
    manifest = registry.find(PluginKind.STORAGE, storage)
    location = storage if is_uri(storage) else place
    return _open(registry, manifest, location, mode, options)


def open_found(
    registry: Registry,
    where: str,
    storage: str | None = None,
    options: Mapping[str, Any] = _NO_OPTIONS,
) -> ColumnStore:
    """Open an existing store for reading. A path is opened by the first backend that can read it.

    Args:
        registry: The installed plugins.
        where: A URI, a folder or a file.
        storage: The backend, if known.
        options: Options of the backend.

    Raises:
        StoreError: No installed backend reads it, or a copy into it was not finished.
    """
    return recognize(registry, where, storage, options)[1]


def recognize(
    registry: Registry,
    where: str,
    storage: str | None = None,
    options: Mapping[str, Any] = _NO_OPTIONS,
) -> tuple[str, ColumnStore]:
    """Like `open_found`, but returns the store's URI too."""
    if is_uri(where):
        store = open_named(registry, where, where, mode="r", options=options)
        return where, _finished(store, where)
    refusals = []
    for manifest in _candidates(registry, storage):
        try:
            backend = registry.ask(manifest, lambda found: found)
            store = backend.open(where, mode="r", options=registry.options(manifest, options))
        except VlmlensError as error:
            if storage is not None:
                raise
            refusals.append(f"{manifest.name}: {error.message}")
        except Exception as error:
            if storage is not None:
                raise
            refusals.append(f"{manifest.name} failed: {error!r}")
        else:
            uri = f"{manifest.name}://{quote(str(Path(where).resolve()))}"
            return uri, _finished(store, where)
    if Path(where).suffix.lower() in _EXPORTED:
        raise StoreError(
            f"{where!r} is an exported file, not a run or a store.",
            subject=where,
            hint=f"Make a store of it: vlmlens import {shlex.quote(where)} "
            f"{shlex.quote(str(Path(where).with_suffix('.lmdb')))}",
        )
    raise StoreError(
        f"{where!r} is neither a run nor a store that an installed backend reads.",
        subject=where,
        hint="; ".join(refusals),
    )


def backend_of(registry: Registry, target: str, storage: str | None = None) -> str:
    """The backend for writing to a target: `storage`, or that of the target's URI or suffix.

    Args:
        registry: The installed plugins.
        target: A URI or a path. The suffix of a path can be the name or an alias of a backend:
            `x.zarr`, `x.db`.
        storage: The backend's name, if the user gave it.

    Raises:
        StoreError: Neither name nor URI nor suffix chooses a backend.
        PluginError: There is no such backend.
    """
    refuse_in_uri(target)
    if storage is not None or is_uri(target):
        registry.find(PluginKind.STORAGE, storage or target)
        return storage or target
    suffix = Path(target).suffix.removeprefix(".").lower()
    for entry in registry.entries(PluginKind.STORAGE):
        if entry.manifest and suffix in (entry.manifest.name, *entry.manifest.aliases):
            return entry.manifest.name
    names = ", ".join(entry.name for entry in registry.entries(PluginKind.STORAGE))
    raise StoreError(
        f"{target!r} does not say how to write it.",
        subject=target,
        hint=f"Give --format ({names}), a URI such as sqlite:///x.db, or a suffix such as .zarr.",
    )


def _candidates(registry: Registry, storage: str | None) -> list[Manifest]:
    if storage is not None:
        return [registry.find(PluginKind.STORAGE, storage)]
    return [
        entry.manifest
        for entry in registry.entries(PluginKind.STORAGE)
        if entry.manifest is not None and entry.usable
    ]


def _finished(store: ColumnStore, where: str) -> ColumnStore:
    try:
        unfinished = store.get_meta().get(UNFINISHED)
    except BaseException:
        store.close()
        raise
    if unfinished:
        store.close()
        raise StoreError(
            f"The store {where} is incomplete: {unfinished} did not finish.",
            subject=where,
            hint="Remove the store and run that command again.",
        )
    return store


def _open(
    registry: Registry, manifest: Manifest, where: str, mode: Mode, options: Mapping[str, Any]
) -> ColumnStore:
    backend: type[ColumnStore] = registry.load(manifest)
    return backend.open(where, mode=mode, options=registry.options(manifest, options))
