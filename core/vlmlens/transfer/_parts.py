"""What is copied: columns in parts of limited size, and information about them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vlmlens.abc.storage import DTYPES, Array, ColumnInfo, ColumnStore, Values
from vlmlens.errors import StoreError
from vlmlens.samples import Sample

FORMAT = "vlmlens-export"
VERSION = 1
PART_BYTES = 32 << 20
"""How many bytes of a column are held at a time. A larger sample is a part of its own."""

Part = tuple[list[str], Values]


@dataclass(frozen=True)
class About:
    """Information that is copied along with columns.

    Args:
        meta: The store's JSON record.
        samples: The samples, as far as they are known.
        model: The checkpoint; empty if not known.
        adapter: The adapter.
    """

    meta: Mapping[str, Any]
    samples: Sequence[Sample]
    model: str = ""
    adapter: str = ""

    def to_record(self, columns: Sequence[ColumnInfo]) -> dict[str, Any]:
        """JSON-ready data for a file's index."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "columns": [asdict(column) for column in columns],
            "meta": dict(self.meta),
            "model": self.model,
            "adapter": self.adapter,
            "samples": [sample.to_dict() for sample in self.samples],
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> About:
        """The inverse of `to_record`."""
        samples = [Sample.from_dict(each) for each in record["samples"]]
        return cls(record["meta"], samples, record["model"], record["adapter"])


@dataclass(frozen=True)
class Content:
    """Columns that can be read part by part.

    Args:
        columns: The columns.
        about: Information about them.
        parts: A function that gives the parts of a column, in order.
    """

    columns: Sequence[ColumnInfo]
    about: About
    parts: Callable[[ColumnInfo], Iterator[Part]]


def content_of(store: ColumnStore, about: About) -> Content:
    """The content of a store."""
    return Content(store.columns(), about, lambda info: parts_of(store, info))


def content_from(
    record: Mapping[str, Any], path: object, parts: Callable[[ColumnInfo], Iterator[Part]]
) -> Content:
    """The content of a file, from its index.

    Raises:
        StoreError: vlmlens did not write the file, or a newer version did.
    """
    if record.get("format") != FORMAT or record.get("version", 0) > VERSION:
        raise StoreError(
            f"{path} is not an export of vlmlens that this version can read.",
            subject=str(path),
            hint="If a newer version of vlmlens wrote it, update vlmlens.",
        )
    columns = [ColumnInfo(**column) for column in record["columns"]]
    return Content(columns, About.from_record(record), parts)


def parts_of(store: ColumnStore, info: ColumnInfo, size: int = PART_BYTES) -> Iterator[Part]:
    """The samples and values of a stored column, about `size` bytes at a time."""
    ids = store.ids(info.name)
    at_once = 1 if info.ragged else max(1, size // row_bytes(info))
    first = 0
    while first < len(ids):
        some = ids[first : first + at_once]
        values = store.read(info.name, some)
        yield some, values
        first += len(some)
        if info.ragged:
            each = max(1, values.array.nbytes // len(some))
            at_once = max(1, min(size // each, 8 * at_once))


def row_bytes(info: ColumnInfo) -> int:
    """The number of bytes in one row of a column; at least 1."""
    return max(1, info.width * DTYPES[info.dtype].itemsize)


def from_numbers(array: Array, dtype: str) -> Array:
    """The stored bits of numbers: the inverse of `Values.numpy`."""
    if dtype != "bfloat16":
        return np.ascontiguousarray(array, DTYPES[dtype])
    bits = np.ascontiguousarray(array, "<f4").view("<u4") >> 16
    return bits.astype(DTYPES[dtype])
