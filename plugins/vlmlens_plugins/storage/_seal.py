"""The seal of an LMDB store: how many records it has, and checksums over all of them.

A value's checksum is in its chunk's header. The seal covers what has no other: headers, records of
columns, their order and number, and the run's own record. Each write renews it in its transaction.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict, dataclass, fields, replace

from vlmlens.errors import StoreCorrupt
from vlmlens.stores.writing import to_json


@dataclass(frozen=True, slots=True)
class Seal:
    """Counts and checksums. Those of columns and chunks go over all records, in numbered order.

    Args:
        columns: Number of columns.
        columns_crc32: `zlib.crc32` over their records.
        chunks: Number of chunks.
        chunks_crc32: `zlib.crc32` over their headers.
        meta_crc32: `zlib.crc32` of the store's record.
    """

    columns: int = 0
    columns_crc32: int = 0
    chunks: int = 0
    chunks_crc32: int = 0
    meta_crc32: int = 0

    def with_column(self, record: bytes) -> Seal:
        """The seal once a column is added."""
        crc32 = zlib.crc32(record, self.columns_crc32)
        return replace(self, columns=self.columns + 1, columns_crc32=crc32)

    def with_chunk(self, header: bytes) -> Seal:
        """The seal once a chunk is added."""
        crc32 = zlib.crc32(header, self.chunks_crc32)
        return replace(self, chunks=self.chunks + 1, chunks_crc32=crc32)

    def with_meta(self, record: bytes) -> Seal:
        """The seal once the store's record is replaced."""
        return replace(self, meta_crc32=zlib.crc32(record))

    def to_bytes(self) -> bytes:
        """The seal as it is stored."""
        return to_json(asdict(self))

    @classmethod
    def from_bytes(cls, stored: bytes) -> Seal:
        """The inverse of `to_bytes`.

        Raises:
            StoreCorrupt: It cannot be understood.
        """
        try:
            record = json.loads(stored)
            return cls(**{field.name: int(record[field.name]) for field in fields(cls)})
        except (ValueError, KeyError, TypeError) as error:
            raise broken("The store's seal is damaged") from error

    def check(self, found: Seal) -> None:
        """Compare with what is there of columns and chunks.

        Raises:
            StoreCorrupt: Something else was written.
        """
        for what in ("columns", "chunks"):
            wanted, there = getattr(self, what), getattr(found, what)
            if wanted != there:
                raise broken(f"{wanted} records of {what} were written, and {there} are there")
            if getattr(self, f"{what}_crc32") != getattr(found, f"{what}_crc32"):
                raise broken(f"A record of the {wanted} {what} is not as it was written")


def broken(what: str) -> StoreCorrupt:
    """The error for records that are not as they were written."""
    return StoreCorrupt(
        f"{what}: the store is damaged.",
        hint="Copy the store again from its source, or extract again with --fresh.",
    )
