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
        return cls(dict(record["meta"]), samples, str(record["model"]), str(record["adapter"]))


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
        StoreError: vlmlens did not write the file, a newer version did, or its index is damaged.
    """
    version = record.get("version") if isinstance(record, Mapping) else None
    if not isinstance(version, int) or record.get("format") != FORMAT:
        raise refused(path, "its index is not one of vlmlens")
    if version > VERSION:
        raise StoreError(
            f"{path} is an export of version {version}; this vlmlens reads up to {VERSION}.",
            subject=str(path),
            hint="Update vlmlens: pip install --upgrade vlmlens.",
        )
    columns = [_column(column, path) for column in record["columns"]]
    if len({info.name for info in columns}) < len(columns):
        raise refused(path, "its index names a column twice")

    def checked(info: ColumnInfo) -> Iterator[Part]:
        known: set[str] = set()
        for ids, values in parts(info):
            _check_part(info, ids, values, path)
            known.update(ids)
            yield ids, values
        if len(known) != info.samples:
            raise refused(
                path, f"column {info.name!r} has {len(known)} samples, its index says "
                f"{info.samples}"
            )  # fmt: skip

    return Content(columns, About.from_record(record), checked)


def _column(record: Mapping[str, Any], path: object) -> ColumnInfo:
    info = ColumnInfo(**record)
    counts = (info.width, info.samples)
    if (
        not isinstance(info.name, str)
        or info.dtype not in DTYPES
        or not isinstance(info.ragged, bool)
        or not all(type(count) is int and count >= 0 for count in counts)
    ):
        raise refused(path, f"its index says of a column: {dict(record)}")
    return info


def _check_part(info: ColumnInfo, ids: Sequence[str], values: Values, path: object) -> None:
    """Refuse a part that is not as the index says."""
    found = (values.dtype, values.width, values.ragged)
    if found != (info.dtype, info.width, info.ragged):
        raise refused(
            path,
            f"column {info.name!r} has {'ragged ' if values.ragged else ''}rows of {values.width} "
            f"x {values.dtype}, and its index says {info.width} x {info.dtype}",
        )
    if not all(isinstance(sample, str) for sample in ids):
        raise refused(path, f"ids of column {info.name!r} are not text")


def refused(path: object, why: str) -> StoreError:
    """The error for a file that cannot be imported."""
    return StoreError(
        f"{str(path)!r} cannot be imported: {why}.",
        subject=str(path),
        hint="Give a file that `vlmlens export` wrote and that is not changed, or a store.",
    )


def parts_of(store: ColumnStore, info: ColumnInfo, size: int = PART_BYTES) -> Iterator[Part]:
    """The samples and values of a stored column, about `size` bytes at a time."""
    store.check_reads()
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


def part_ends(samples: int, lengths: Sequence[int] | None, info: ColumnInfo) -> Iterator[int]:
    """The ends of consecutive parts of a column's samples, about `PART_BYTES` each."""
    size, row = 0, row_bytes(info)
    for sample in range(samples):
        size += row * (1 if lengths is None else lengths[sample])
        if size >= PART_BYTES or sample + 1 == samples:
            yield sample + 1
            size = 0


def row_bytes(info: ColumnInfo) -> int:
    """The number of bytes in one row of a column; at least 1."""
    return max(1, info.width * DTYPES[info.dtype].itemsize)


def from_numbers(array: Array, dtype: str) -> Array:
    """The stored bits of numbers: the inverse of `Values.numpy`.

    Raises:
        ValueError: They cannot be of that type.
    """
    if dtype != "bfloat16":
        return np.ascontiguousarray(array, DTYPES[dtype])
    bits = np.ascontiguousarray(array, "<f4").view("<u4")
    if (bits & 0xFFFF).any():
        raise ValueError("a column of bfloat16 has numbers that bfloat16 does not have")
    return (bits >> 16).astype(DTYPES[dtype])
