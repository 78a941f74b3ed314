"""A column in blocks, however large it is: what analyses read instead of the whole column."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from vlmlens.abc import ColumnStore
from vlmlens.abc.storage import BLOCK_BYTES, BlockSize, ColumnInfo, Values
from vlmlens.stores.writing import find_column, missing_sample

AT_ONCE = BLOCK_BYTES
"""Bytes of a block's values as float32."""

_FEW = 4
"""A column of more than so many times the samples is not read through to find them."""


@dataclass(frozen=True, slots=True)
class Block:
    """Rows of some samples.

    Args:
        places: int64 `[k]`, the samples' numbers in the order that was asked for.
        values: Their rows, one after the other.
    """

    places: npt.NDArray[np.int64]
    values: Values


@dataclass(frozen=True)
class ColumnBlocks:
    """One column's rows of some samples, in blocks. Iterating again reads it again.

    Blocks come in the written order, which a store reads fastest, so not in the order of `ids`;
    `Block.places` says where each sample belongs. Samples that are not asked for are left out.
    Where few of the column's samples are asked for, only they are read, in the order of `ids`.

    Args:
        store: The store.
        column: `SITE/SELECTOR`.
        ids: The samples.
        at_once: Bytes of a block, as float32. A sample whose rows are larger is a block alone.
    """

    store: ColumnStore
    column: str
    ids: Sequence[str]
    at_once: int = AT_ONCE

    @cached_property
    def info(self) -> ColumnInfo:
        """What the store knows about the column.

        Raises:
            ColumnNotFound: It has no such column.
        """
        return find_column(self.column, {info.name: info for info in self.store.columns()})

    @cached_property
    def places(self) -> Mapping[str, int]:
        """The number of each sample."""
        return {name: number for number, name in enumerate(self.ids)}

    def __iter__(self) -> Iterator[Block]:
        """Yield the blocks.

        Raises:
            ColumnNotFound: There is no such column.
            StoreError: A sample has no value in it.
        """
        few = _FEW * len(self.ids) < self.info.samples
        yield from self._chosen() if few else self._written()

    def _chosen(self) -> Iterator[Block]:
        """Blocks of samples that are looked up by their ids."""
        start, fitting = 0, BlockSize(self.at_once)
        while start < len(self.ids):
            some = self.ids[start : start + fitting.samples]
            values = self.store.read(self.column, some)
            fitting.saw(values.most_rows, values.width)
            yield Block(np.arange(start, start + len(some)), values)
            start += len(some)

    def _written(self) -> Iterator[Block]:
        """Blocks of the whole column, without the samples that are not asked for."""
        seen = np.zeros(len(self.ids), bool)
        for names, values in self.store.blocks(self.column, size=self.at_once):
            places = np.array([self.places.get(name, -1) for name in names], np.int64)
            wanted = np.flatnonzero(places >= 0)
            if len(wanted):
                seen[places[wanted]] = True
                whole = len(wanted) == len(names)
                yield Block(places[wanted], values if whole else values.take(wanted.tolist()))
        if not seen.all():
            raise missing_sample(self.column, self.ids[int(np.flatnonzero(~seen)[0])])
