"""Safetensors: one file with a tensor per column, or a folder of shards.

A tensor has the column's name and type. For a ragged column, the tensor `COLUMN:lengths` has the
number of rows per sample. In the one file, the bytes of the tensor `index.json` are a JSON text
with ids, samples and the store's record. In a folder, each shard has consecutive samples of one
column, with their ids in its metadata, and the file `index.json` lists the shards.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vlmlens._files import write_json
from vlmlens.abc.storage import DTYPES, Array, ColumnInfo, Values
from vlmlens.stores.writing import crc32_of
from vlmlens.transfer._parts import Content, Part, content_from, part_ends, refused

if TYPE_CHECKING:
    import torch

INDEX = "index.json"
_LENGTHS = ":lengths"
_TYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "float64": "F64", "int64": "I64"}
_INDEX_CRC32 = "index_crc32"
_LARGEST_INDEX = 1 << 30


def write(content: Content, path: Path, advance: Callable[[int], None]) -> None:
    """Write all columns into one new file. Columns are read twice, to count their rows."""
    ids, lengths, crc32 = _counted(content)
    index = {**content.about.to_record(content.columns), "ids": ids, "crc32": crc32}
    text = json.dumps(index).encode()
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {
        info.name + _LENGTHS: ("int64", (len(lengths[info.name]),))
        for info in content.columns
        if info.ragged
    }
    for info in content.columns:
        rows = sum(lengths[info.name]) if info.ragged else len(ids[info.name])
        tensors[info.name] = (info.dtype, (rows, info.width))
    # torch cannot view a tensor that begins in the middle of one of its numbers.
    order = sorted(tensors, key=lambda name: -DTYPES[tensors[name][0]].itemsize)
    columns = {info.name: info for info in content.columns}
    with path.open("xb") as file:
        file.write(_header({name: tensors[name] for name in order}, text))
        for name in order:
            if name not in columns:
                file.write(np.array(lengths[name.removesuffix(_LENGTHS)], "<i8").tobytes())
                continue
            for some, values in content.parts(columns[name]):
                file.write(np.ascontiguousarray(values.array).tobytes())
                advance(len(some))
        file.write(text)


def write_shards(content: Content, path: Path, advance: Callable[[int], None]) -> None:
    """Write all columns into a new folder."""
    from safetensors.torch import save_file

    path.mkdir()
    shards: dict[str, list[str]] = {}
    for number, info in enumerate(content.columns):
        files = shards[info.name] = []
        for part, (ids, values) in enumerate(content.parts(info)):
            files.append(f"{number:04d}-{part:05d}.safetensors")
            tensors = {info.name: _tensor(values.array, values.dtype)}
            if values.lengths is not None:
                tensors[info.name + _LENGTHS] = _tensor(np.array(values.lengths, "<i8"), "int64")
            text = json.dumps(ids)
            crc32 = crc32_of(values.array, zlib.crc32(text.encode()))
            about = {"column": info.name, "ids": text, "crc32": str(crc32)}
            save_file(tensors, path / files[-1], about)
            advance(len(ids))
    record = content.about.to_record(content.columns)
    write_json(path / INDEX, {**record, "shards": shards})


def read(path: Path) -> Content:
    """The content of a file that `write` made, or of a folder that `write_shards` made."""
    return _read_shards(path) if path.is_dir() else _read_file(path)


def _read_file(path: Path) -> Content:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        if INDEX not in file.keys():  # noqa: SIM118  it is not a mapping
            raise refused(path, f"it has no tensor {INDEX!r}")
        text = file.get_tensor(INDEX).numpy().tobytes()
        found = str(zlib.crc32(text))
        if (file.metadata() or {}).get(_INDEX_CRC32, found) != found:
            raise refused(path, "its index is not as it was written")
        record = json.loads(text)

    def parts(info: ColumnInfo) -> Iterator[Part]:
        ids = record["ids"][info.name]
        with safe_open(path, "pt") as file:
            lengths = _lengths(file, info)
            stored = file.get_slice(info.name)
            rows = len(ids) if lengths is None else sum(lengths)
            _check(path, info, stored.get_dtype(), stored.get_shape(), rows)
            first = done = crc32 = 0
            for last in part_ends(len(ids), lengths, info):
                some = None if lengths is None else lengths[first:last]
                count = last - first if some is None else sum(some)
                values = _values(stored[done : done + count], info, some)
                crc32 = crc32_of(values.array, crc32)
                yield ids[first:last], values
                first, done = last, done + count
            _check_crc32(path, info, crc32, record["crc32"][info.name])

    return content_from(record, path, parts)


def _read_shards(path: Path) -> Content:
    if (path / INDEX).stat().st_size > _LARGEST_INDEX:
        raise refused(path, f"its {INDEX} is too large")
    record = json.loads((path / INDEX).read_text(encoding="utf-8"))
    shards = record.get("shards", {})

    def parts(info: ColumnInfo) -> Iterator[Part]:
        for name in shards[info.name]:
            file = path / name
            if Path(name).name != name or file.is_symlink() or not file.is_file():
                raise refused(path, f"its index names {name!r}, which is not a file in it")
            yield _shard(file, info)

    return content_from(record, path, parts)


def _shard(path: Path, info: ColumnInfo) -> Part:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        ids: list[str] = json.loads(file.metadata()["ids"])
        lengths = _lengths(file, info)
        stored = file.get_slice(info.name)
        rows = len(ids) if lengths is None else sum(lengths)
        _check(path, info, stored.get_dtype(), stored.get_shape(), rows)
        values = _values(file.get_tensor(info.name), info, lengths)
        if "crc32" in file.metadata():
            found = crc32_of(values.array, zlib.crc32(file.metadata()["ids"].encode()))
            _check_crc32(path, info, found, int(file.metadata()["crc32"]))
        return ids, values


def _check_crc32(path: Path, info: ColumnInfo, found: int, wanted: object) -> None:
    if found != wanted:
        raise refused(path, f"the tensor {info.name!r} is not as it was written")


def _check(path: Path, info: ColumnInfo, dtype: str, shape: list[int], rows: int) -> None:
    """Refuse a tensor that is not as the index says."""
    if (dtype, list(shape)) != (_TYPES[info.dtype], [rows, info.width]):
        raise refused(
            path,
            f"the tensor {info.name!r} is {dtype} {list(shape)}, and {_TYPES[info.dtype]} "
            f"{[rows, info.width]} was expected",
        )


def _lengths(file: Any, info: ColumnInfo) -> tuple[int, ...] | None:
    if not info.ragged:
        return None
    found = tuple(int(length) for length in file.get_tensor(info.name + _LENGTHS).tolist())
    if min(found, default=0) < 0:
        raise ValueError(f"column {info.name!r} has negative numbers of rows")
    return found


def _values(tensor: torch.Tensor, info: ColumnInfo, lengths: tuple[int, ...] | None) -> Values:
    import torch

    carried = tensor.view(torch.int16) if info.dtype == "bfloat16" else tensor
    return Values(carried.contiguous().numpy().view(DTYPES[info.dtype]), info.dtype, lengths)


def _tensor(array: Array, dtype: str) -> torch.Tensor:
    import torch

    bits = np.ascontiguousarray(array)
    if dtype != "bfloat16":
        return torch.from_numpy(bits)
    return torch.from_numpy(bits.view("<i2")).view(torch.bfloat16)


def _counted(
    content: Content,
) -> tuple[dict[str, list[str]], dict[str, list[int]], dict[str, int]]:
    """Ids, rows per sample of ragged columns, and checksums, by column."""
    ids: dict[str, list[str]] = {}
    lengths: dict[str, list[int]] = {}
    crc32: dict[str, int] = {}
    for info in content.columns:
        ids[info.name], lengths[info.name] = [], []
        for some, values in content.parts(info):
            ids[info.name] += some
            lengths[info.name] += values.lengths or ()
            crc32[info.name] = crc32_of(values.array, crc32.get(info.name, 0))
        crc32.setdefault(info.name, 0)
    return ids, lengths, crc32


def _header(tensors: dict[str, tuple[str, tuple[int, ...]]], index: bytes) -> bytes:
    """The header of the file format: its length, and JSON that says where each tensor lies."""
    at = 0
    about: dict[str, Any] = {"__metadata__": {_INDEX_CRC32: str(zlib.crc32(index))}}
    for name, (dtype, shape) in tensors.items():
        end = at + int(np.prod(shape, dtype=object)) * DTYPES[dtype].itemsize
        about[name] = {"dtype": _TYPES[dtype], "shape": shape, "data_offsets": [at, end]}
        at = end
    about[INDEX] = {"dtype": "U8", "shape": [len(index)], "data_offsets": [at, at + len(index)]}
    text = json.dumps(about).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text
