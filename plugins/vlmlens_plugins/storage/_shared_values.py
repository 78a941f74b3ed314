"""Samples of a chunk that have the same values: stored once, and referred to.

Questions on one image have the image's rows in common, bit for bit where they were computed once.
"""

from __future__ import annotations

import numpy as np

from vlmlens.abc.storage import Array, Values
from vlmlens.stores.writing import row_lengths

_HEAD = 16
_ODD = np.uint64(0x9E3779B97F4A7C15)


def entries_of(values: Values) -> tuple[int, ...] | None:
    """Per sample, the number of its entry: samples with equal values have the same one.

    Entries are numbered by first appearance. None where no two samples are equal; that is told
    from a few bytes of each, so that it costs next to nothing.
    """
    lengths = np.asarray(row_lengths(values), np.int64)
    if len(lengths) < 2 or not values.array.size:
        return None
    raw = np.ascontiguousarray(values.array).view(np.uint8).reshape(len(values.array), -1)
    starts = np.cumsum(lengths) - lengths
    heads = _heads(raw, starts if values.ragged else None, lengths).tolist()
    if len(set(heads)) == len(heads):
        return None
    known: dict[tuple[int, int], tuple[int, int]] = {}
    order: list[int] = []
    count = 0
    for start, length, head in zip(starts.tolist(), lengths.tolist(), heads, strict=True):
        entry, first = known.get((head, length), (-1, 0))
        if entry < 0 or not np.array_equal(
            raw[first : first + length], raw[start : start + length]
        ):
            entry, count = count, count + 1
            known[head, length] = entry, start
        order.append(entry)
    return None if count == len(order) else tuple(order)


def firsts(order: tuple[int, ...]) -> list[int]:
    """The first sample of each entry."""
    found: dict[int, int] = {}
    for sample, entry in enumerate(order):
        found.setdefault(entry, sample)
    return list(found.values())


def _heads(raw: Array, starts: Array | None, lengths: Array) -> Array:
    """A number made of the first and the middle bytes of each sample's first row.

    Args:
        raw: uint8 `[rows, bytes]`.
        starts: Where each sample's rows begin; None: each has one row.
        lengths: Rows of each sample.
    """
    half = raw.shape[1] // 2
    parts = np.zeros((len(lengths), _HEAD), np.uint8)
    for place, first in ((0, 0), (_HEAD // 2, half)):
        some = raw[:, first : first + _HEAD // 2]
        if starts is not None:
            some = some[np.minimum(starts, len(raw) - 1)]
        parts[:, place : place + some.shape[1]] = some
    words = parts.view(np.uint64)
    heads = words[:, 0] * _ODD + words[:, 1]
    return heads if starts is None else np.where(lengths > 0, heads, np.uint64(0))
