"""Opening what a user names: a run, or a store without a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlmlens._files import expanded
from vlmlens.cli._options import installed
from vlmlens.errors import RunNotFound

if TYPE_CHECKING:
    from vlmlens.abc.storage import ColumnStore
    from vlmlens.runs.run import Run


def stored_run(where: str, *, trust: bool = False) -> Run | None:
    """The run in a folder; None if it is a store or a URI.

    Args:
        where: A path or a URI.
        trust: See `Run`.

    Raises:
        RunNotFound: The path does not exist.
    """
    from vlmlens.runs.run import Run
    from vlmlens.stores.opening import is_uri

    if is_uri(where):
        return None
    if not expanded(where).exists():
        raise RunNotFound(
            f"There is no {where!r}.", subject=where, hint="Give the folder of a run, or a store."
        )
    try:
        return Run(where, registry=installed(), trust=trust)
    except RunNotFound:
        return None


def open_store(where: str, run: Run | None, storage: str | None) -> ColumnStore:
    """The run's store, or the store at `where`, opened by a plugin that reads it.

    Raises:
        StoreError: No storage plugin can read it.
    """
    from vlmlens.stores.opening import open_found

    return run.store() if run is not None else open_found(installed(), where, storage)
