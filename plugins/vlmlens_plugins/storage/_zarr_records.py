"""The JSON records of a Zarr store, with checksums.

That of a commit goes on from the commit before, so it covers all commits up to this one, and their
order.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from vlmlens.abc.storage import Mode
from vlmlens.errors import StoreError
from vlmlens.stores.writing import to_json
from vlmlens_plugins.storage._chunk_format import Index
from vlmlens_plugins.storage._places import Place
from vlmlens_plugins.storage._signed_records import checked, damaged

FORMAT = "vlmlens-columns"
VERSION = 2
ROOT = "zarr.json"


def parsed_seal(data: bytes, what: str) -> dict[str, Any]:
    """The seal: `commits`, `chain`, and the checksums of `files`.

    Raises:
        StoreCorrupt: It is not as it was written.
    """
    seal, _ = checked(data, what)
    if not {"commits", "chain"} <= seal.keys() or not isinstance(seal.get("files"), dict):
        raise damaged(what)
    return seal


def check_format(place: Place, mode: Mode) -> int:
    """The version of a store, which is made where it is missing (mode "a")."""
    data = place.get(ROOT)
    if data is None and mode == "a":
        group = {"zarr_format": 3, "node_type": "group", "attributes": {}}
        place.put("columns/zarr.json", to_json(group))
        about = {"vlmlens": {"format": FORMAT, "version": VERSION}}
        place.put(ROOT, to_json({**group, "attributes": about}))
        return VERSION
    try:
        found = json.loads(data or b"")["attributes"]["vlmlens"]
        known, version = found["format"] == FORMAT, int(found["version"])
    except (ValueError, KeyError, TypeError, RecursionError):
        known, version = False, 0
    if not known or version < 1:
        raise StoreError(
            f"The Zarr group at {place.name} was not written by vlmlens.",
            subject=place.name,
            hint="Give an empty folder, or that of a run's columns.",
        )
    if version > VERSION:
        raise StoreError(
            f"The store {place.name} has format version {version}; this vlmlens reads up to "
            f"{VERSION}.",
            subject=place.name,
            hint="Update vlmlens: pip install --upgrade vlmlens.",
        )
    return version


def add_commit(index: Index, record: Mapping[str, Any], name: str) -> None:
    """Add what a commit holds to an index.

    Raises:
        StoreCorrupt: It is not the record of a commit.
    """
    try:
        columns, chunks = list(record["columns"]), list(record["chunks"])
    except (KeyError, TypeError) as error:
        raise damaged(name) from error
    for column in columns:
        index.add_column(len(index.columns), column)
    for chunk in chunks:
        index.add_chunk(len(index.chunks), chunk)


def commit_key(number: int) -> str:
    """Where a commit lies."""
    return f"commits/{number:08d}.json"
