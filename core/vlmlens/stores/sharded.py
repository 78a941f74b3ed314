"""Reading several stores as one: what the processes of a run wrote, and the run's own store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
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
        found = [sample for store in self._having(column) for sample in store.ids(column)]
        return list(dict.fromkeys(found)) if self._overlapping else found

    def read(self, column: str, ids: Sequence[str] | None = None) -> Values:
        """See `ColumnStore.read`."""
        stores = self._having(column)
        if ids is None and not self._overlapping:
            return joined_values([store.read(column) for store in stores])
        places: dict[str, int] = {}
        for number, store in enumerate(stores):
            for sample in store.ids(column):
                places.setdefault(sample, number)
        ids = list(places) if ids is None else ids
        missing = next((sample for sample in ids if sample not in places), None)
        if missing is not None:
            raise StoreError(
                f"Sample {missing!r} has no value in column {column!r} of any part of the run.",
                subject=missing,
                hint="The run is not finished. Go on with --resume.",
            )
        rows = [[s for s in ids if places[s] == i] for i in range(len(stores))]
        parts = [store.read(column, some) for store, some in zip(stores, rows, strict=True) if some]
        if not parts:
            return stores[0].read(column, [])
        order = {sample: i for i, sample in enumerate(s for some in rows for s in some)}
        return joined_values(parts).take([order[sample] for sample in ids])

    def read_range(self, column: str, start: int, stop: int) -> tuple[list[str], Values]:
        """See `ColumnStore.read_range`: part after part."""
        if self._overlapping:
            ids = self.ids(column)[max(start, 0) : max(stop, 0)]
            return ids, self.read(column, ids)
        ids = []
        parts: list[Values] = []
        for store in self._having(column):
            samples = next(info.samples for info in store.columns() if info.name == column)
            some, values = store.read_range(column, max(start, 0), max(min(stop, samples), 0))
            ids += some
            parts += [values] if some or not parts else []
            start, stop = start - samples, stop - samples
        return ids, joined_values(parts)

    def iterate(self, column: str) -> Iterator[tuple[str, Array]]:
        """See `ColumnStore.iterate`."""
        seen: set[str] = set()
        for store in self._having(column):
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

    def _having(self, column: str) -> list[ColumnStore]:
        having = [s for s in self._stores if column in {info.name for info in s.columns()}]
        if not having:
            names = [info.name for info in self.columns()]
            hint = did_you_mean(column, names) or f"Stored: {', '.join(names[:5]) or 'none'}."
            raise ColumnNotFound(f"The run has no column {column!r}.", subject=column, hint=hint)
        return having
