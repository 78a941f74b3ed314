"""From a column's values to the bytes that are stored, and what a chunk's header says of them."""

from __future__ import annotations

import zlib

import numpy as np

from vlmlens.abc.storage import Values
from vlmlens_plugins.storage._chunk_format import Piece
from vlmlens_plugins.storage._shared_values import entries_of, firsts


def prepared(values: Values) -> tuple[memoryview | bytes, Piece]:
    """What is stored of a column's values, each entry once."""
    order = entries_of(values)
    stored = values if order is None else values.take(firsts(order))
    array = np.ascontiguousarray(stored.array)
    raw = array.reshape(-1).view(np.uint8).data if array.size else b""
    return raw, Piece(zlib.crc32(raw), values.lengths, order)
