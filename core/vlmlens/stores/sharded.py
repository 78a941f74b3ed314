"""Reading several stores as one: what the processes of a run wrote, and the run's own store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

from vlmlens.abc import options as base
from vlmlens.abc.storage import (
    Array,
    ChunkCheck,
    ColumnBlock,
    ColumnInfo,
    ColumnStore,
    Mode,
    Values,
)
from vlmlens.errors import (
    ColumnNotFound,
    FingerprintMismatch,
    StoreError,
    did_you_mean,
)
from vlmlens.stores.writing import joined_values


class ShardedStore(ColumnStore):
    """Several stores read as one.

    Args:
        stores: Stores open for reading.
        overlapping: Whether two of them can have the same column of a sample; the values of the
            first one are read then.
    """

    def __init__(self, stores: Sequence[ColumnStore], *, overlapping: bool = False) -> None:
        self._stores = list(stores)
        self._overlapping = overlapping
        self._kept: _Having | None = None

    @classmethod
    def open(cls, location: str, *, mode: Mode, options: base.Options) -> Self:
        """Raises `StoreError`: there is no single location; a run opens its parts."""
        del mode, options
        raise StoreError(
            f"{location!r} is not a store: the parts of a run have no common location.",
            subject=location,
            hint="Open the run's folder.",
        )

    def write(self, block: ColumnBlock) -> None:
        """Raises `StoreError`: each part is written by its own process."""
        del block
        raise StoreError(
            "The parts of a run cannot be written to as one store.",
            hint="Merge them with `vlmlens merge RUN`.",
        )

    def columns(self) -> list[ColumnInfo]:
        """See `ColumnStore.columns`; samples are counted over all parts."""
        found: dict[str, ColumnInfo] = {}
        for store in self._stores:
            for info in store.columns():
                before = found.get(info.name)
                samples = info.samples + (before.samples if before else 0)
                found[info.name] = replace(info, samples=samples)
        if self._overlapping:
            return [replace(info, samples=len(self.ids(name))) for name, info in found.items()]
        return list(found.values())

    def ids(self, column: str) -> list[str]:
        """See `ColumnStore.ids`: part after part."""
        found = [sample for store in self._look(column).stores for sample in store.ids(column)]
        return list(dict.fromkeys(found)) if self._overlapping else found

    def read(self, column: str, ids: Sequence[str] | None = None) -> Values:
        """See `ColumnStore.read`."""
        if ids is None:
            having = self._look(column)
            if not self._overlapping:
                return joined_values([store.read(column) for store in having.stores])
            ids = list(having.places)
        else:
            having = self._placing(column, ids)
        rows: list[list[str]] = [[] for _ in having.stores]
        for sample in ids:
            rows[having.places[sample]].append(sample)
        asked = [(store, some) for store, some in zip(having.stores, rows, strict=True) if some]
        if not asked:
            return having.stores[0].read(column, [])
        return _in_order(joined_values([s.read(column, some) for s, some in asked]), rows, ids)

    def read_range(self, column: str, start: int, stop: int) -> tuple[list[str], Values]:
        """See `ColumnStore.read_range`: part after part; only parts that have some are read."""
        if self._overlapping:
            return super().read_range(column, start, stop)
        start, stop = max(start, 0), max(stop, 0)
        having = self._kept
        if having is None or having.column != column or not 0 < start < stop <= having.samples:
            having = self._look(column)
        read = [
            store.read_range(column, some.start, some.stop)
            for store, some in having.between(start, stop)
        ]
        ids = [sample for some, _ in read for sample in some]
        return ids, joined_values([values for _, values in read])

    def iterate(self, column: str) -> Iterator[tuple[str, Array]]:
        """See `ColumnStore.iterate`."""
        seen: set[str] = set()
        for store in self._look(column).stores:
            for sample, rows in store.iterate(column):
                if not self._overlapping:
                    yield sample, rows
                elif sample not in seen:
                    seen.add(sample)
                    yield sample, rows

    def get_meta(self) -> dict[str, Any]:
        """See `ColumnStore.get_meta`: the first part's."""
        return self._stores[0].get_meta()

    def set_meta(self, meta: Mapping[str, Any]) -> None:
        """Raises `StoreError`: each part is written by its own process."""
        del meta
        raise StoreError("The parts of a run cannot be written to as one store.")

    def check_reads(self) -> None:
        """See `ColumnStore.check_reads`."""
        for store in self._stores:
            store.check_reads()

    def verify(self) -> Iterator[ChunkCheck]:
        """See `ColumnStore.verify`: part after part."""
        for store in self._stores:
            yield from store.verify()

    def close(self) -> None:
        """See `ColumnStore.close`."""
        for store in self._stores:
            store.close()

    def check_alike(self) -> None:
        """Raise an error if parts were made under different conditions.

        Raises:
            FingerprintMismatch: They were.
        """
        prints = [store.get_meta().get("fingerprint", {}) for store in self._stores]
        for number, found in enumerate(prints):
            differing = sorted(key for key in found if found[key] != prints[0].get(key))
            if differing:
                raise FingerprintMismatch(
                    f"Part {number} was made under other conditions than part 0: "
                    f"{', '.join(differing)}.",
                    subject=differing[0],
                    hint="Start over with --fresh, on machines of the same kind.",
                )

    def _placing(self, column: str, ids: Sequence[str]) -> _Having:
        """The parts of a column as they were known, if all of these samples are in them.

        Raises:
            ColumnNotFound: There is no such column.
            StoreError: A sample is in no part.
        """
        having = self._kept
        if having is None or having.column != column or _missing(having, ids) is not None:
            having = self._look(column)
        if (missing := _missing(having, ids)) is not None:
            raise StoreError(
                f"Sample {missing!r} has no value in column {column!r} of any part of the run.",
                subject=missing,
                hint="The run is not finished. Go on with --resume.",
            )
        return having

    def _look(self, column: str) -> _Having:
        """The parts that have a column now. They are kept, for the reads that follow."""
        found = [
            (store, info.samples)
            for store in self._stores
            for info in store.columns()
            if info.name == column
        ]
        if not found:
            names = [info.name for info in self.columns()]
            hint = did_you_mean(column, names) or f"Stored: {', '.join(names[:5]) or 'none'}."
            raise ColumnNotFound(f"The run has no column {column!r}.", subject=column, hint=hint)
        having = _Having(column, [store for store, _ in found], [count for _, count in found])
        self._kept = having
        return having


@dataclass(frozen=True)
class _Having:
    """The stores that have a column, as of one moment. Columns only grow, so it stays right.

    Args:
        column: The column.
        stores: Those that have it.
        counts: The number of samples in each of them.
    """

    column: str
    stores: Sequence[ColumnStore]
    counts: Sequence[int]

    @property
    def samples(self) -> int:
        """The number of samples in all of them."""
        return sum(self.counts)

    @cached_property
    def places(self) -> Mapping[str, int]:
        """The number of the first store that has each sample, in the stores' order."""
        found: dict[str, int] = {}
        for number, store in enumerate(self.stores):
            for sample in store.ids(self.column):
                found.setdefault(sample, number)
        return found

    def between(self, start: int, stop: int) -> list[tuple[ColumnStore, range]]:
        """The stores with the samples `start` to `stop`, and which of each; at least one store."""
        found, first = [], 0
        for store, count in zip(self.stores, self.counts, strict=True):
            some = range(max(start - first, 0), min(stop - first, count))
            found += [(store, some)] if some else []
            first += count
        return found or [(self.stores[0], range(0))]


def _missing(having: _Having, ids: Sequence[str]) -> str | None:
    return next((sample for sample in ids if sample not in having.places), None)


def _in_order(values: Values, rows: Sequence[Sequence[str]], ids: Sequence[str]) -> Values:
    """Values that are in the order of `rows`, store after store, in the order of `ids`."""
    given = [sample for some in rows for sample in some]
    if given == list(ids):
        return values
    order = {sample: number for number, sample in enumerate(given)}
    return values.take([order[sample] for sample in ids])
