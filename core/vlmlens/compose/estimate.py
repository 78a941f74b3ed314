"""Estimates: how much a run will store, and how long it will take."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmlens._display import size
from vlmlens.abc.adapter import ModelAdapter
from vlmlens.abc.storage import DTYPES
from vlmlens.errors import SiteShapeError, StoreFull
from vlmlens.samples import Sample
from vlmlens.spec.model import RunSpec
from vlmlens.tokens import Column

_PROBED_FOR_LENGTH = 4
_RESERVE = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Estimate:
    """How much a run will store.

    Args:
        samples: Number of samples.
        columns: Bytes per column; None if the config does not give its width.
        bytes: The sum of the known ones.
        free_bytes: Free space on the disk of the run's folder.
        time: How long extraction takes, if it was measured (`timed`).
    """

    samples: int
    columns: Mapping[str, int | None]
    bytes: int
    free_bytes: int
    time: Expectation | None = None

    @property
    def fits(self) -> bool:
        """Whether the columns fit on the disk, with 64 MiB in reserve for other files."""
        return self.bytes + _RESERVE <= self.free_bytes

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data."""
        time = {} if self.time is None else {"time": self.time.to_dict()}
        return {
            **time,
            "samples": self.samples,
            "columns": dict(self.columns),
            "bytes": self.bytes,
            "free_bytes": self.free_bytes,
            "fits": self.fits,
        }


def estimated(
    spec: RunSpec, skeleton: ModelAdapter | None, samples: Sequence[Sample], columns: Sequence[str]
) -> Estimate:
    """How much disk space the columns of a run will take.

    Args:
        spec: The run's spec.
        skeleton: The model without weights; None where there are no columns.
        samples: The run's samples.
        columns: The names of the columns.
    """
    free = shutil.disk_usage(_existing(Path(spec.out or "."))).free
    if skeleton is None:
        return Estimate(len(samples), {}, 0, free)
    item = DTYPES[skeleton.dtype].itemsize
    widths = skeleton.widths()
    sizes: dict[str, int | None] = {}
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
        unknown = width is None or rows is None
        sizes[name] = None if unknown else round(len(samples) * (rows or 0) * (width or 0) * item)
    return Estimate(len(samples), sizes, sum(size or 0 for size in sizes.values()), free)


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
    """Raise `StoreFull` if the columns, or the run's other files, do not fit on the disk."""
    if estimate.fits:
        return
    free, reserve = size(estimate.free_bytes), size(_RESERVE)
    if not estimate.columns:
        raise StoreFull(
            f"The disk of the run has {free} free; {reserve} are kept for its files.",
            subject="out",
            hint="Make room, or choose another disk (--out).",
        )
    raise StoreFull(
        f"The columns take {size(estimate.bytes)}, and {free} are free, of which {reserve} are "
        "kept for other files.",
        subject="out",
        hint="Choose fewer sites, a pooling selector (image.mean), or another disk (--out).",
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
