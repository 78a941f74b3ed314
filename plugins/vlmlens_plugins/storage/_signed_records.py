"""JSON records with checksums, for stores of several files.

A record ends with the key `crc32`: `zlib.crc32` of the text without it.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any

from vlmlens.errors import StoreCorrupt
from vlmlens.stores.writing import to_json

_MARK = b', "crc32": '


def signed(record: Mapping[str, Any], start: int = 0) -> tuple[bytes, int]:
    """A record as stored text, and its checksum.

    Args:
        record: The record; not empty.
        start: The checksum that it goes on from.
    """
    text = to_json(record)
    crc32 = zlib.crc32(text, start)
    return text[:-1] + _MARK + str(crc32).encode() + b"}", crc32


def checked(data: bytes, what: str, start: int = 0) -> tuple[dict[str, Any], int]:
    """The inverse of `signed`.

    Raises:
        StoreCorrupt: The text is not as it was written.
    """
    text, mark, rest = data.rpartition(_MARK)
    crc32 = zlib.crc32(text + b"}", start)
    if not mark or rest != str(crc32).encode() + b"}":
        raise damaged(what)
    return parsed(data, what), crc32


def parsed(data: bytes, what: str) -> dict[str, Any]:
    """The record in a text without a checksum of its own.

    Raises:
        StoreCorrupt: It is not a record.
    """
    try:
        record = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise damaged(what) from error
    if not isinstance(record, dict):
        raise damaged(what)
    return record


def damaged(what: str) -> StoreCorrupt:
    """The error for a record that is not as it was written."""
    return StoreCorrupt(
        f"The record of {what} is damaged.",
        subject=what,
        hint="Copy the store again from its source, or extract again with --fresh.",
    )
