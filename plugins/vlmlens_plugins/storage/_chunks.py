"""Cutting a block into chunks of bounded size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from vlmlens.abc.storage import Array, ColumnBlock, Values
from vlmlens.errors import StoreError
from vlmlens.stores.writing import row_lengths

CHUNK_BYTES = 32 << 20
"""A value larger than this is cut between samples: reading one sample reads its whole chunk."""

VALUE_LIMIT = (1 << 32) - 1
"""LMDB keeps no larger values."""


def split_block(
    block: ColumnBlock, limit: int = CHUNK_BYTES, largest: int | None = None
) -> Iterator[tuple[tuple[str, ...], Mapping[str, Values]]]:
    """Consecutive parts (ids, columns) of a block, none with a value above `limit` bytes.

    A single sample above the limit is a part of its own.

    Args:
        block: What to cut.
        limit: In bytes of one column.
        largest: What a single sample may have in a column.

    Raises:
        StoreError: A single sample has more bytes than `largest`.
    """
    sizes = _sample_sizes(block)
    if largest is not None and sizes.max() > largest:
        sample = block.ids[int(sizes.max(axis=0).argmax())]
        raise StoreError(
            f"Sample {sample!r} has {sizes.max()} bytes in one column; LMDB keeps 4 GiB.",
            subject=sample,
            hint="Select or pool fewer token positions.",
        )
    starts = {name: _row_starts(values) for name, values in block.columns.items()}
    for first, last in _cuts(sizes, limit):
        yield (
            block.ids[first:last],
            {
                name: Values(
                    values.array[starts[name][first] : starts[name][last]],
                    values.dtype,
                    None if values.lengths is None else values.lengths[first:last],
                )
                for name, values in block.columns.items()
            },
        )


def _cuts(sizes: Array, limit: int) -> Iterator[tuple[int, int]]:
    if sizes.sum(axis=1).max(initial=0) <= limit:
        yield 0, sizes.shape[1]
        return
    first, used = 0, np.zeros(len(sizes), dtype=np.int64)
    for i in range(sizes.shape[1]):
        used = used + sizes[:, i]
        if i > first and used.max() > limit:
            yield first, i
            first, used = i, sizes[:, i]
    yield first, sizes.shape[1]


def _sample_sizes(block: ColumnBlock) -> Array:
    """Bytes, `[columns, samples]`."""
    return np.array(
        [
            np.multiply(row_lengths(values), values.width * values.array.itemsize, dtype=np.int64)
            for values in block.columns.values()
        ]
    )


def _row_starts(values: Values) -> Array:
    return np.concatenate([[0], np.cumsum(row_lengths(values), dtype=np.int64)])
