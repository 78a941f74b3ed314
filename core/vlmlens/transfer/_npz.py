"""NumPy's npz: an array `[rows, width]` per column, one file.

bfloat16 is written as float32, which holds it exactly. `COLUMN:lengths` has the number of rows per
sample of a ragged column. The entry `index.json` has ids, types, samples and the store's record.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from vlmlens.abc.storage import DTYPES, Array, ColumnInfo, Values
from vlmlens.transfer._parts import PART_BYTES, Content, Part, content_from, from_numbers, row_bytes

INDEX = "index.json"
_LENGTHS = ":lengths"


def write(content: Content, path: Path, advance: Callable[[int], None]) -> None:
    """Write all columns into one new file. Ragged columns are read twice, to count their rows."""
    ids: dict[str, list[str]] = {}
    with zipfile.ZipFile(path, "x", zipfile.ZIP_STORED) as archive:
        for info in content.columns:
            lengths = [k for _, v in content.parts(info) for k in v.lengths or ()]
            rows = sum(lengths) if info.ragged else info.samples
            ids[info.name] = []
            with _array(archive, info.name, _dtype(info), (rows, info.width)) as entry:
                for some, values in content.parts(info) if rows or info.samples else ():
                    ids[info.name] += some
                    entry.write(np.ascontiguousarray(values.numpy()).tobytes())
                    advance(len(some))
            if info.ragged:
                with _array(archive, info.name + _LENGTHS, "<i8", (len(lengths),)) as entry:
                    entry.write(np.array(lengths, "<i8").tobytes())
        record = content.about.to_record(content.columns)
        archive.writestr(INDEX, json.dumps({**record, "ids": _shared(ids)}))


def read(path: Path) -> Content:
    """The content of a file that `write` made."""
    with zipfile.ZipFile(path) as archive:
        record = json.loads(archive.read(INDEX))
    shared = record.get("ids", {})

    def parts(info: ColumnInfo) -> Iterator[Part]:
        ids = shared["lists"][shared["of"][info.name]]
        yield from _parts(path, info, ids)

    return content_from(record, path, parts)


def _parts(path: Path, info: ColumnInfo, ids: list[str]) -> Iterator[Part]:
    with zipfile.ZipFile(path) as archive:
        lengths = None
        if info.ragged:
            with archive.open(f"{info.name}{_LENGTHS}.npy") as entry:
                lengths = tuple(np.lib.format.read_array(entry, allow_pickle=False).tolist())
        with archive.open(f"{info.name}.npy") as entry:
            _skip_header(entry)
            first = 0
            while first < len(ids):
                last = _end(first, lengths, len(ids), row_bytes(info))
                some = None if lengths is None else lengths[first:last]
                array = _rows(entry, info, last - first if some is None else sum(some))
                yield ids[first:last], Values(array, info.dtype, some)
                first = last


def _end(first: int, lengths: tuple[int, ...] | None, samples: int, row: int) -> int:
    """The end of a part that begins at a given sample."""
    last, size = first, 0
    while last < samples and (last == first or size < PART_BYTES):
        size += row * (1 if lengths is None else lengths[last])
        last += 1
    return last


def _rows(entry: IO[bytes], info: ColumnInfo, rows: int) -> Array:
    dtype = np.dtype(_dtype(info))
    raw = entry.read(rows * info.width * dtype.itemsize)
    return from_numbers(np.frombuffer(raw, dtype).reshape(rows, info.width), info.dtype)


def _skip_header(entry: IO[bytes]) -> None:
    version = np.lib.format.read_magic(entry)
    reader = {(1, 0): np.lib.format.read_array_header_1_0}.get(version)
    (reader or np.lib.format.read_array_header_2_0)(entry)


def _array(archive: zipfile.ZipFile, name: str, dtype: str, shape: tuple[int, ...]) -> IO[bytes]:
    entry = archive.open(f"{name}.npy", "w", force_zip64=True)
    header: dict[str, Any] = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(entry, header)
    return entry


def _dtype(info: ColumnInfo) -> str:
    return "<f4" if info.dtype == "bfloat16" else DTYPES[info.dtype].str


def _shared(ids: dict[str, list[str]]) -> dict[str, Any]:
    """The distinct lists of ids, and which list each column has."""
    lists: list[list[str]] = []
    of = {}
    for name, some in ids.items():
        if some not in lists:
            lists.append(some)
        of[name] = lists.index(some)
    return {"lists": lists, "of": of}
