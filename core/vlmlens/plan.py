"""Composing a run: choose its parts, read its samples, check what needs no weights."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmlens.abc.adapter import LoadRequest, ModelAdapter
from vlmlens.abc.storage import DTYPES
from vlmlens.errors import SiteShapeError, SpecError, StoreFull
from vlmlens.manifest import Manifest, PluginKind
from vlmlens.observer import Observer, SilentObserver
from vlmlens.samples import Sample, check_images, check_unique
from vlmlens.sites import SiteMap
from vlmlens.spec import DEMO_DATA, RunSpec
from vlmlens.suitability import Asked, asked_analyses, suitable
from vlmlens.tokens import Column

if TYPE_CHECKING:
    from vlmlens.abc.analysis import Analysis
    from vlmlens.abc.dataset import Dataset
    from vlmlens.abc.extractor import Extractor
    from vlmlens.registry import Registry

_PROBED_FOR_LENGTH = 4
_RESERVE = 64 * 2**20

Loader = Callable[[], ModelAdapter]


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run will store.

    Args:
        samples: Number of samples.
        columns: Bytes per column; None where its width cannot be told from the config.
        bytes: Their sum.
        free_bytes: Free space where the run will be written.
    """

    samples: int
    columns: Mapping[str, int | None]
    bytes: int
    free_bytes: int

    @property
    def fits(self) -> bool:
        """Whether the columns fit, with a reserve of 64 MiB for the rest."""
        return self.bytes + _RESERVE <= self.free_bytes

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data."""
        return {
            "samples": self.samples,
            "columns": dict(self.columns),
            "bytes": self.bytes,
            "free_bytes": self.free_bytes,
            "fits": self.fits,
        }


@dataclass(frozen=True)
class Plan:
    """A composed run, checked and ready to execute.

    Args:
        spec: The spec with every default filled in, analyses included.
        registry: The plugins that it was composed from.
        samples: The samples, in order.
        columns: The columns that extraction will give.
        analyses: The analyses in the order in which they run.
        suggested: Options of analyses that the data suggests.
        left_out: Default analyses that do not suit this run, and why.
        estimate: What it will store.
        load: Loads the model with its weights.
        extractor: Makes the extractor for a loaded model.
    """

    spec: RunSpec
    registry: Registry
    samples: list[Sample]
    columns: list[str]
    analyses: Mapping[str, Analysis]
    suggested: Asked
    left_out: Mapping[str, str]
    estimate: Estimate
    load: Loader
    extractor: Callable[[ModelAdapter], Extractor]


def compose(
    spec: RunSpec,
    registry: Registry,
    *,
    observer: Observer | None = None,
    analyse: bool = True,
    must_fit: bool = True,
) -> Plan:
    """Choose the parts of a run and check that they fit, without loading weights.

    Args:
        spec: What the user asked for.
        registry: The installed plugins.
        observer: Told which default analyses are left out.
        analyse: False for extraction alone: no analysis is composed.
        must_fit: False to plan what the disk cannot hold, for an estimate.

    Raises:
        PluginError: A part is not installed or cannot be used.
        SpecError: An option that a part does not have.
        DataError: Samples are missing, malformed, or lack what an analysis needs.
        SiteError: A site pattern matches nothing.
        CompositionError: Parts that do not fit together.
        StoreFull: The columns cannot fit on the disk.
    """
    observer = observer or SilentObserver()
    adapter = registry.find(PluginKind.ADAPTER, spec.adapter)
    extractor = registry.find(PluginKind.EXTRACTOR, spec.extractor)
    storage = registry.find(PluginKind.STORAGE, spec.storage)
    registry.options(storage, spec.options.storage)
    dataset, samples = read_samples(spec, registry)
    suggested = dataset.suggests.get("analysis", {})
    asked = asked_analyses(spec.analysis, suggested) if analyse else {}
    suit = partial(suitable, registry, adapter=adapter, samples=samples, strict=bool(spec.analysis))
    analyses, left_out = suit(asked, columns=())

    adapter_class: type[ModelAdapter] = registry.load(adapter)
    request = load_request(spec, registry, adapter)
    make_extractor = _extractor_maker(spec, registry, extractor)
    skeleton = adapter_class.skeleton(request)
    on_skeleton = make_extractor(skeleton)
    columns = on_skeleton.columns()
    on_skeleton.check(samples)
    analyses, unfit = suit({name: asked[name] for name in analyses}, columns=columns)
    left_out |= unfit
    for name, why in left_out.items():
        observer.warn(f"{name} is left out: {why}")

    composed = spec.model_copy(
        update={
            "data": _data(spec),
            "analysis": {name: asked[name] for name in analyses},
        }
    )
    estimate = _estimate(composed, skeleton, samples, columns)
    if must_fit:
        _check_fits(estimate)
    return Plan(
        spec=composed,
        registry=registry,
        samples=samples,
        columns=columns,
        analyses=analyses,
        suggested=suggested,
        left_out=left_out,
        estimate=estimate,
        load=lambda: adapter_class.load(request),
        extractor=make_extractor,
    )


def read_samples(spec: RunSpec, registry: Registry) -> tuple[Manifest, list[Sample]]:
    """The dataset plugin of a spec and its samples, unique and with their image files there."""
    manifest, source = registry.dataset_for(_data(spec))
    options = registry.options(manifest, spec.options.dataset)
    dataset: Dataset = registry.load(manifest)(source, options)
    samples = dataset.samples(spec.prompt)[: spec.limit]
    check_unique(samples)
    check_images(samples)
    return manifest, samples


def load_request(spec: RunSpec, registry: Registry, adapter: Manifest) -> LoadRequest:
    """What a spec says about loading."""
    return LoadRequest(
        model=spec.model,
        revision=spec.revision,
        device=spec.device,
        device_map=spec.device_map,
        dtype=spec.dtype,
        attention=spec.attention,
        quantization=spec.quantization,
        trust_remote_code=spec.trust_remote_code,
        options=registry.options(adapter, spec.options.adapter),
    )


def open_sites(
    spec: RunSpec, registry: Registry
) -> tuple[SiteMap, Mapping[str, int], Mapping[str, str]]:
    """A model's sites, output widths and class names by module path, from its config alone."""
    adapter = registry.find(PluginKind.ADAPTER, spec.adapter)
    adapter_class: type[ModelAdapter] = registry.load(adapter)
    skeleton = adapter_class.skeleton(load_request(spec, registry, adapter))
    classes = {name: type(module).__name__ for name, module in skeleton.module.named_modules()}
    return skeleton.sites, skeleton.widths(), classes


def _data(spec: RunSpec) -> str:
    if spec.data is not None:
        return spec.data
    if spec.adapter == "demo":
        return DEMO_DATA
    raise SpecError(
        f"No data was named for the adapter {spec.adapter!r}.",
        subject="data",
        hint="Give --data: a folder of images, a .jsonl, .csv or .parquet file, or demo:scenes.",
    )


def _extractor_maker(
    spec: RunSpec, registry: Registry, manifest: Manifest
) -> Callable[[ModelAdapter], Extractor]:
    options = registry.options(manifest, spec.options.extractor)
    extractor_class: type[Extractor] = registry.load(manifest)
    return lambda vlm: extractor_class(vlm, spec.sites, options)


def _estimate(
    spec: RunSpec, skeleton: ModelAdapter, samples: Sequence[Sample], columns: Sequence[str]
) -> Estimate:
    item = DTYPES[skeleton.dtype].itemsize
    widths = skeleton.widths()
    sizes: dict[str, int | None] = {}
    lengths: dict[str, float | None] = {}
    for name in columns:
        column = Column.parse(name)
        site = skeleton.sites.resolve(column.site)[0]
        width = widths.get(site.path)
        rows: float | None = 1.0
        if column.selector.ragged:
            key = f"{site.axis}/{column.selector}"
            if key not in lengths:
                lengths[key] = _mean_rows(skeleton, samples, column, site.axis)
            rows = lengths[key]
        unknown = width is None or rows is None
        sizes[name] = None if unknown else round(len(samples) * (rows or 0) * (width or 0) * item)
    free = shutil.disk_usage(_existing(Path(spec.out or "."))).free
    return Estimate(len(samples), sizes, sum(size or 0 for size in sizes.values()), free)


def _mean_rows(
    skeleton: ModelAdapter, samples: Sequence[Sample], column: Column, axis: Any
) -> float | None:
    """Mean number of kept rows; None where it takes the weights to tell."""
    some = samples[:_PROBED_FOR_LENGTH]
    try:
        layouts = skeleton.encode(some).layouts[axis].samples
    except SiteShapeError:
        return None
    return sum(len(column.selector.rows(layout)) for layout in layouts) / len(some)


def _existing(path: Path) -> Path:
    path = Path(os.path.abspath(path))  # noqa: PTH100 - keeps links as the user wrote them
    while not path.exists():
        path = path.parent
    return path


def _check_fits(estimate: Estimate) -> None:
    if not estimate.fits:
        raise StoreFull(
            f"The columns take {estimate.bytes / 1e9:.1f} GB, and {estimate.free_bytes / 1e9:.1f} "
            "GB are free.",
            subject="out",
            hint="Choose fewer sites or a pooling selector, or another disk with --out.",
        )
