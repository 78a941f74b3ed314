"""A worker: loads the model that an order names, and runs one lease after another."""

from __future__ import annotations

import os
import platform
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmlens._version import __version__
from vlmlens.compose.edit_check import opened_edits
from vlmlens.compose.plan import extractor_maker, load_model, load_request
from vlmlens.errors import CompositionError, RunError, StoreError
from vlmlens.extraction.dry_pass import silent_columns
from vlmlens.extraction.planning import missing_of, units_of
from vlmlens.manifest import PluginKind
from vlmlens.registry import Registry
from vlmlens.runner.unit_leases import made_work
from vlmlens.runner.unit_worker import UnitWorker
from vlmlens.runs.generated_texts import text_records
from vlmlens.runs.run_stores import RunStores
from vlmlens.sample_table import SampleTable
from vlmlens.samples import Sample
from vlmlens.spec.model import RunSpec, make_spec

if TYPE_CHECKING:
    from vlmlens.abc.adapter import ModelAdapter
    from vlmlens.abc.engine import Json, Worker
    from vlmlens.abc.storage import ColumnStore


def begin_worker(order: Json, registry: Registry | None = None) -> Worker:
    """Load what an order names.

    Args:
        order: The `order` of a `Work`.
        registry: The installed plugins; default: those of this Python environment.

    Returns:
        A function that runs a lease, and returns its receipt.

    Raises:
        CompositionError: Another version of vlmlens wrote the order.
        RunError: This process does not see the run's folder or reach the store where it would have
            to write.
        VlmlensError: The model cannot be loaded.
    """
    if order["vlmlens"] != __version__:
        raise CompositionError(
            f"This process has vlmlens {__version__}, and the run was planned by "
            f"{order['vlmlens']}.",
            subject="vlmlens",
            hint="Install the same version everywhere.",
        )
    registry, spec = registry or Registry.default(), make_spec(order["spec"])
    if "work" in order:
        work = made_work(order["work"])
        return UnitWorker(work, spec, _loaded(order, spec, registry))
    stores = _stores_of(order, spec, registry)
    return _ExtractingWorker(order, spec, _loaded(order, spec, registry), stores, registry)


def _loaded(order: Json, spec: RunSpec, registry: Registry) -> ModelAdapter:
    adapter = registry.find(PluginKind.ADAPTER, spec.adapter)
    return load_model(
        spec,
        registry.load(adapter),
        load_request(spec, registry, adapter),
        opened_edits(spec, registry),
        [Sample.from_dict(record) for record in order["others"]],
    )


class _ExtractingWorker:
    """Extracts the columns of leases."""

    def __init__(
        self, order: Json, spec: RunSpec, vlm: ModelAdapter, stores: RunStores, registry: Registry
    ) -> None:
        self._order = order
        self._spec = spec
        self._vlm = vlm
        self._stores = stores
        self._silent = silent_columns(
            self._vlm,
            self._spec.sites,
            order["columns"],
            [Sample.from_dict(record) for record in order["first"]],
        )
        self._columns = [name for name in order["columns"] if name not in self._silent]
        if self._silent:
            spec = spec.model_copy(update={"sites": self._columns})
        extractor = registry.find(PluginKind.EXTRACTOR, spec.extractor)
        self._extractor = extractor_maker(spec, registry, extractor)(self._vlm)
        self._about = {
            "model": self._vlm.describe(),
            "fingerprint": fingerprint(self._vlm, spec, order["image_rules"]),
            "without_rows": self._silent,
            "columns": self._columns,
            "compiled": not_compiled(self._vlm, spec, self._columns),
            "host": socket.gethostname(),
            "device": device_name(self._vlm),
            "python": platform.python_version(),
        }
        self._fits = float("inf")

    def __call__(self, lease: Json, advance: Callable[[int], None]) -> dict[str, Any]:
        from vlmlens.extraction.extraction import Extraction

        start = time.perf_counter()
        warnings: list[str] = []
        texts: list[dict[str, Any]] = []
        samples = [Sample.from_dict(record) for record in lease["samples"]]
        spec = self._spec
        extraction = Extraction(
            self._vlm,
            self._extractor,
            samples,
            spec.batch_size,
            spec.share_prefix,
            warnings.append,
            generate=spec.generate,
            texts=lambda ids, made: texts.extend(text_records(ids, made)),
        )
        extraction.fits = self._fits
        missing = [self._lacking(columns) for columns in missing_of(lease)]
        with self._stores.begin_lease(lease["plan"], lease["name"], lease["attempt"]) as store:
            self._describe(store, samples)
            extraction.run(store, missing, advance, units_of(lease))
            observed = observed_dtypes(store)
        self._fits = extraction.fits
        card = store.card()
        return {
            "attempt": lease["attempt"],
            **({} if card is None else {"store": card}),
            "samples": len(samples),
            "seconds": round(time.perf_counter() - start, 3),
            "warnings": list(dict.fromkeys(warnings)),
            "generated": texts,
            "shared": dict(extraction.shared),
            "observed_dtypes": observed,
            **self._about,
        }

    def _lacking(self, columns: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name for name in columns if name not in self._silent)

    def _describe(self, store: ColumnStore, samples: list[Sample]) -> None:
        meta = {"fingerprint": self._about["fingerprint"], "run_key": self._order["key"]}
        store.set_meta({**store.get_meta(), **meta})
        if self._order["described"]:
            store.describe(samples, model=self._spec.model or "", adapter=self._spec.adapter)


def fingerprint(vlm: ModelAdapter, spec: RunSpec, image_rules: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that determines the numbers of a run's columns."""
    compiled = {"compiled": True} if spec.compile else {}
    return {**vlm.describe(), "extractor": spec.extractor, **image_rules, **compiled}


def not_compiled(vlm: ModelAdapter, spec: RunSpec, columns: list[str]) -> list[str] | None:
    """The blocks that run without torch.compile; None if nothing is compiled."""
    if not spec.compile:
        return None
    from vlmlens.passes.compiling import blocks_around

    sites = [name.partition("/")[0] for name in columns]
    return blocks_around(vlm, [site.path for site in vlm.sites.resolve_all(sites)])


def observed_dtypes(store: ColumnStore) -> list[str]:
    """The dtypes of a store's columns, as the model gave them; quantized ones choose their own."""
    return sorted({column.dtype for column in store.columns()})


def device_name(vlm: ModelAdapter) -> str:
    """The name of the device that computes, as its maker gives it."""
    import torch

    device = next(vlm.module.parameters()).device
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return device.type


def _stores_of(order: Json, spec: RunSpec, registry: Registry) -> RunStores:
    """Where the worker writes.

    Raises:
        RunError: In the run's folder, which this process does not see; or beside a store elsewhere,
            which it does not reach.
    """
    folder = Path(order["run"])
    if "://" not in spec.storage:
        try:
            seen = (folder / "run.json").is_file() and order["key"] == (
                folder / "leases" / "key"
            ).read_text(encoding="utf-8")
        except OSError:
            seen = False
        if not seen:
            raise RunError(
                f"The worker on {socket.gethostname()} (process {os.getpid()}) does not see the "
                f"run's folder {str(folder)!r}, where it would write.",
                subject=str(folder),
                hint="Put --out on a disk that all machines share, or give --storage a URI that "
                "all reach, such as safetensors+s3://bucket/run.",
            )
    stores = RunStores(_Target(folder, registry, spec), list)
    if (key := order.get("store")) is not None:
        _check_reach(stores, key, spec.storage)
    return stores


def _check_reach(stores: RunStores, key: str, storage: str) -> None:
    try:
        stores.try_lease(key)
    except StoreError as error:
        raise RunError(
            f"The worker on {socket.gethostname()} (process {os.getpid()}) cannot write beside "
            f"the run's store {storage}: {error.message}",
            subject=storage,
            hint=error.hint
            or "Give it the credentials, the endpoint and the disks that the command has.",
        ) from error


class _Target:
    """The run that a worker writes for, as far as it knows it."""

    def __init__(self, path: Path, registry: Registry, spec: RunSpec) -> None:
        self.path = path
        self.registry = registry
        self.spec = spec
        self.samples = SampleTable()

    def check_trust(self, *settings: str) -> None:
        """The order comes from the user's own process, or was checked."""
