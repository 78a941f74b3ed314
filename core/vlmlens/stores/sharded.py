"""Reading several stores as one: the shards of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

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

if TYPE_CHECKING:
    pass


class ShardedStore(ColumnStore):
    """Several stores read as one.

    Args:
        stores: Stores open for reading. No sample has the same column in two of them.
    """

    def __init__(self, stores: Sequence[ColumnStore]) -> None:
        self._stores = list(stores)

    @classmethod
    def open(cls, location: str, *, mode: Mode, options: base.Options) -> Self:
        """Raises `StoreError`: there is no single location; a run opens its shards."""
        del mode, options
        raise StoreError(
            f"{location!r} is not a store: shards have no common location.",
            subject=location,
            hint="Open the run's folder.",
        )

    def write(self, block: ColumnBlock) -> None:
        """Raises `StoreError`: each shard is written by its own process."""
        del block
        raise StoreError(
            "Shards cannot be written to as one store.",
            hint="Merge them with `vlmlens merge RUN`, or extract one of them with --shard.",
        )

    def columns(self) -> list[ColumnInfo]:
        """See `ColumnStore.columns`; samples are counted over all shards."""
        found: dict[str, ColumnInfo] = {}
        for store in self._stores:
            for info in store.columns():
                before = found.get(info.name)
                samples = info.samples + (before.samples if before else 0)
                found[info.name] = ColumnInfo(
                    info.name, info.dtype, info.width, info.ragged, samples
                )
        return list(found.values())

    def ids(self, column: str) -> list[str]:
        """See `ColumnStore.ids`: shard after shard."""
        return [sample for store in self._having(column) for sample in store.ids(column)]

    def read(self, column: str, ids: Sequence[str] | None = None) -> Values:
        """See `ColumnStore.read`."""
        stores = self._having(column)
        if ids is None:
            return joined_values([store.read(column) for store in stores])
        places = {sample: i for i, store in enumerate(stores) for sample in store.ids(column)}
        missing = next((sample for sample in ids if sample not in places), None)
        if missing is not None:
            raise StoreError(
                f"Sample {missing!r} has no value in column {column!r} of any shard.",
                subject=missing,
                hint="Some shard is not finished. Run it again with --resume.",
            )
        rows = [[s for s in ids if places[s] == i] for i in range(len(stores))]
        parts = [store.read(column, some) for store, some in zip(stores, rows, strict=True) if some]
        if not parts:
            return stores[0].read(column, [])
        order = {sample: i for i, sample in enumerate(s for some in rows for s in some)}
        return joined_values(parts).take([order[sample] for sample in ids])

    def read_range(self, column: str, start: int, stop: int) -> tuple[list[str], Values]:
        """See `ColumnStore.read_range`: shard after shard."""
        ids: list[str] = []
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
        for store in self._having(column):
            yield from store.iterate(column)

    def get_meta(self) -> dict[str, Any]:
        """See `ColumnStore.get_meta`: the first shard's."""
        return self._stores[0].get_meta()

    def set_meta(self, meta: Mapping[str, Any]) -> None:
        """Raises `StoreError`: each shard is written by its own process."""
        del meta
        raise StoreError("Shards cannot be written to as one store.")

    def check_reads(self) -> None:
        """See `ColumnStore.check_reads`."""
        for store in self._stores:
            store.check_reads()

    def verify(self) -> Iterator[ChunkCheck]:
        """See `ColumnStore.verify`: shard after shard."""
        for store in self._stores:
            yield from store.verify()

    def close(self) -> None:
        """See `ColumnStore.close`."""
        for store in self._stores:
            store.close()

    def check_alike(self) -> None:
        """Raise an error if shards were made under different conditions.

        Raises:
            FingerprintMismatch: They were.
        """
        prints = [store.get_meta().get("fingerprint", {}) for store in self._stores]
        for number, found in enumerate(prints):
            differing = sorted(key for key in found if found[key] != prints[0].get(key))
            if differing:
                raise FingerprintMismatch(
                    f"Shard {number} was made under other conditions than shard 0: "
                    f"{', '.join(differing)}.",
                    subject=differing[0],
                    hint="Extract that shard again with --fresh, on the same kind of machine.",
                )

    def _having(self, column: str) -> list[ColumnStore]:
        having = [s for s in self._stores if column in {info.name for info in s.columns()}]
        if not having:
            names = [info.name for info in self.columns()]
            hint = did_you_mean(column, names) or f"Stored: {', '.join(names[:5]) or 'none'}."
            raise ColumnNotFound(
                f"The shards have no column {column!r}.", subject=column, hint=hint
            )
        return having
