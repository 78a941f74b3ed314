"""SafetensorsStore: columns in immutable safetensors files and one index, for object stores.

::

    index.json.gz               the headers of all parts, or of those up to some time
    parts/NUMBER.safetensors    what one write added, never changed
    meta.json                   the run's own record
    writer.lock                 who writes

A part counts once it is there. Its number is the next one, and it is made only if there is none
with that number, so a second writer cannot replace it. Parts that the index does not tell are found
by asking for the next numbers; each names the part before it, so what is left of a removed store is
never taken for a part of the next one there. docs/storage-format.md describes the format.
"""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self

from pydantic import Field

from vlmlens.abc.options import Options as PluginOptions
from vlmlens.abc.storage import Array, ChunkCheck, ColumnBlock, ColumnStore, Mode
from vlmlens.errors import StoreError, StoreLocked
from vlmlens.stores.writing import check_block
from vlmlens_plugins.storage._chunk_format import Chunk, Column, Index
from vlmlens_plugins.storage._place_names import place_of
from vlmlens_plugins.storage._places import Place, explaining
from vlmlens_plugins.storage._remote_place import PATIENCE
from vlmlens_plugins.storage._safetensors_catalog import Catalog
from vlmlens_plugins.storage._safetensors_draft import Draft
from vlmlens_plugins.storage._safetensors_index import KEY, entry_of, packed, unpacked
from vlmlens_plugins.storage._safetensors_leases import AttemptStore, LeaseStore, changed_headers
from vlmlens_plugins.storage._safetensors_part import Part, broken, part_key
from vlmlens_plugins.storage._safetensors_reading import PartStore, read_parts
from vlmlens_plugins.storage._signed_records import checked, damaged, signed

_META = "meta.json"
_RENEWED_AFTER = 64
_MOST_AT_ONCE = 32


class SafetensorsOptions(PluginOptions):
    """Options of the safetensors store."""

    remote: dict[str, Any] = Field(
        default_factory=dict,
        description="For fsspec: endpoint, region, ... of an object store.",
    )
    take_over: bool = Field(
        False,
        description="Write to an object store although its lock names a writer: for one that was "
        "killed on another host.",
    )
    patience: float = Field(
        PATIENCE,
        ge=0,
        description="Seconds for which requests to an object store are repeated that fail for a "
        "passing reason (busy, slow, connection lost).",
    )


class SafetensorsStore(PartStore):
    """Columns as safetensors files. Made by `open`."""

    Options = SafetensorsOptions

    def __init__(self, place: Place, mode: Mode) -> None:
        super().__init__(place, mode)
        self._catalog = Catalog(place)
        self._parts: list[Part] = []
        self._entries: list[bytes] = []
        self._indexed = -1
        self._unsure = True
        self._followed = 0.0

    @classmethod
    def open(cls, location: str, *, mode: Mode, options: PluginOptions) -> Self:
        """Open a folder, `safetensors:///folder`, or `safetensors+PROTOCOL://...` of fsspec's.

        Raises:
            StoreLocked: Another store writes to it.
            StoreError: There is none (mode "r"), it is damaged, or a newer vlmlens wrote it.
        """
        place = _place(location, options)
        with explaining(place):
            if mode == "a":
                place.lock("parts")
            try:
                store = cls(place, mode)
                store._load(location)
            except BaseException:
                place.unlock()
                raise
        return store

    @classmethod
    def open_part(cls, location: str, *, options: PluginOptions) -> ColumnStore:
        """See `ColumnStore.open_part`: it is uploaded as one part when it is closed."""
        return AttemptStore(_place(location, options))

    @classmethod
    def open_parts(
        cls,
        location: str,
        parts: Mapping[str, Mapping[str, Any] | None],
        *,
        options: PluginOptions,
    ) -> ColumnStore:
        """See `ColumnStore.open_parts`: no request for a part with a card."""
        return LeaseStore(_place(location, options), parts)

    @classmethod
    def remove(cls, location: str, *, options: PluginOptions) -> None:
        """See `ColumnStore.remove`."""
        place = _place(location, options)
        with explaining(place):
            place.clear()

    @property
    def _index(self) -> Index:
        return self._catalog.index

    def _arrays(self, column: Column, chunks: Iterable[Chunk]) -> Iterator[Array]:
        return self._catalog.arrays(column, chunks)

    def write(self, block: ColumnBlock) -> None:
        """See `ColumnStore.write`; one object, in one request."""
        self._check_writable()
        with self._entered():
            self._follow()
            check_block(block, self._index.forms(), self._index.has)
            if block.ids and block.columns:
                self._put(block)
                if len(self._parts) - self._indexed >= max(_RENEWED_AFTER, self._indexed // 4):
                    self._renew(closed=False)

    def get_meta(self) -> dict[str, Any]:
        """See `ColumnStore.get_meta`."""
        with self._entered():
            data = self._place.get(_META)
            if data is None:
                return self._parts[0].meta if self._parts else {}
            meta = checked(data, _META)[0].get("meta")
            if not isinstance(meta, dict):
                raise damaged(_META)
            return meta

    def set_meta(self, meta: Mapping[str, Any]) -> None:
        """See `ColumnStore.set_meta`."""
        self._check_writable()
        data = signed({"meta": dict(meta)})[0]
        with self._entered():
            self._place.check_lock()
            self._place.put(_META, data)

    def verify(self) -> Iterator[ChunkCheck]:
        """See `ColumnStore.verify`; compares headers with the index too."""
        yield from super().verify()
        with self._entered():
            parts = list(self._parts)
            if problem := self._changed_meta():
                yield ChunkCheck(_META, "", 0, 0, problem)
        yield from changed_headers(self._place, parts)

    def close(self) -> None:
        """See `ColumnStore.close`."""
        if self._open and self._pid == os.getpid():
            try:
                if self._mode == "a":
                    with self._entered():
                        self._follow()
                        self._renew(closed=True)
            finally:
                self._open = False
                with explaining(self._place):
                    self._place.unlock()

    def _load(self, location: str) -> None:
        """Read the index, and the headers of parts that it does not tell."""
        data = self._place.get(KEY)
        for part in unpacked(data).parts if data is not None else ():
            self._add(part)
        self._indexed = len(self._parts) if data is not None else -1
        self._follow()
        if self._mode == "a":
            self._renew(closed=False)
        elif data is None and not self._parts:
            raise StoreError(
                f"No safetensors store at {self._place.name}.",
                subject=location,
                hint="Give its folder.",
            )

    def _add(self, part: Part) -> None:
        self._catalog.add(part)
        self._parts.append(part)
        if self._mode == "a":
            self._entries.append(entry_of(part))

    def _follow(self, *, now: bool = False) -> None:
        """Read the headers of parts that were written since; a writer knows its own."""
        recent = time.monotonic() - self._followed < self._place.delay
        if not self._unsure and (self._mode == "a" or (recent and not now)):
            return
        ahead = 1
        while ahead:
            keys = [part_key(len(self._parts) + i) for i in range(ahead)]
            found = read_parts(self._place, keys)
            there = found.index(None) if None in found else len(found)
            for part in found[:there]:
                self._add_next(part)
            ahead = min(2 * ahead, _MOST_AT_ONCE) if there == ahead else 0
        self._unsure, self._followed = False, time.monotonic()

    def _add_next(self, part: Part | None) -> None:
        number = len(self._parts)
        record = {} if part is None else part.record
        if part is None or record.get("number") != number:
            raise broken(part_key(number), "it has another number in its record")
        if record.get("after") != self._last_writer():
            raise broken(part_key(number), "it was written after another part than the one before")
        self._add(part)

    def _last_writer(self) -> str:
        return str(self._parts[-1].record.get("writer")) if self._parts else ""

    def _put(self, block: ColumnBlock) -> None:
        draft, number = Draft(), len(self._parts)
        draft.add(block)
        part = draft.part(part_key(number), number, {}, self._last_writer())
        self._unsure = True
        try:
            self._place.put(part.key, b"".join(draft.pieces(part)), new=True)
        except FileExistsError as error:
            raise StoreLocked(
                f"Another process writes to the store {self._place.name}: the part {part.key} is "
                "there already.",
                subject=self._place.name,
                hint="Stop one of the two. Nothing that it has written is lost.",
            ) from error
        self._unsure = False
        self._add(part)

    def _renew(self, *, closed: bool) -> None:
        """Replace the index."""
        meta = self._meta_crc32() if closed else None
        self._place.check_lock()
        self._place.put(KEY, packed(self._entries, closed=closed, meta=meta))
        self._indexed = len(self._parts)

    def _meta_crc32(self) -> int | None:
        data = self._place.get(_META)
        return None if data is None else zlib.crc32(data)

    def _changed_meta(self) -> str:
        """What is wrong with the run's record, compared with the index."""
        before = self._place.get(KEY)
        if before is None or not (told := unpacked(before)).closed:
            return ""
        same = told.meta == self._meta_crc32()
        return (
            "" if same or self._place.get(KEY) != before else f"{_META} is not as it was written."
        )


def _place(location: str, options: PluginOptions) -> Place:
    chosen = SafetensorsOptions.model_validate(options.model_dump())
    return place_of(
        location,
        "safetensors",
        chosen.remote,
        take_over=chosen.take_over,
        patience=chosen.patience,
    )
