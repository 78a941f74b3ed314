"""Stores that each break one promise, for testing that the conformance kit notices."""

from __future__ import annotations

import numpy as np

from vlmlens.abc import ColumnBlock, Values
from vlmlens_plugins.storage.lmdb import LmdbStore
from vlmlens_plugins.storage.memory import MemoryStore


class DropsLastRow(MemoryStore):
    def read(self, column, ids=None):
        found = super().read(column, ids)
        return Values(found.array[:-1], found.dtype, found.lengths and found.lengths[:-1])


class StoredOrder(MemoryStore):
    def read(self, column, ids=None):
        asked = None if ids is None else [name for name in self.ids(column) if name in ids]
        return super().read(column, asked)


class LosesPayloads(MemoryStore):
    def read(self, column, ids=None):
        found = super().read(column, ids)
        if found.array.dtype.kind != "f":
            return found
        array = np.nan_to_num(found.array, nan=np.nan, posinf=np.inf, neginf=-np.inf)
        return Values(array, found.dtype, found.lengths)


class HalfBlocks(MemoryStore):
    def write(self, block):
        for name, given in block.columns.items():
            super().write(ColumnBlock(block.ids, {name: given}))


class Overwrites(MemoryStore):
    def write(self, block):
        data = self._writable()
        for name in block.columns.keys() & data.columns.keys():
            for sample in block.ids:
                data.columns[name].rows.pop(sample, None)
        super().write(block)


class WritesLater(LmdbStore):
    """Acknowledges a block before it is stored."""

    def write(self, block):
        later, self.later = getattr(self, "later", None), block
        if later is not None:
            super().write(later)

    def close(self):
        if self._share is not None and getattr(self, "later", None) is not None:
            super().write(self.later)
        super().close()


class TearsBlocks(LmdbStore):
    """Stores a block in several transactions."""

    def write(self, block):
        for name, given in block.columns.items():
            super().write(ColumnBlock(block.ids, {name: given}))


class SharesMemory(MemoryStore):
    def write(self, block):
        super().write(block)
        data = self._writable()
        for name, given in block.columns.items():
            if given.lengths is None:
                data.columns[name].rows.update(
                    {sample: given.array[i : i + 1] for i, sample in enumerate(block.ids)}
                )


class ForgetsGrowth(MemoryStore):
    """Reads ranges by a list of ids that is never made again."""

    def read_range(self, column, start, stop):
        known = self.__dict__.setdefault("known", {})
        ids = known.setdefault(column, self.ids(column))[start:stop]
        return ids, self.read(column, ids)


class OverlapsBlocks(MemoryStore):
    """Begins a range one sample early, unless it begins at the first."""

    def read_range(self, column, start, stop):
        return super().read_range(column, max(start - 1, 0), stop)
