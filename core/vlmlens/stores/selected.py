"""Some columns and samples of a store, read as a store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any, Self

from vlmlens.abc import options as base
from vlmlens.abc.storage import Array, ColumnBlock, ColumnInfo, ColumnStore, Mode, Values
from vlmlens.errors import StoreError, did_you_mean
from vlmlens.samples import Sample
from vlmlens.stores.writing import find_column, read_only

_AT_ONCE = 16


class SelectedStore(ColumnStore):
    """A view of a store. It is closed with the store.

    Args:
        store: The store.
        sites: Columns, sites, or patterns of them with `*` and `?`; empty: all.
        samples: Ids, or patterns of them; empty: all.

    Raises:
        StoreError: Something given matches nothing.
    """

    def __init__(
        self, store: ColumnStore, sites: Sequence[str] = (), samples: Sequence[str] = ()
    ) -> None:
        self._store = store
        infos = store.columns()
        names = [info.name for info in infos]
        chosen = set(_matching(sites, names, _column_matches, "column")) if sites else set(names)
        self._infos = {info.name: info for info in infos if info.name in chosen}
        self._samples: set[str] | None = None
        self._ids: dict[str, list[str]] = {}
        if samples:
            ids = list(dict.fromkeys(sample for name in self._infos for sample in store.ids(name)))
            self._samples = set(_matching(samples, ids, _matches, "sample"))

    @classmethod
    def of_ids(cls, store: ColumnStore, ids: Iterable[str]) -> Self:
        """A view of the samples with exactly these ids, in all columns."""
        made = cls(store)
        made._samples = set(ids)
        return made

    @classmethod
    def open(cls, location: str, *, mode: Mode, options: base.Options) -> Self:
        """Raises `StoreError`: a view has no location of its own."""
        del mode, options
        raise StoreError(f"{location!r} is not a store.", subject=location)

    def write(self, block: ColumnBlock) -> None:
        """Raises `StoreError`: a view is for reading."""
        del block
        raise read_only()

    def columns(self) -> list[ColumnInfo]:
        """See `ColumnStore.columns`; only columns with some of the samples."""
        if self._samples is None:
            return list(self._infos.values())
        counted = [replace(info, samples=len(self.ids(info.name))) for info in self._infos.values()]
        return [info for info in counted if info.samples]

    def ids(self, column: str) -> list[str]:
        """See `ColumnStore.ids`."""
        find_column(column, self._infos)
        chosen = self._samples
        if chosen is None:
            return self._store.ids(column)
        if column not in self._ids:
            self._ids[column] = [name for name in self._store.ids(column) if name in chosen]
        return list(self._ids[column])

    def read(self, column: str, ids: Sequence[str] | None = None) -> Values:
        """See `ColumnStore.read`."""
        return self._store.read(column, self.ids(column) if ids is None else ids)

    def read_range(self, column: str, start: int, stop: int) -> tuple[list[str], Values]:
        """See `ColumnStore.read_range`; values of other samples are not read."""
        find_column(column, self._infos)
        if self._samples is None:
            return self._store.read_range(column, start, stop)
        return super().read_range(column, start, stop)

    def iterate(self, column: str) -> Iterator[tuple[str, Array]]:
        """See `ColumnStore.iterate`; values of other samples are not read."""
        find_column(column, self._infos)
        if self._samples is None:
            yield from self._store.iterate(column)
            return
        for ids, values in self.blocks(column, _AT_ONCE):
            yield from zip(ids, values.per_sample(), strict=True)

    def get_meta(self) -> dict[str, Any]:
        """See `ColumnStore.get_meta`."""
        return self._store.get_meta()

    def set_meta(self, meta: Mapping[str, Any]) -> None:
        """Raises `StoreError`: a view is for reading."""
        del meta
        raise read_only()

    def samples(self) -> list[Sample]:
        """See `ColumnStore.samples`."""
        return self.keep(self._store.samples())

    def keep(self, samples: Sequence[Sample]) -> list[Sample]:
        """Those of some samples that are in the view."""
        chosen = self._samples
        return [sample for sample in samples if chosen is None or sample.id in chosen]

    def check_reads(self) -> None:
        """See `ColumnStore.check_reads`."""
        self._store.check_reads()

    def close(self) -> None:
        """See `ColumnStore.close`."""
        self._store.close()


def _matches(name: str, pattern: str) -> bool:
    return name == pattern or fnmatchcase(name, pattern)


def _column_matches(name: str, pattern: str) -> bool:
    """Whether the pattern is of the column `SITE/SELECTOR`, or of its site."""
    return _matches(name, pattern) or _matches(name.partition("/")[0], pattern)


def _matching(patterns: Sequence[str], names: Sequence[str], matches: Any, what: str) -> list[str]:
    found: list[str] = []
    for pattern in patterns:
        some = [name for name in names if matches(name, pattern)]
        if not some:
            shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
            raise StoreError(
                f"No stored {what} matches {pattern!r}.",
                subject=pattern,
                hint=did_you_mean(pattern, names) or f"Stored: {shown or 'none'}.",
            )
        found += some
    return found
