"""Where a run's columns are: its own store, and the stores that several processes wrote."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from vlmlens._files import write_json
from vlmlens.errors import StoreError
from vlmlens.manifest import PluginKind
from vlmlens.runs.leases import FOLDER, lease_plans
from vlmlens.runs.records import read_record
from vlmlens.spec.credentials import refuse_in_uri
from vlmlens.stores.opening import beside, is_uri, open_named

if TYPE_CHECKING:
    from vlmlens.abc.options import Options
    from vlmlens.abc.storage import ColumnStore, Mode
    from vlmlens.manifest import Manifest
    from vlmlens.registry import Registry
    from vlmlens.sample_table import SampleTable
    from vlmlens.spec.model import RunSpec

_KEY = Path("columns", "key.json")
"""In the run's folder: whose the store elsewhere is."""


class _Run(Protocol):
    """What is needed of a run."""

    path: Path

    @property
    def registry(self) -> Registry: ...

    @property
    def spec(self) -> RunSpec: ...

    @property
    def samples(self) -> SampleTable: ...

    def check_trust(self, *settings: str) -> None: ...


class RunStores:
    """The stores of a run's columns.

    Args:
        run: The run.
        shards: Opens the shards of a run of an older version.
    """

    def __init__(self, run: _Run, shards: Callable[[], list[ColumnStore]]) -> None:
        self._run = run
        self._shards = shards

    @property
    def has_own(self) -> bool:
        """Whether the run has a store of its own, beside what several processes wrote."""
        return (self._run.path / "columns").exists()

    def own(self, mode: Mode = "r") -> ColumnStore:
        """The run's own store.

        Raises:
            StoreError: It cannot be opened, or holds the columns of another run.
        """
        store = self._open(self._run.spec.storage, str(self._run.path / "columns"), mode)
        try:
            self._claim(store) if mode == "a" else self._check_own(store)
        except BaseException:
            store.close()
            raise
        return store

    @property
    def key(self) -> str | None:
        """What marks a store outside the run's folder as this run's; None if there is no mark."""
        path = self._run.path / _KEY
        found = read_record(path).get("key") if path.exists() else None
        return found if isinstance(found, str) else None

    def parts(self) -> list[ColumnStore]:
        """The stores that several processes wrote, each open for reading; often none."""
        return [*self._shards(), *self.leases()]

    def leases(self) -> list[ColumnStore]:
        """The stores of finished leases, open for reading; one for all if the backend can do it."""
        receipts = {
            (plan.folder.name, name): plan.receipt(name)
            for plan in lease_plans(self._run.path)
            for name in sorted(plan.done())
        }
        if receipts and "parts" in self._manifest().offers:
            return [self._together(receipts)]
        return [self.lease(*key, receipt["attempt"]) for key, receipt in receipts.items()]

    def _together(self, receipts: Mapping[tuple[str, str], Mapping[str, Any]]) -> ColumnStore:
        self._run.check_trust("storage")
        parts: dict[str, Mapping[str, Any] | None] = {}
        for (plan, name), receipt in receipts.items():
            card = receipt.get("store")
            parts[f"{plan}/{name}-{receipt['attempt']}"] = card if isinstance(card, dict) else None
        backend, options = self._backend()
        return backend.open_parts(self._leases_place(), parts, options=options)

    def lease(self, plan: str, name: str, attempt: str) -> ColumnStore:
        """The store of one attempt at a lease, open for reading.

        Args:
            plan: The plan's name.
            name: The lease's.
            attempt: The attempt's key.
        """
        return self._open(*self._lease_place(plan, name, attempt), "r")

    def begin_lease(self, plan: str, name: str, attempt: str) -> ColumnStore:
        """A new store for an attempt at a lease; it counts once it is closed without an error."""
        self._run.check_trust("storage")
        refuse_in_uri(self._run.spec.storage)
        backend, options = self._backend()
        return backend.open_part(self._lease_place(plan, name, attempt)[1], options=options)

    def try_lease(self, key: str) -> None:
        """Check that leases can be written here: the store is at a URI, and other processes use it.

        Args:
            key: `RunStores.key`, as the process knows it that has marked the store.

        Raises:
            StoreError: This process does not reach that store, or cannot write beside it.
        """
        storage = self._run.spec.storage
        with self._open(storage, storage, "r") as store:
            if store.get_meta().get("run_key") != key:
                raise _of_another(storage)
        if "parts" in self._manifest().offers:  # others write when a lease begins
            place = f"{self._leases_place()}/try-{secrets.token_hex(8)}"
            backend, options = self._backend()
            backend.open_part(place, options=options).close()
            backend.remove(place, options=options)

    def remove_lease(self, plan: str, name: str, attempt: str) -> None:
        """Remove what an attempt at a lease has written."""
        self._run.check_trust("storage")
        backend, options = self._backend()
        backend.remove(self._lease_place(plan, name, attempt)[1], options=options)

    def _manifest(self) -> Manifest:
        return self._run.registry.find(PluginKind.STORAGE, self._run.spec.storage)

    def _backend(self) -> tuple[type[ColumnStore], Options]:
        registry, manifest = self._run.registry, self._manifest()
        backend: type[ColumnStore] = registry.load(manifest)
        return backend, registry.options(manifest, self._run.spec.options.storage)

    def _leases_place(self) -> str:
        """What the locations of all attempts at leases have in common."""
        storage = self._run.spec.storage
        if is_uri(storage):
            return f"{beside(storage)}.{FOLDER}"
        return str(self._run.path / FOLDER)

    def _lease_place(self, plan: str, name: str, attempt: str) -> tuple[str, str]:
        """The storage and the location of an attempt at a lease."""
        place = f"{self._leases_place()}/{plan}/{name}-{attempt}"
        storage = self._run.spec.storage
        return place if is_uri(storage) else storage, place

    def _open(self, storage: str, place: str, mode: Mode) -> ColumnStore:
        run = self._run
        run.check_trust("storage")
        options = run.spec.options.storage
        return open_named(run.registry, storage, place, mode=mode, options=options)

    def _claim(self, store: ColumnStore) -> None:
        """Mark a store outside the run's folder as this run's, and describe the samples to it.

        Rows are keyed by sample id, and another run may use the same ids for other samples.
        """
        run, spec = self._run, self._run.spec
        if is_uri(spec.storage):
            path, meta, known = run.path / _KEY, store.get_meta(), self.key
            if is_free(store, meta):
                known = known or secrets.token_hex(16)
                path.parent.mkdir(exist_ok=True)
                write_json(path, {"key": known, "storage": spec.storage})
                store.set_meta({**meta, "run_key": known})
            elif meta.get("run_key") != known or known is None:
                raise _of_another(spec.storage)
        if "samples" in self._manifest().offers:
            store.describe(run.samples, model=spec.model or "", adapter=spec.adapter)

    def _check_own(self, store: ColumnStore) -> None:
        """Refuse to read a store elsewhere that another run has taken since."""
        key = self.key if is_uri(self._run.spec.storage) else None
        if key is None:
            return
        meta = store.get_meta()
        if meta.get("run_key") != key and not is_free(store, meta):
            raise _of_another(self._run.spec.storage)


def is_free(store: ColumnStore, meta: Mapping[str, Any]) -> bool:
    """Whether no run has marked a store, and nothing is in it.

    Args:
        store: The store.
        meta: Its record.
    """
    return "run_key" not in meta and not store.columns()


def _of_another(storage: str) -> StoreError:
    return StoreError(
        f"The store {storage} holds the columns of another run.",
        subject=storage,
        hint="Remove the store, or choose another place with --storage.",
    )
