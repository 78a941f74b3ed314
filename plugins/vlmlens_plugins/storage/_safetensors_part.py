"""A part of a store: a safetensors file that is written once.

Its tensors are named by columns: all rows of one column in the part, so they are one range of
bytes. The header's `__metadata__` holds `vlmlens`, a JSON text (the part's record: columns, and
chunks with ids, lengths and checksums of values), and `crc32`, the checksum of that text.
docs/storage-format.md describes it for other programs.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vlmlens.abc.storage import DTYPES
from vlmlens.errors import StoreCorrupt, StoreError
from vlmlens.stores.writing import to_json
from vlmlens_plugins.storage._chunk_format import Column, Index

FORMAT = "vlmlens-part"
VERSION = 1
HEADER_LIMIT = 64 << 20
"""A header with more bytes is not read. The safetensors library takes up to 100 MB."""

FIRST_READ = 64 << 10
"""Bytes that are read of a part to see its header; more if the header is longer."""

RESERVED = "__metadata__"
_LENGTH = struct.Struct("<Q")
_NAMES = {
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "float64": "F64",
    "int64": "I64",
}


@dataclass(frozen=True, slots=True)
class Part:
    """What a part's header says.

    Args:
        key: The name of its object.
        start: The byte of the object with which the values begin.
        text: The record, as it is stored.
        index: Its columns and chunks, numbered from 0 within the part.
    """

    key: str
    start: int
    text: bytes
    index: Index

    def card(self) -> dict[str, Any]:
        """What is needed to read the part without its header, as JSON data."""
        return {"start": self.start, "record": self.record}

    @property
    def record(self) -> dict[str, Any]:
        """The record: its `number`, `writer`, `columns`, `chunks`, ..."""
        found: dict[str, Any] = json.loads(self.text)
        return found

    @property
    def meta(self) -> dict[str, Any]:
        """The record that the part's writer has set; empty if it has set none."""
        return dict(self.record.get("meta", {}))

    @property
    def size(self) -> int:
        """Bytes of the whole object."""
        return max((stop for _, stop in self.places().values()), default=self.start)

    def places(self) -> dict[tuple[int, int], tuple[int, int]]:
        """The first byte and the byte after the last one, by column and chunk."""
        found: dict[tuple[int, int], tuple[int, int]] = {}
        place = self.start
        for column in stored_order(self.index):
            for chunk in self.index.chunks_of(column):
                size = chunk.stored_rows(column.number) * row_bytes(column)
                found[column.number, chunk.number] = (place, place + size)
                place += size
        return found


def row_bytes(column: Column) -> int:
    """Bytes of a row of a column."""
    return column.form.width * DTYPES[column.form.dtype].itemsize


def stored_order(index: Index) -> list[Column]:
    """The columns in the order of their tensors: wide types first, so that all are aligned."""
    return sorted(index.columns.values(), key=lambda each: -DTYPES[each.form.dtype].itemsize)


def tensors_of(index: Index) -> dict[str, dict[str, Any]]:
    """What the header says of the tensors."""
    found: dict[str, dict[str, Any]] = {}
    place = 0
    for column in stored_order(index):
        rows = sum(chunk.stored_rows(column.number) for chunk in index.chunks_of(column))
        stop = place + rows * row_bytes(column)
        found[column.name] = {
            "dtype": _NAMES[column.form.dtype],
            "shape": [rows, column.form.width],
            "data_offsets": [place, stop],
        }
        place = stop
    return found


def record_of(
    index: Index, number: int, writer: str, after: str, meta: Mapping[str, Any]
) -> dict[str, Any]:
    """The record of a part.

    Args:
        index: What is in it.
        number: Its number in the store.
        writer: Something that no other part has.
        after: The `writer` of the part before it; empty: it is the first one.
        meta: The record that the writer has set; empty: none.
    """
    return {
        "format": FORMAT,
        "version": VERSION,
        "number": number,
        "writer": writer,
        "after": after,
        **({"meta": dict(meta)} if meta else {}),
        "columns": [column.to_record() for column in index.columns.values()],
        "chunks": [chunk.to_record() for chunk in index.chunks],
    }


def header_of(text: bytes, index: Index) -> bytes:
    """The first bytes of a part, up to its values.

    Args:
        text: The record.
        index: What is in the part.

    Raises:
        StoreError: There are more samples in it than a header can name.
    """
    about = {"vlmlens": text.decode(), "crc32": str(zlib.crc32(text))}
    header = to_json({RESERVED: about, **tensors_of(index)})
    header += b" " * (-len(header) % 8)
    if len(header) > HEADER_LIMIT:
        raise StoreError(
            f"A part's header has {len(header)} bytes; at most {HEADER_LIMIT} are allowed.",
            hint="Write fewer samples or columns at once, or give samples shorter ids.",
        )
    return _LENGTH.pack(len(header)) + header


def read_part(key: str, first: bytes, more: Callable[[int], bytes]) -> Part:
    """A part, from the first bytes of its object.

    Args:
        key: The name of the object.
        first: Its first bytes: all, or at least `FIRST_READ`.
        more: Gives that many first bytes of the object.

    Raises:
        StoreCorrupt: It is no part, or not as it was written.
        StoreError: A newer vlmlens wrote it.
    """
    if len(first) < _LENGTH.size:
        raise broken(key, "it ends within its header")
    start = _LENGTH.size + _LENGTH.unpack_from(first)[0]
    if start > _LENGTH.size + HEADER_LIMIT:
        raise broken(key, "its header is too long")
    if start > len(first):
        first = more(start)
    if start > len(first):
        raise broken(key, "it ends within its header")
    return _parsed(key, first[_LENGTH.size : start])


def _parsed(key: str, header: bytes) -> Part:
    try:
        tensors = json.loads(header)
        about = tensors.pop(RESERVED)
        text = about["vlmlens"].encode()
        whole = int(about["crc32"]) == zlib.crc32(text)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise broken(key, "its header cannot be understood") from error
    if not whole:
        raise broken(key, "its header is not as it was written")
    part = part_of(key, _LENGTH.size + len(header), text)
    if tensors != tensors_of(part.index):
        raise broken(key, "its tensors are not those that its record names")
    return part


def part_of(key: str, start: int, text: bytes) -> Part:
    """A part, from its record.

    Raises:
        StoreCorrupt: The record contradicts itself.
        StoreError: A newer vlmlens wrote it.
    """
    try:
        record = json.loads(text)
        if record["format"] != FORMAT:
            raise TypeError(record["format"])
        _check_version(key, record["version"])
        index = Index()
        for number, column in enumerate(record["columns"]):
            index.add_column(number, column)
        for number, chunk in enumerate(record["chunks"]):
            index.add_chunk(number, chunk)
        if not isinstance(record.get("meta", {}), dict) or RESERVED in index.columns:
            raise TypeError(RESERVED)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise broken(key, "its record cannot be understood") from error
    except StoreCorrupt as error:
        raise broken(key, error.message.rstrip(".")) from error
    return Part(key, start, text, index)


def of_card(key: str, card: Mapping[str, Any]) -> Part:
    """The inverse of `Part.card`.

    Raises:
        StoreCorrupt: It is no card.
    """
    start, record = card.get("start"), card.get("record")
    if type(start) is not int or start < _LENGTH.size or not isinstance(record, dict):
        raise broken(key, "what is known of it cannot be understood")
    return part_of(key, start, to_json(record))


def _check_version(key: str, version: object) -> None:
    if type(version) is not int or version < 1:
        raise TypeError(version)
    if version > VERSION:
        raise StoreError(
            f"The part {key} has format version {version}; this vlmlens reads up to {VERSION}.",
            subject=key,
            hint="Update vlmlens: pip install --upgrade vlmlens.",
        )


def broken(key: str, what: str) -> StoreCorrupt:
    """The error for a part that is not as it was written."""
    return StoreCorrupt(
        f"The part {key} is damaged: {what}.",
        subject=key,
        hint="Copy the store again from its source, or extract again with --fresh.",
    )


def part_key(number: int) -> str:
    """Where a part lies."""
    return f"parts/{number:08d}.safetensors"


def pieces_in_order(index: Index) -> Iterator[tuple[int, int]]:
    """Columns and chunks, in the order of their values in a part."""
    for column in stored_order(index):
        for chunk in index.chunks_of(column):
            yield column.number, chunk.number
