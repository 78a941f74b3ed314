"""NumPy's npz: an array `[rows, width]` per column, one file.

bfloat16 is written as float32, which holds it exactly. `COLUMN:lengths` has the number of rows per
sample of a ragged column. The entry `index.json` is a JSON text with ids, types, samples and the
store's record; NumPy reads it as a bytes string without dimensions.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from vlmlens.abc.storage import DTYPES, Array, ColumnInfo, Values
from vlmlens.transfer._parts import (
    Content,
    Part,
    content_from,
    from_numbers,
    part_ends,
    refused,
)

INDEX = "index.json"
_LENGTHS = ":lengths"
_LARGEST_INDEX = 1 << 30
_LARGEST_RATIO, _FREE = 200, 64 << 20
"""How much more than the file its entries may take, if they are not small."""


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
        text = json.dumps({**record, "ids": _shared(ids)}).encode()
        with _array(archive, INDEX, f"|S{len(text)}", ()) as entry:
            entry.write(text)


def read(path: Path) -> Content:
    """The content of a file that `write` made.

    A column has the type that its array has.
    """
    with zipfile.ZipFile(path) as archive:
        record = _index(archive, path)
        shared = record.get("ids", {})
        content = content_from(record, path, lambda info: iter(()))
        columns = [_as_stored(archive, info, path) for info in content.columns]

    def parts(info: ColumnInfo) -> Iterator[Part]:
        ids = shared["lists"][shared["of"][info.name]]
        yield from _parts(path, info, ids)

    typed = [{**old, "dtype": info.dtype} for old, info in
             zip(record["columns"], columns, strict=True)]  # fmt: skip
    return content_from({**record, "columns": typed}, path, parts)


class _Header(NamedTuple):
    """What an array's entry says of itself."""

    dtype: np.dtype[Any]
    fortran: bool
    shape: tuple[int, ...]

    @classmethod
    def read(cls, entry: IO[bytes]) -> _Header:
        """The header at an entry's beginning; its array follows."""
        version = np.lib.format.read_magic(entry)
        readers = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }
        if version not in readers:
            raise ValueError(f"an array has the unknown version {version}")
        shape, fortran, dtype = readers[version](entry)
        return cls(dtype, fortran, shape)

    def as_column(self, info: ColumnInfo, path: Path) -> str:
        """The column's type that the array has.

        Raises:
            StoreError: No store keeps such an array, or the index says another shape.
        """
        bare = self.dtype.newbyteorder("<")
        own = next((name for name, kind in DTYPES.items() if kind == bare), None)
        if own is None or own == "bfloat16":
            raise refused(path, f"the array {info.name!r} has the type {self.dtype}")
        rows = self.shape[0] if info.ragged and self.shape else info.samples
        if self.shape != (rows, info.width):
            wanted = f"[{'rows' if info.ragged else rows}, {info.width}]"
            raise refused(
                path, f"the array {info.name!r} has shape {list(self.shape)}, its index says "
                f"{wanted}"
            )  # fmt: skip
        return info.dtype if info.dtype == "bfloat16" and own == "float32" else own


def _as_stored(archive: zipfile.ZipFile, info: ColumnInfo, path: Path) -> ColumnInfo:
    with _entry(archive, f"{info.name}.npy", path) as entry:
        return replace(info, dtype=_Header.read(entry).as_column(info, path))


def _parts(path: Path, info: ColumnInfo, ids: list[str]) -> Iterator[Part]:
    with zipfile.ZipFile(path) as archive:
        lengths = _lengths(archive, info, len(ids), path) if info.ragged else None
        with _entry(archive, f"{info.name}.npy", path) as entry:
            header = _Header.read(entry)
            rows = len(ids) if lengths is None else sum(lengths)
            if header.shape[0] != rows:
                raise refused(path, f"column {info.name!r} has {header.shape[0]} rows, not {rows}")
            whole = _transposed(entry, header) if header.fortran else None
            first = done = 0
            for last in part_ends(len(ids), lengths, info):
                some = None if lengths is None else lengths[first:last]
                count = last - first if some is None else sum(some)
                array = _rows(entry, header, count) if whole is None else whole[done : done + count]
                yield ids[first:last], Values(from_numbers(array, info.dtype), info.dtype, some)
                first, done = last, done + count
            if entry.read(1):
                raise refused(path, f"the array {info.name!r} is longer than its header says")


def _lengths(
    archive: zipfile.ZipFile, info: ColumnInfo, samples: int, path: Path
) -> tuple[int, ...]:
    with _entry(archive, f"{info.name}{_LENGTHS}.npy", path) as entry:
        found = np.lib.format.read_array(entry, allow_pickle=False)
    if found.shape != (samples,) or found.dtype.kind not in "iu" or (found < 0).any():
        raise refused(path, f"column {info.name!r} has no number of rows for each sample")
    return tuple(found.tolist())


def _rows(entry: IO[bytes], header: _Header, rows: int) -> Array:
    size = rows * header.shape[1] * header.dtype.itemsize
    raw = entry.read(size)
    if len(raw) != size:
        raise ValueError(f"an array ends {size - len(raw)} bytes too early")
    return np.frombuffer(raw, header.dtype).reshape(rows, header.shape[1])


def _transposed(entry: IO[bytes], header: _Header) -> Array:
    """All rows of an array that is stored column by column."""
    turned = header._replace(shape=header.shape[::-1])
    return _rows(entry, turned, turned.shape[0]).T


@contextmanager
def _entry(archive: zipfile.ZipFile, name: str, path: Path) -> Iterator[IO[bytes]]:
    """An entry of the archive.

    Raises:
        StoreError: There is none.
    """
    try:
        info = archive.getinfo(name)
    except KeyError:
        raise refused(path, f"it has no entry {name!r}") from None
    with archive.open(info) as entry:
        yield entry


def _index(archive: zipfile.ZipFile, path: Path) -> Any:
    """The index of an archive that does not unpack to far more than the file holds.

    Raises:
        StoreError: It does, or has no index.
    """
    held, total = path.stat().st_size, sum(info.file_size for info in archive.infolist())
    if total > max(_FREE, _LARGEST_RATIO * held):
        raise refused(path, f"it would unpack from {held} to {total} bytes")
    names: Sequence[str] = archive.namelist()
    name = f"{INDEX}.npy" if f"{INDEX}.npy" in names else INDEX
    if name in names and archive.getinfo(name).file_size > _LARGEST_INDEX:
        raise refused(path, f"its index has {archive.getinfo(name).file_size} bytes")
    with _entry(archive, name, path) as entry:
        if name != INDEX:
            _Header.read(entry)
        return json.loads(entry.read())


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
