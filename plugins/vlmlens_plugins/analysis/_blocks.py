"""A column in blocks, however large it is: what analyses read instead of the whole column."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from vlmlens.abc import ColumnStore
from vlmlens.abc.storage import BLOCK_BYTES, Array, ColumnInfo, Values
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
    at_once: int = field(default_factory=lambda: AT_ONCE)

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

    def check(self) -> None:
        """Raise an error if a sample lacks a value, before anything is read.

        Raises:
            ColumnNotFound: There is no such column.
            StoreError: A sample has no value in it.
        """
        there = set(self.store.ids(self.column))
        missing = next((name for name in self.ids if name not in there), None)
        if missing is not None:
            raise missing_sample(self.column, missing)

    def __iter__(self) -> Iterator[Block]:
        """Yield the blocks.

        Raises:
            ColumnNotFound: There is no such column.
            StoreError: A sample has no value in it.
        """
        self.check()
        return self._complete(self._blocks())

    def _complete(self, blocks: Iterator[Block]) -> Iterator[Block]:
        """Blocks as they come; an error at the end if a sample was in none."""
        seen = np.zeros(len(self.ids), bool)
        for block in blocks:
            seen[block.places] = True
            yield block
        if not seen.all():
            raise missing_sample(self.column, self.ids[int(np.flatnonzero(~seen)[0])])

    def _blocks(self) -> Iterator[Block]:
        few = _FEW * len(self.ids) < self.info.samples
        if self.info.ragged:
            return self._of_samples(self._by_id() if few else self.store.iterate(self.column))
        return self._chosen() if few else self._written()

    def _chosen(self) -> Iterator[Block]:
        """Blocks of samples that are looked up by their ids."""
        for start in range(0, len(self.ids), self._rows_at_once):
            some = self.ids[start : start + self._rows_at_once]
            yield Block(np.arange(start, start + len(some)), self.store.read(self.column, some))

    def _written(self) -> Iterator[Block]:
        """Blocks of the whole column, without the samples that are not asked for."""
        for names, values in self.store.blocks(self.column, self._rows_at_once):
            places = np.array([self.places.get(name, -1) for name in names], np.int64)
            wanted = np.flatnonzero(places >= 0)
            if len(wanted):
                whole = len(wanted) == len(names)
                yield Block(places[wanted], values if whole else values.take(wanted.tolist()))

    @property
    def _rows_at_once(self) -> int:
        return max(1, self.at_once // max(1, self.info.width * 4))

    def _by_id(self) -> Iterator[tuple[str, Array]]:
        for name in self.ids:
            yield name, self.store.read(self.column, [name]).numpy()

    def _of_samples(self, each: Iterator[tuple[str, Array]]) -> Iterator[Block]:
        """Blocks of a ragged column, sample by sample: how long the next one is, nobody knows."""
        places: list[int] = []
        parts: list[Array] = []
        size = 0
        for name, rows in each:
            if name not in self.places:
                continue
            if parts and size + 4 * rows.size > self.at_once:
                yield self._block(places, parts)
                places, parts, size = [], [], 0
            places.append(self.places[name])
            # A view would keep all that was read with it.
            parts.append(rows.copy())
            size += 4 * rows.size
        if parts:
            yield self._block(places, parts)

    def _block(self, places: Sequence[int], parts: Sequence[Array]) -> Block:
        """A block of whole samples; bfloat16 has become float32."""
        dtype = "float32" if self.info.dtype == "bfloat16" else self.info.dtype
        values = Values(np.concatenate(parts), dtype, tuple(map(len, parts)))
        return Block(np.array(places, np.int64), values)
