"""Parquet: one file, a row per sample, a column of vectors per stored column.

What is known of the samples comes first: `sample.id`, `sample.prompt`, `sample.label`,
`sample.task`, `sample.group`, `sample.choices`, `sample.images` and `sample.attributes`, which is
JSON. A column with one row per sample is a
fixed-size list; a ragged column is a list of such lists. If a sample lacks a column, its value is
null. bfloat16 is written as float32, which holds it exactly.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vlmlens.abc.storage import DTYPES, Array, ColumnInfo, ColumnStore, Values
from vlmlens.errors import StoreError
from vlmlens.transfer._parts import (
    PART_BYTES,
    About,
    Content,
    Part,
    content_from,
    from_numbers,
    refused,
    row_bytes,
)

_KEY = b"vlmlens"
_ID = "sample.id"
_TEXTS = ("prompt", "label", "task", "group")
_LISTS = ("choices", "images")
_ATTRIBUTES = "attributes"
_OWN = (_ID, *(f"sample.{field}" for field in (*_TEXTS, *_LISTS, _ATTRIBUTES)))
_ASSUMED_ROWS = 64
_LARGEST_RATIO, _FREE = 200, 64 << 20
"""How much more than the file a row group's values may take, if they are not small."""


def write(store: ColumnStore, about: About, path: Path, advance: Callable[[int], None]) -> None:
    """Write all columns of a store into one new file.

    Samples are in the order of their first appearance.

    Raises:
        StoreError: A column has a name that the file format uses itself.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    store.check_reads()
    columns = store.columns()
    _check_names(columns)
    have = {info.name: set(store.ids(info.name)) for info in columns}
    ids = list(dict.fromkeys(sample for info in columns for sample in store.ids(info.name)))
    schema = pa.schema(
        [(name, _text_type(name)) for name in _OWN]
        + [(info.name, _type(info)) for info in columns],
        metadata={_KEY: json.dumps(about.to_record(columns))},
    )
    samples = {sample.id: sample for sample in about.samples}
    with pq.ParquetWriter(
        path, schema, compression="none", use_dictionary=False, write_page_checksum=True
    ) as writer:
        first, size = 0, _at_once(columns)
        while first < len(ids):
            some = ids[first : first + size]
            known = [samples[s].to_dict() if s in samples else {} for s in some]
            texts = [
                pa.array(some if name == _ID else _told(known, name), _text_type(name))
                for name in _OWN
            ]
            arrays = [_column(store, info, some, have[info.name]) for info in columns]
            table = pa.Table.from_arrays(texts + arrays, schema=schema)
            writer.write_table(table, row_group_size=len(some))
            advance(sum(sample in have[info.name] for info in columns for sample in some))
            first += len(some)
            size = max(1, min(2 * size, PART_BYTES * len(some) // max(1, table.nbytes)))


def read(path: Path) -> Content:
    """The content of a file that `write` made.

    A column has the type of numbers that it has in the file.
    """
    import pyarrow.parquet as pq

    size = path.stat().st_size
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        record = json.loads((file.schema_arrow.metadata or {}).get(_KEY, b"{}"))
        content = content_from(record, path, lambda info: iter(()))
        types = [_as_stored(file.schema_arrow, info, path) for info in content.columns]
        _check_size(file.metadata, content.columns, size, path)

    def parts(info: ColumnInfo) -> Iterator[Part]:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, columns=[_ID, info.name])
                ids, values = _values(table, info, path)
                if ids:
                    yield ids, values

    typed = [{**old, "dtype": dtype} for old, dtype in zip(record["columns"], types, strict=True)]
    return content_from({**record, "columns": typed}, path, parts)


def _as_stored(schema: Any, info: ColumnInfo, path: Path) -> str:
    """The type of a column that its numbers have in the file.

    Raises:
        StoreError: No store keeps such numbers, or they are not rows of a list.
    """
    import pyarrow as pa
    from pyarrow import types

    if schema.get_field_index(info.name) < 0:
        raise refused(path, f"it has no column {info.name!r}")
    kind = schema.field(info.name).type
    for _ in range(2 if info.ragged else 1):
        if not (types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)):
            raise refused(path, f"column {info.name!r} has the type {schema.field(info.name).type}")
        kind = kind.value_type
    numbers = {pa.float16(): "float16", pa.float32(): "float32", pa.float64(): "float64",
               pa.int64(): "int64"}  # fmt: skip
    if kind not in numbers:
        raise refused(path, f"column {info.name!r} holds {kind}")
    return "bfloat16" if (info.dtype, numbers[kind]) == ("bfloat16", "float32") else numbers[kind]


def _check_size(metadata: Any, columns: Sequence[ColumnInfo], size: int, path: Path) -> None:
    row = sum(row_bytes(info) for info in columns if not info.ragged)
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        wanted = max(group.total_byte_size, group.num_rows * row)
        if wanted > max(_FREE, _LARGEST_RATIO * size):
            raise refused(path, f"it would unpack from {size} to {wanted} bytes")


def _check_names(columns: Sequence[ColumnInfo]) -> None:
    for info in columns:
        if info.name in _OWN:
            raise StoreError(
                f"The column {info.name!r} has a name that a Parquet export uses itself.",
                subject=info.name,
                hint="Export to safetensors or npz.",
            )


def _at_once(columns: Sequence[ColumnInfo]) -> int:
    """The number of samples in the first row group."""
    size = sum(row_bytes(info) * (_ASSUMED_ROWS if info.ragged else 1) for info in columns)
    return max(1, PART_BYTES // max(1, size))


def _type(info: ColumnInfo) -> Any:
    import pyarrow as pa

    name = "float32" if info.dtype == "bfloat16" else info.dtype
    item = {"float16": pa.float16(), "float32": pa.float32()}
    kind = item.get(name) or {"float64": pa.float64(), "int64": pa.int64()}[name]
    row = pa.list_(kind, info.width)
    return pa.list_(row) if info.ragged else row


def _column(store: ColumnStore, info: ColumnInfo, ids: Sequence[str], have: set[str]) -> Any:
    """The Arrow array of some samples of a column."""
    import pyarrow as pa

    present = [sample for sample in ids if sample in have]
    values = store.read(info.name, present)
    missing = np.array([sample not in have for sample in ids])
    mask = pa.array(missing) if missing.any() else None
    numbers = np.ascontiguousarray(values.numpy())
    kind = _type(info)
    if values.lengths is None:
        rows = np.zeros((len(ids), info.width), numbers.dtype) if mask else numbers
        if mask:
            rows[~missing] = numbers
        return pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), type=kind, mask=mask)
    lengths = np.zeros(len(ids), np.int64)
    lengths[~missing] = values.lengths
    inner = pa.FixedSizeListArray.from_arrays(pa.array(numbers.reshape(-1)), type=kind.value_type)
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    return pa.ListArray.from_arrays(offsets, inner, type=kind, mask=mask)


def _values(table: Any, info: ColumnInfo, path: Path) -> Part:
    """The samples of a row group that have this column, and their values."""
    import pyarrow.compute as pc

    present = table.filter(pc.is_valid(table[info.name]))
    ids: list[str] = present[_ID].to_pylist()
    column = present[info.name].combine_chunks()
    if not ids:
        return ids, Values(np.empty((0, info.width), DTYPES[info.dtype]), info.dtype)
    lengths = tuple(pc.list_value_length(column).to_pylist()) if info.ragged else None
    rows = column.flatten() if info.ragged else column
    numbers = rows.flatten()
    widths = pc.unique(pc.list_value_length(rows)).to_pylist()
    if rows.null_count or numbers.null_count or widths not in ([], [info.width]):
        raise refused(path, f"column {info.name!r} has rows that are not {info.width} numbers")
    array: Array = numbers.to_numpy(zero_copy_only=False).reshape(-1, info.width)
    return ids, Values(from_numbers(array, info.dtype), info.dtype, lengths)


def _text_type(name: str) -> Any:
    import pyarrow as pa

    return pa.list_(pa.string()) if name.removeprefix("sample.") in _LISTS else pa.string()


def _told(samples: Sequence[Mapping[str, Any]], name: str) -> list[Any]:
    """What is known of some samples under `sample.NAME`, None where nothing is."""
    field = name.removeprefix("sample.")
    if field == _ATTRIBUTES:
        return [json.dumps(known[field]) if known.get(field) else None for known in samples]
    return [known.get(field) for known in samples]
