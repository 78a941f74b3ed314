"""Leases with parts: an attempt is one part, and what many leases wrote is read as one store."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self

from vlmlens.abc.options import Options
from vlmlens.abc.storage import Array, ChunkCheck, ColumnBlock, Mode
from vlmlens.errors import FingerprintMismatch, StoreError
from vlmlens.stores.writing import check_block, read_only, to_json
from vlmlens_plugins.storage._chunk_format import Chunk, Column, Index
from vlmlens_plugins.storage._places import Place, explaining
from vlmlens_plugins.storage._safetensors_catalog import Catalog
from vlmlens_plugins.storage._safetensors_draft import Draft, Spool
from vlmlens_plugins.storage._safetensors_part import Part, broken, of_card, part_key
from vlmlens_plugins.storage._safetensors_reading import PartStore, read_parts


class AttemptStore(PartStore):
    """What one attempt at a lease writes: it is uploaded as one part when the store is closed.

    Until then, rows are in memory, and on the disk (TMPDIR) beyond 64 MiB. Nothing is uploaded if
    the `with` block ends with an error, or the process is killed.

    Args:
        place: Where it goes; nobody else writes there.
    """

    def __init__(self, place: Place) -> None:
        super().__init__(place, "a")
        self._spool = Spool()
        self._draft = Draft(self._spool.keep)
        self._meta: dict[str, Any] = {}
        self._part: Part | None = None

    @classmethod
    def open(cls, location: str, *, mode: Mode, options: Options) -> Self:
        """Raises `StoreError`: it is made by `SafetensorsStore.open_part`."""
        del mode, options
        raise StoreError(f"{location!r} is opened as a part of a run.", subject=location)

    @property
    def _index(self) -> Index:
        return self._draft.index

    def _arrays(self, column: Column, chunks: Iterable[Chunk]) -> Iterator[Array]:
        return (self._draft.load(column, chunk) for chunk in chunks)

    def write(self, block: ColumnBlock) -> None:
        """See `ColumnStore.write`; it is durable once the store is closed."""
        with self._entered():
            check_block(block, self._index.forms(), self._index.has)
            if block.ids and block.columns:
                self._draft.add(block)

    def get_meta(self) -> dict[str, Any]:
        """See `ColumnStore.get_meta`."""
        with self._entered():
            return dict(self._meta)

    def set_meta(self, meta: Mapping[str, Any]) -> None:
        """See `ColumnStore.set_meta`; it is stored with the rows."""
        with self._entered():
            self._meta = json.loads(to_json(meta))

    def card(self) -> dict[str, Any] | None:
        """See `ColumnStore.card`."""
        return None if self._part is None else self._part.card()

    def close(self) -> None:
        """See `ColumnStore.close`; uploads the rows, so that they are there when this returns.

        Raises:
            StoreError: They cannot be uploaded; nothing is stored.
        """
        if not self._open:
            return
        try:
            with self._entered():
                part = self._draft.part(part_key(0), 0, self._meta)
                self._place.put_pieces(part.key, part.size, lambda: self._draft.pieces(part))
                self._part = part
        finally:
            self._drop()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._drop()

    def _drop(self) -> None:
        self._open = False
        self._spool.close()


class LeaseStore(PartStore):
    """What many leases wrote, read as one store.

    Args:
        place: What their places have in common.
        parts: By lease, in order, what its attempt said of itself; None: its header is read.

    Raises:
        StoreCorrupt: A part is missing or damaged, or two have the same sample in a column.
        FingerprintMismatch: Parts were made under different conditions.
    """

    def __init__(self, place: Place, parts: Mapping[str, Mapping[str, Any] | None]) -> None:
        super().__init__(place, "r")
        self._catalog = Catalog(place)
        self._meta: dict[str, Any] = {}
        with explaining(place):
            self._parts = _known(place, parts)
        for number, part in enumerate(self._parts):
            self._catalog.add(part)
            self._take_meta(number, part)

    @classmethod
    def open(cls, location: str, *, mode: Mode, options: Options) -> Self:
        """Raises `StoreError`: it is made by `SafetensorsStore.open_parts`."""
        del mode, options
        raise StoreError(f"{location!r} is opened as the parts of a run.", subject=location)

    def _take_meta(self, number: int, part: Part) -> None:
        meta = part.meta
        if number == 0:
            self._meta = meta
        elif meta.get("fingerprint") != self._meta.get("fingerprint"):
            raise FingerprintMismatch(
                f"The part {part.key} was made under other conditions than the first one.",
                subject=part.key,
                hint="Start over with --fresh, on machines of the same kind.",
            )

    @property
    def _index(self) -> Index:
        return self._catalog.index

    def _arrays(self, column: Column, chunks: Iterable[Chunk]) -> Iterator[Array]:
        return self._catalog.arrays(column, chunks)

    def write(self, block: ColumnBlock) -> None:
        """Raises `StoreError`: each part is written by its own process."""
        del block
        raise read_only()

    def get_meta(self) -> dict[str, Any]:
        """See `ColumnStore.get_meta`: the first part's."""
        with self._entered():
            return dict(self._meta)

    def set_meta(self, meta: Mapping[str, Any]) -> None:
        """Raises `StoreError`: each part is written by its own process."""
        del meta
        raise read_only()

    def verify(self) -> Iterator[ChunkCheck]:
        """See `ColumnStore.verify`; compares headers too."""
        yield from super().verify()
        yield from changed_headers(self._place, self._parts)

    def close(self) -> None:
        """See `ColumnStore.close`."""
        self._open = False


def changed_headers(place: Place, parts: Iterable[Part]) -> Iterator[ChunkCheck]:
    """Parts whose headers are not as they are known to be."""
    for part in parts:
        problem = ""
        try:
            with explaining(place):
                found = read_parts(place, [part.key])[0]
            if found is None:
                problem = f"The part {part.key} is missing."
            elif (found.start, found.record) != (part.start, part.record):
                problem = f"The header of the part {part.key} is not as it was written."
        except StoreError as error:
            problem = error.message
        if problem:
            yield ChunkCheck(part.key, "", 0, 0, problem)


def _known(place: Place, parts: Mapping[str, Mapping[str, Any] | None]) -> list[Part]:
    """The parts, with one request for each that nothing is known of."""
    keys = {name: f"{name}/{part_key(0)}" for name in parts}
    unknown = [name for name, card in parts.items() if card is None]
    read = dict(zip(unknown, read_parts(place, [keys[name] for name in unknown]), strict=True))
    found: list[Part] = []
    for name, card in parts.items():
        part = read[name] if card is None else of_card(keys[name], card)
        if part is None:
            raise broken(keys[name], "it is missing")
        found.append(part)
    return found
