"""The index of a store of parts: one object that tells the headers of all of them.

It is a JSON text under gzip, which has a checksum of its own. It can be made again from the parts.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable

from vlmlens.errors import StoreCorrupt, StoreError
from vlmlens_plugins.storage._safetensors_part import Part, of_card, part_key

KEY = "index.json.gz"
FORMAT = "vlmlens-parts"
VERSION = 1
_GROWTH, _ALLOWANCE = 200, 16 << 20


def entry_of(part: Part) -> bytes:
    """What the index says of a part, as JSON text."""
    return b'{"start": %d, "record": %s}' % (part.start, part.text)


def packed(entries: Iterable[bytes]) -> bytes:
    """The index as it is stored.

    Args:
        entries: Those of all parts, in order.
    """
    head = b'{"format": "%s", "version": %d, "parts": [' % (FORMAT.encode(), VERSION)
    return gzip.compress(head + b",\n".join(entries) + b"]}", 6, mtime=0)


def unpacked(data: bytes) -> list[Part]:
    """The parts that an index tells.

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
    return [of_card(part_key(number), card) for number, card in enumerate(cards)]


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
