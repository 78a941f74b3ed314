"""Opening what a user points at: a run's store, or a store by itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vlmlens.cli._options import installed
from vlmlens.errors import RunNotFound, StoreError, VlmlensError
from vlmlens.manifest import Manifest, PluginKind

if TYPE_CHECKING:
    from vlmlens.abc.storage import ColumnStore
    from vlmlens.runs import Run


def stored_run(where: str) -> Run | None:
    """The run in a folder, or None where the folder is none.

    Raises:
        RunNotFound: There is nothing at all.
    """
    from vlmlens.runs import Run

    if not Path(where).exists():
        raise RunNotFound(f"There is no {where!r}.", subject=where, hint="Give a run's folder.")
    try:
        return Run(where, registry=installed())
    except RunNotFound:
        return None


def open_store(where: str, run: Run | None, storage: str | None) -> ColumnStore:
    """The run's store, or the store at `where`, read by the plugin that can.

    Raises:
        StoreError: No storage plugin reads it.
    """
    if run is not None:
        return run.store()
    registry = installed()
    if storage is not None:
        return _open(registry.find(PluginKind.STORAGE, storage), where)
    refusals = []
    for entry in registry.entries(PluginKind.STORAGE):
        if entry.manifest is None:
            continue
        try:
            return _open(entry.manifest, where)
        except VlmlensError as error:
            refusals.append(f"{entry.name}: {error.message}")
    raise StoreError(
        f"{where!r} is neither a run nor a store that an installed backend reads.",
        subject=where,
        hint="; ".join(refusals),
    )


def _open(manifest: Manifest, where: str) -> ColumnStore:
    registry = installed()
    backend: type[ColumnStore] = registry.load(manifest)
    return backend.open(where, mode="r", options=registry.options(manifest, {}))
