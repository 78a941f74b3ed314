"""The index of a store of parts: one object that tells the headers of all of them.

It is a JSON text under gzip, which has a checksum of its own. It can be made again from the parts.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable
from typing import NamedTuple

from vlmlens.errors import StoreCorrupt, StoreError
from vlmlens.stores.writing import to_json
from vlmlens_plugins.storage._safetensors_part import Part, of_card, part_key

KEY = "index.json.gz"
FORMAT = "vlmlens-parts"
VERSION = 1
_GROWTH, _ALLOWANCE = 200, 16 << 20


def entry_of(part: Part) -> bytes:
    """What the index says of a part, as JSON text."""
    return b'{"start": %d, "record": %s}' % (part.start, part.text)


class Told(NamedTuple):
    """What an index tells.

    Args:
        parts: All parts, or those up to some time.
        closed: Whether nobody has written since.
        meta: `zlib.crc32` of the object with the run's record; None: there was none.
    """

    parts: list[Part]
    closed: bool
    meta: int | None


def packed(entries: Iterable[bytes], *, closed: bool, meta: int | None) -> bytes:
    """The index as it is stored.

    Args:
        entries: Those of all parts, in order.
        closed: See `Told`.
        meta: See `Told`.
    """
    about = {"format": FORMAT, "version": VERSION, "closed": closed, "meta": meta}
    text = to_json(about)[:-1] + b', "parts": [' + b",\n".join(entries) + b"]}"
    return gzip.compress(text, 6, mtime=0)


def unpacked(data: bytes) -> Told:
    """The inverse of `packed`.

    Raises:
        StoreCorrupt: It is no index, or not as it was written.
        StoreError: A newer vlmlens wrote it.
    """
    try:
        record = json.loads(_decompressed(data))
        if record["format"] != FORMAT:
            raise TypeError(record["format"])
        version, cards = record["version"], record["parts"]
        if type(version) is not int or version < 1 or not isinstance(cards, list):
            raise TypeError(version)
        if not all(isinstance(card, dict) for card in cards):
            raise TypeError(cards)
    except (ValueError, KeyError, TypeError, RecursionError, zlib.error) as error:
        raise StoreCorrupt(
            f"The index {KEY} of the store is damaged.",
            subject=KEY,
            hint="Remove that object: the index is made again from the parts.",
        ) from error
    if version > VERSION:
        raise StoreError(
            f"The store's index has format version {version}; this vlmlens reads up to {VERSION}.",
            subject=KEY,
            hint="Update vlmlens: pip install --upgrade vlmlens.",
        )
    parts = [of_card(part_key(number), card) for number, card in enumerate(cards)]
    meta = record.get("meta")
    return Told(parts, record.get("closed") is True, meta if type(meta) is int else None)


def _decompressed(data: bytes) -> bytes:
    """The text in a gzip file, unless it is far larger than the file.

    Raises:
        ValueError: It is, or the file is cut.
    """
    unzip = zlib.decompressobj(wbits=31)
    text = unzip.decompress(data, _ALLOWANCE + _GROWTH * len(data))
    if not unzip.eof or unzip.unused_data:
        raise ValueError(KEY)
    return text
