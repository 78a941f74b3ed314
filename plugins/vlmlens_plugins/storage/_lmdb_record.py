"""The record under the key `meta`: format, version, and what a run keeps there; and the seal."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vlmlens.errors import StoreCorrupt, StoreError
from vlmlens.stores.writing import to_json
from vlmlens_plugins.storage._chunk_format import (
    FORMAT,
    META_KEY,
    SEAL_KEY,
    VERSION,
    Index,
    is_newer,
)
from vlmlens_plugins.storage._lmdb_environment import DATA_FILE
from vlmlens_plugins.storage._seal import Seal, broken

if TYPE_CHECKING:
    from lmdb import Transaction


def put_meta(txn: Transaction[Any], index: Index, meta: bytes) -> None:
    """Replace the record (from `record_of`)."""
    txn.put(META_KEY, meta)
    txn.put(SEAL_KEY, index.seal.with_meta(meta).to_bytes())


def put_seal(txn: Transaction[Any], seal: Seal) -> None:
    """Seal what a write added. A store of an older version becomes one of this version."""
    before = txn.get(SEAL_KEY)
    if before is None:
        record = record_of((read_record(txn) or {}).get("meta", {}))
        txn.put(META_KEY, record)
        seal = seal.with_meta(record)
    else:
        seal = replace(seal, meta_crc32=Seal.from_bytes(bytes(before)).meta_crc32)
    txn.put(SEAL_KEY, seal.to_bytes())


def record_of(meta: Mapping[str, Any]) -> bytes:
    """The stored form of a run's own record."""
    return to_json({"format": FORMAT, "version": VERSION, "meta": dict(meta)})


def read_record(txn: Transaction[Any]) -> dict[str, Any] | None:
    """The store's record, None if there is none, {} if it is not a record.

    Raises:
        StoreCorrupt: It is not as it was written.
    """
    value, seal = txn.get(META_KEY), txn.get(SEAL_KEY)
    if value is None and seal is None:
        return None
    raw = bytes(value or b"")
    try:
        record = json.loads(raw)
    except (ValueError, RecursionError):
        record = None
    found: dict[str, Any] = record if isinstance(record, dict) else {}
    if found.get("format") == FORMAT and is_newer(raw):
        return found
    if seal is not None and Seal.from_bytes(bytes(seal)).meta_crc32 != zlib.crc32(raw):
        raise broken("The store's own record is not as it was written")
    if seal is None and found.get("version") == VERSION:
        raise broken("The store's seal is missing")
    return found


def check_version(folder: str, record: Mapping[str, Any]) -> None:
    """Raise an error unless this vlmlens reads the store that the record belongs to.

    Raises:
        StoreError: Another program or a newer vlmlens wrote it.
    """
    version = record.get("version")
    if record.get("format") != FORMAT or not isinstance(version, int):
        raise foreign(folder)
    if not isinstance(record.get("meta"), dict):
        raise foreign(folder)
    if version > VERSION:
        raise StoreError(
            f"The store {folder} has format version {version}; this vlmlens reads up to {VERSION}.",
            subject=folder,
            hint="Update vlmlens: pip install --upgrade vlmlens.",
        )


def foreign(folder: str) -> StoreError:
    """The error for a database of another program."""
    return StoreError(
        f"The LMDB database in {folder} was not written by vlmlens.",
        subject=folder,
        hint="Give an empty folder, or that of a run's columns.",
    )


def nothing(folder: str) -> StoreCorrupt:
    """The error for a database without any record."""
    return StoreCorrupt(
        f"The file {DATA_FILE} in {folder} is empty: it was cut, or its first writer was killed.",
        subject=folder,
        hint="Copy the store again from its source, or extract again with --fresh.",
    )
