"""Small blocks put together before they are stored: stores like a few hundred rows at once."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from vlmlens.abc.storage import ColumnBlock, ColumnStore, Values
from vlmlens.stores.writing import joined_values

_ROWS = 256
_BYTES = 32 * 2**20
_SECONDS = 2.0


class BlockWriter:
    """Collects blocks and writes them as larger ones, at the latest after two seconds.

    Args:
        store: Open for writing.
    """

    def __init__(self, store: ColumnStore) -> None:
        self._store = store
        self._blocks: list[ColumnBlock] = []
        self._rows = self._bytes = 0
        self._written = time.monotonic()

    def add(self, block: ColumnBlock) -> None:
        """Take a block; write what has come together if it is enough, or has waited enough."""
        if self._blocks and not _alike(self._blocks[0].columns, block.columns):
            self.flush()
        self._blocks.append(block)
        self._rows += len(block.ids)
        self._bytes += sum(values.array.nbytes for values in block.columns.values())
        late = time.monotonic() - self._written >= _SECONDS
        if late or self._rows >= _ROWS or self._bytes >= _BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what has come together, in one transaction."""
        blocks, self._blocks = self._blocks, []
        self._rows = self._bytes = 0
        if blocks:
            self._store.write(joined(blocks))
        self._written = time.monotonic()


def joined(blocks: Sequence[ColumnBlock]) -> ColumnBlock:
    """Blocks of the same columns as one, in order."""
    if len(blocks) == 1:
        return blocks[0]
    ids = tuple(sample for block in blocks for sample in block.ids)
    columns = {
        name: joined_values([block.columns[name] for block in blocks]) for name in blocks[0].columns
    }
    return ColumnBlock(ids, columns)


def _alike(one: Mapping[str, Values], other: Mapping[str, Values]) -> bool:
    """Whether values can stand in the same columns."""
    return one.keys() == other.keys() and all(
        (mine.dtype, mine.width, mine.ragged)
        == (other[name].dtype, other[name].width, other[name].ragged)
        for name, mine in one.items()
    )
