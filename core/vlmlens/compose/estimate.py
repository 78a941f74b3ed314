"""Estimates: how much a run will store, and how long it will take."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from vlmlens._clean import redacted
from vlmlens._display import count, size
from vlmlens.abc.adapter import ModelAdapter
from vlmlens.abc.storage import DTYPES
from vlmlens.errors import SiteShapeError, StoreFull
from vlmlens.samples import Sample
from vlmlens.spec.model import RunSpec
from vlmlens.stores.opening import is_uri
from vlmlens.tokens import Column

_PROBED_FOR_LENGTH = 4
_RESERVE = 64 * 2**20


_WRITING = 200 * 10**6
_LONGEST = 3600
_SHARE = 2


@dataclass(frozen=True, slots=True)
class Estimate:
    """How much a run will store.

    Args:
        samples: Number of samples.
        columns: Bytes per column; None if the config does not give its width.
        bytes: The sum of the known ones.
        free_bytes: Free space where the columns go; None where that is not known, as of an object
            store.
        time: How long extraction takes, if it was measured (`timed`).
        rows: Of columns that keep several rows of each sample: how many, the mean.
        storage: The place of the columns, if it is a URI.
        own_free_bytes: Free space on the disk of the run's folder, if the columns go elsewhere.
    """

    samples: int
    columns: Mapping[str, int | None]
    bytes: int
    free_bytes: int | None
    time: Expectation | None = None
    rows: Mapping[str, float] = field(default_factory=dict)
    storage: str = ""
    own_free_bytes: int | None = None

    @property
    def fits(self) -> bool | None:
        """Whether the columns fit, with 64 MiB in reserve for other files; None: not known."""
        return None if self.free_bytes is None else self.bytes + _RESERVE <= self.free_bytes

    @property
    def bytes_per_sample(self) -> int:
        """Bytes of all columns for one sample."""
        return round(self.bytes / max(1, self.samples))

    @property
    def beyond_reason(self) -> bool:
        """Whether the columns do not fit, or take an hour to write at 200 MB/s."""
        return self.fits is False or self.bytes > _WRITING * _LONGEST

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data."""
        time = {} if self.time is None else {"time": self.time.to_dict()}
        return {
            **time,
            "samples": self.samples,
            "columns": dict(self.columns),
            "bytes": self.bytes,
            "bytes_per_sample": self.bytes_per_sample,
            "free_bytes": self.free_bytes,
            "fits": self.fits,
            "advice": advice(self),
        }


def advice(estimate: Estimate) -> list[str]:
    """What to do about columns that are beyond reason, a sentence each; else nothing.

    The first sentences say how large they are, and why.
    """
    if not estimate.beyond_reason or not estimate.bytes:
        return []
    each = {name: known for name, known in estimate.columns.items() if known}
    largest = max(each, key=lambda name: each[name])
    hours = duration(estimate.bytes / _WRITING)
    least = "at least " if None in estimate.columns.values() else ""
    each_sample = size(estimate.bytes_per_sample)
    return [
        f"The columns take {least}{size(estimate.bytes)}: {each_sample} for each of "
        f"{count(estimate.samples, 'sample')}, at most {size(each[largest])} for a column "
        f"({largest}). Writing them takes about {hours} at 200 MB/s.",
        *_pooled(estimate, each),
        *_fewer(estimate, each, largest),
        *_elsewhere(estimate),
    ]


def _pooled(estimate: Estimate, each: Mapping[str, int]) -> list[str]:
    """What pooling saves, and how an SAE does without stored rows."""
    whole = {name: each[name] for name in estimate.rows if name in each}
    if not whole:
        return []
    name = max(whole, key=lambda one: whole[one])
    column = Column.parse(name)
    pooled = sum(whole[one] / max(1.0, estimate.rows[one]) for one in whole)
    rows, selector = estimate.rows[name], column.selector
    keep = f"{count(len(whole), 'column')} {'keeps' if len(whole) == 1 else 'keep'}"
    return [
        f"{keep} several rows of each sample ({rows:.0f} in {name}): {size(sum(whole.values()))}. "
        f"Pooled ({selector}.mean in place of {selector}, or last), that is {size(pooled)}.",
        "An SAE needs no stored rows: `vlmlens run --analysis sae --set analysis.sae.source=model "
        f"--set analysis.sae.column={name}` trains on passes of the model.",
    ]


def _fewer(estimate: Estimate, each: Mapping[str, int], largest: str) -> list[str]:
    """How many samples, or columns, would be within reason."""
    room = _WRITING * _LONGEST
    if estimate.free_bytes is not None:
        room = min(room, max(0, estimate.free_bytes - _RESERVE) // _SHARE)
    samples = min(estimate.samples, int(room / max(1, estimate.bytes_per_sample)))
    said = []
    if len(each) > 1 and each[largest] <= room:
        said.append(f"Choose fewer sites: {size(room)} hold {room // each[largest]} such columns.")
    if samples:
        said.append(
            f"Take fewer samples: with --limit {samples} the columns take "
            f"{size(samples * estimate.bytes_per_sample)}."
        )
    return said or ["Choose fewer sites, or fewer samples (--limit)."]


def _elsewhere(estimate: Estimate) -> list[str]:
    if estimate.storage:
        return []
    return ["Or write to another disk (--out) or an object store: --storage zarr+s3://BUCKET/PATH."]


def estimated(
    spec: RunSpec, skeleton: ModelAdapter | None, samples: Sequence[Sample], columns: Sequence[str]
) -> Estimate:
    """How much space the columns of a run will take.

    Args:
        spec: The run's spec.
        skeleton: The model without weights; None where there are no columns.
        samples: The run's samples.
        columns: The names of the columns.
    """
    own = shutil.disk_usage(_existing(Path(spec.out or "."))).free
    there = is_uri(spec.storage)
    found = Estimate(
        len(samples),
        {},
        0,
        _free_at(spec.storage) if there else own,
        storage=redacted(spec.storage) if there else "",
        own_free_bytes=own if there else None,
    )
    if skeleton is None:
        return found
    item = DTYPES[skeleton.dtype].itemsize
    widths = skeleton.widths()
    sizes: dict[str, int | None] = {}
    several: dict[str, float] = {}
    lengths: dict[str, float | None] = {}
    for name in columns:
        column = Column.parse(name)
        site = skeleton.sites.resolve(column.site)[0]
        width = skeleton.sites.width(site, widths)
        rows: float | None = 1.0
        if column.selector.ragged:
            key = f"{site.axis}/{column.selector}"
            if key not in lengths:
                lengths[key] = _mean_rows(skeleton, samples, column, site.axis, spec.generate)
            rows = lengths[key]
            several[name] = rows or 0.0
        unknown = width is None or rows is None
        sizes[name] = None if unknown else round(len(samples) * (rows or 0) * (width or 0) * item)
    total = sum(size or 0 for size in sizes.values())
    return replace(found, columns=sizes, bytes=total, rows=several)


def _free_at(uri: str) -> int | None:
    """Free space where a storage URI points; None where it names no disk of this machine."""
    scheme, _, place = uri.partition("://")
    protocol = scheme.partition("+")[2]
    if protocol not in ("", "file", "local") or not place.startswith("/"):
        return None
    return shutil.disk_usage(_existing(Path(unquote(place)))).free


def _mean_rows(
    skeleton: ModelAdapter,
    samples: Sequence[Sample],
    column: Column,
    axis: Any,
    generate: int | None,
) -> float | None:
    """The mean number of kept rows (a maximum for generated ones); None if it needs weights."""
    some = samples[:_PROBED_FOR_LENGTH]
    answers = None if generate is None else [(0,) * generate for _ in some]
    try:
        layouts = skeleton.encode(some, answers=answers).layouts[axis].samples
    except SiteShapeError:
        return None
    return sum(len(column.selector.rows(layout)) for layout in layouts) / len(some)


def _existing(path: Path) -> Path:
    path = Path(os.path.abspath(path))  # noqa: PTH100 - keeps links as the user wrote them
    while not os.path.exists(path):  # noqa: PTH110 - says False for names that are too long
        path = path.parent
    return path


def check_fits(estimate: Estimate) -> None:
    """Raise `StoreFull` if the columns, or the run's other files, do not fit on their disk.

    Where the free space is not known, as of an object store, columns are not refused.
    """
    own = estimate.own_free_bytes
    if own is None and not estimate.columns:
        own = estimate.free_bytes
    if own is not None and own < _RESERVE:
        raise StoreFull(
            f"The disk of the run has {size(own)} free; {size(_RESERVE)} are kept for its files.",
            subject="out",
            hint="Make room, or choose another disk (--out).",
        )
    if estimate.fits is False and estimate.columns:
        said = advice(estimate)
        raise StoreFull(
            f"The columns take {size(estimate.bytes)}, and {size(estimate.free_bytes or 0)} are "
            f"free, of which {size(_RESERVE)} are kept for other files.",
            subject="out",
            hint=" ".join(said[1:]) or "Make room, or choose another disk (--out).",
        )


@dataclass(frozen=True, slots=True)
class Expectation:
    """How long something will take: a range of about 95 % confidence.

    Args:
        low: Seconds, at least.
        high: Seconds, at most.
        batches: The number of measured batches. The range holds if the others are like them.
    """

    low: float
    high: float
    batches: int

    def __str__(self) -> str:
        low, high = duration(self.low), duration(self.high)
        if low == high:
            return f"about {high}"
        shared_unit = low.rpartition(" ")[2] == high.rpartition(" ")[2]
        return f"{low.rpartition(' ')[0] if shared_unit else low} to {high}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data."""
        return {
            "seconds_low": round(self.low, 3),
            "seconds_high": round(self.high, 3),
            "batches": self.batches,
        }


def duration(seconds: float) -> str:
    """A time span as text.

    >>> [duration(s) for s in (0.4, 42, 200, 9000, 200_000)]
    ['1 s', '42 s', '3 min', '2.5 h', '2.3 days']
    """
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 36 else f"{hours / 24:.1f} days"
