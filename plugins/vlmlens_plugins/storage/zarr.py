"""ZarrStore: columns as Zarr v3 arrays, in a folder or an object store.

::

    zarr.json                 a group; its attributes name the format
    columns/zarr.json         a group
    columns/NUMBER/           a column's rows, in written order: an array [rows, width]
    commits/NUMBER.json       what one write added: new columns, chunks of ids, checksums
    meta.json                 the run's own record
    seal.json                 number of commits and checksums, while nobody writes
    writer.lock               who writes

A commit's record is written last: rows that no commit names are no rows. A writer removes the seal
before its first change, and makes a new one when it closes the store.

Over 400 lines: what writes this layout and what reads it stay together.
"""

from __future__ import annotations

import logging
import os
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Self

import numpy as np
from pydantic import Field

from vlmlens.abc.options import Options as PluginOptions
from vlmlens.abc.storage import (
    Array,
    ChunkCheck,
    ColumnBlock,
    ColumnInfo,
    ColumnStore,
    Mode,
    Values,
)
from vlmlens.errors import StoreCorrupt, StoreError, StoreLocked
from vlmlens.stores.writing import (
    check_block,
    crc32_of,
    find_column,
    in_own_type,
    read_only,
    to_json,
)
from vlmlens_plugins.storage._chunk_format import Chunk, Column, Index, Piece
from vlmlens_plugins.storage._chunk_reading import gather, plan_range, plan_read
from vlmlens_plugins.storage._chunks import split_block
from vlmlens_plugins.storage._place_names import place_of
from vlmlens_plugins.storage._places import Place, entered, explaining
from vlmlens_plugins.storage._signed_records import checked, damaged, parsed, signed
from vlmlens_plugins.storage._zarr_columns import ZarrColumns
from vlmlens_plugins.storage._zarr_records import (
    ROOT,
    add_commit,
    check_format,
    commit_key,
    parsed_seal,
)

_META = "meta.json"
_SEAL = "seal.json"

_log = logging.getLogger("vlmlens")


class ZarrOptions(PluginOptions):
    """Options of the Zarr store."""

    sync: bool = Field(
        True,
        description="Wait for the disk at each write (a local folder). Without it a power cut may "
        "damage the last rows, which their checksums show.",
    )
    remote: dict[str, Any] = Field(
        default_factory=dict,
        description="For fsspec: endpoint, credentials, ... of an object store.",
    )
    take_over: bool = Field(
        False,
        description="Write to an object store although its lock names a writer: for one that was "
        "killed on another host.",
    )


class ZarrStore(ColumnStore):
    """Columns as Zarr arrays. Made by `open`."""

    Options = ZarrOptions

    def __init__(self, place: Place, mode: Mode, *, sync: bool, version: int) -> None:
        self._place = place
        self._mode = mode
        self._sync = sync
        self._pid = os.getpid()
        self._open = True
        self._threads = threading.RLock()
        self._index = Index()
        self._version = version
        self._commits = 0
        self._chain = 0
        self._sealed = False
        self._columns = ZarrColumns(place.arrays())
        self._verified: set[tuple[int, int]] = set()

    @classmethod
    def open(cls, location: str, *, mode: Mode, options: PluginOptions) -> Self:
        """Open a folder, `zarr:///folder`, or `zarr+PROTOCOL://...` for anything of fsspec's.

        Raises:
            StoreLocked: Another store writes to it.
            StoreError: There is none (mode "r"), or another program or a newer vlmlens wrote it.
        """
        chosen = ZarrOptions.model_validate(options.model_dump())
        place = place_of(location, "zarr", chosen.remote, take_over=chosen.take_over)
        with explaining(place):
            if mode == "r" and place.get(ROOT) is None:
                raise StoreError(
                    f"No Zarr store at {place.name}.", subject=location, hint="Give its folder."
                )
            if mode == "a":
                place.lock("commits")
            try:
                store = cls(place, mode, sync=chosen.sync, version=check_format(place, mode))
                store._check_seal()
            except BaseException:
                place.unlock()
                raise
        return store

    @classmethod
    def remove(cls, location: str, *, options: PluginOptions) -> None:
        """See `ColumnStore.remove`."""
        chosen = ZarrOptions.model_validate(options.model_dump())
        place = place_of(location, "zarr", chosen.remote, take_over=chosen.take_over)
        with explaining(place):
            place.clear()

    def write(self, block: ColumnBlock) -> None:
        """See `ColumnStore.write`."""
        self._check_writable()
        with self._refreshed() as index:
            check_block(
                block,
                index.forms(),
                lambda name, sample: index.place(index.columns[name], sample) is not None,
            )
            if block.ids and block.columns:
                self._commit(index, block)

    def columns(self) -> list[ColumnInfo]:
        """See `ColumnStore.columns`."""
        with self._refreshed() as index:
            return [
                ColumnInfo(column.name, *column.form, samples=index.samples(column))
                for column in index.columns.values()
            ]

    def ids(self, column: str) -> list[str]:
        """See `ColumnStore.ids`."""
        with self._refreshed() as index:
            chunks = index.chunks_of(find_column(column, index.columns))
            return [sample for chunk in chunks for sample in chunk.ids]

    def read(self, column: str, ids: Sequence[str] | None = None) -> Values:
        """See `ColumnStore.read`."""
        with self._refreshed() as index:
            plan = plan_read(index, column, ids)
            found = plan.column
            if plan.moves and all(move.sources is None for move in plan.moves):
                array = self._whole(index, found)
            else:
                array = gather(plan, lambda chunk: self._load(index, found, chunk))
        return Values(array, found.form.dtype, plan.lengths)

    def read_range(self, column: str, start: int, stop: int) -> tuple[list[str], Values]:
        """See `ColumnStore.read_range`."""
        with self._refreshed() as index:
            ids, plan = plan_range(index, column, start, stop)
            array = gather(plan, lambda chunk: self._load(index, plan.column, chunk))
        return ids, Values(array, plan.column.form.dtype, plan.lengths)

    def iterate(self, column: str) -> Iterator[tuple[str, Array]]:
        """See `ColumnStore.iterate`; holds one chunk at a time."""
        with self._refreshed() as index:
            found = find_column(column, index.columns)
            chunks = list(index.chunks_of(found))
        for chunk in chunks:
            with self._refreshed() as index:
                array = self._load(index, found, chunk).copy()
            lengths = chunk.pieces[found.number].lengths or (1,) * len(array)
            parts = np.split(in_own_type(array, found.form.dtype), np.cumsum(lengths)[:-1])
            yield from zip(chunk.ids, parts, strict=True)

    def verify(self) -> Iterator[ChunkCheck]:
        """See `ColumnStore.verify`."""
        with self._refreshed() as index:
            every = [(c, chunk) for c in index.columns.values() for chunk in index.chunks_of(c)]
        for column, chunk in every:
            size, problem = 0, ""
            try:
                with self._refreshed() as index:
                    self._verified.discard((column.number, chunk.number))
                    size = self._load(index, column, chunk).nbytes
            except StoreError as error:
                problem = error.message
            yield ChunkCheck(column.name, chunk.ids[0], len(chunk.ids), size, problem)
        with self._entered():
            for name, problem in self._changed_files():
                yield ChunkCheck(name, "", 0, 0, problem)

    def get_meta(self) -> dict[str, Any]:
        """See `ColumnStore.get_meta`."""
        with self._entered():
            data = self._place.get(_META)
            if self._version == 1:
                return parsed(data or b"{}", _META)
            found = {"meta": {}} if data is None else checked(data, _META)[0]
            meta = found.get("meta")
            if not isinstance(meta, dict):
                raise damaged(_META)
            return meta

    def set_meta(self, meta: Mapping[str, Any]) -> None:
        """See `ColumnStore.set_meta`."""
        self._check_writable()
        data = to_json(meta) if self._version == 1 else signed({"meta": dict(meta)})[0]
        with self._entered():
            self._break_seal()
            self._place.put(_META, data)

    def close(self) -> None:
        """See `ColumnStore.close`."""
        if self._open and self._pid == os.getpid():
            try:
                if self._mode == "a":
                    with self._threads, explaining(self._place):
                        self._seal()
            finally:
                self._open = False
                with explaining(self._place):
                    self._place.unlock()

    def _seal(self) -> None:
        """Say how many commits there are, and what the other small files hold."""
        if self._sealed or self._version == 1:
            return
        with self._refreshed():
            files = {key: zlib.crc32(data) for key, data in self._files()}
        seal = {"commits": self._commits, "chain": self._chain, "files": files}
        self._place.put(_SEAL, signed(seal)[0])
        self._sealed = True

    def _break_seal(self) -> None:
        if self._sealed:
            self._place.remove(_SEAL)
            self._sealed = False

    def _files(self) -> Iterator[tuple[str, bytes]]:
        """The small files that are not commits, as far as they are there."""
        arrays = [f"columns/{column.number}/zarr.json" for column in self._index.columns.values()]
        for key in (ROOT, "columns/zarr.json", _META, *arrays):
            if (data := self._place.get(key)) is not None:
                yield key, data

    def _check_seal(self) -> None:
        """Read all commits, and compare them with the seal.

        Raises:
            StoreCorrupt: There are others, or fewer.
        """
        before = self._place.get(_SEAL)
        with self._refreshed():
            pass
        self._sealed = before is not None
        later, here = (self._place.get(commit_key(self._commits + n)) for n in (1, 0))
        if later is not None and here is None:
            raise damaged(f"commit {self._commits}")
        small = {key: self._place.get(key) for key in (ROOT, _META)}
        if before is None or self._place.get(_SEAL) != before:
            return
        seal = parsed_seal(before, _SEAL)
        for key, data in small.items():
            if seal["files"].get(key) != (None if data is None else zlib.crc32(data)):
                raise damaged(key)
        if (seal["commits"], seal["chain"]) != (self._commits, self._chain):
            raise StoreCorrupt(
                f"The store {self._place.name} is damaged: {seal['commits']} commits were "
                f"written, and {self._commits} are there as they were written.",
                subject=self._place.name,
                hint="Copy the store again from its source, or extract again with --fresh.",
            )

    def _changed_files(self) -> Iterator[tuple[str, str]]:
        """Files that are not as the seal says."""
        before = self._place.get(_SEAL)
        if before is None:
            if self._version > 1 and self._mode == "r":
                _log.warning(
                    "%s was not closed by its writer: whether its last commit is there cannot be "
                    "told. Resume the run to close it.",
                    self._place.name,
                )
            return
        wanted = parsed_seal(before, _SEAL)["files"]
        found = {key: zlib.crc32(data) for key, data in self._files()}
        if self._place.get(_SEAL) == before:
            for key in {**wanted, **found}:
                if wanted.get(key) != found.get(key):
                    yield key, f"The file {key} is not as it was written."

    def _commit(self, index: Index, block: ColumnBlock) -> None:
        """Write rows, then the record that makes them count."""
        self._break_seal()
        columns = dict(index.columns)
        new = []
        for name, values in block.columns.items():
            if name not in columns:
                columns[name] = Column.of(len(columns), name, values)
                new.append(columns[name])
                self._columns.create(columns[name], len(values.array))
        chunks: list[Chunk] = []
        starts: dict[int, int] = {}
        touched: list[str] = []
        for ids, parts in split_block(block):
            pieces = {}
            for name, values in parts.items():
                column = columns[name]
                start = starts.get(column.number, index.rows(column.number))
                touched += self._columns.put(column, start, values.array)
                starts[column.number] = start + len(values.array)
                pieces[column.number] = Piece(crc32_of(values.array), values.lengths)
            chunks.append(Chunk(len(index.chunks) + len(chunks), ids, pieces))
        if self._sync:
            self._place.settle(touched)
        record = {
            "columns": [column.to_record() for column in new],
            "chunks": [chunk.to_record() for chunk in chunks],
        }
        try:
            data = to_json(record) if self._version == 1 else signed(record, self._chain)[0]
            self._place.put(commit_key(self._commits), data, new=True)
        except FileExistsError as error:
            raise StoreLocked(
                f"Another process writes to the store {self._place.name}: commit {self._commits} "
                "is there already.",
                subject=self._place.name,
                hint="Stop one of the two, and check the store with `vlmlens verify`.",
            ) from error

    def _whole(self, index: Index, column: Column) -> Array:
        """All rows of a column at once."""
        array = self._columns.get(column, 0, index.rows(column.number))
        for chunk in index.chunks_of(column):
            start = index.first_row(column, chunk)
            self._check(column, chunk, array[start : start + chunk.rows(column.number)])
        return array

    def _load(self, index: Index, column: Column, chunk: Chunk) -> Array:
        start = index.first_row(column, chunk)
        array = self._columns.get(column, start, start + chunk.rows(column.number))
        self._check(column, chunk, array)
        return array

    def _check(self, column: Column, chunk: Chunk, array: Array) -> None:
        place = (column.number, chunk.number)
        if place in self._verified:
            return
        if len(array) != chunk.rows(column.number) or (
            crc32_of(array) != chunk.pieces[column.number].crc32
        ):
            raise StoreCorrupt(
                f"Column {column.name!r}, chunk {chunk.number} ({len(chunk.ids)} samples from "
                f"{chunk.ids[0]!r}) of the store {self._place.name} is damaged.",
                subject=column.name,
                hint="Copy the store again from its source, or extract again with --fresh.",
            )
        self._verified.add(place)

    def _check_writable(self) -> None:
        if self._mode != "a":
            raise read_only()

    def _entered(self) -> AbstractContextManager[None]:
        return entered(self._place, is_open=self._open, process=self._pid, threads=self._threads)

    @contextmanager
    def _refreshed(self) -> Iterator[Index]:
        """The index, with all commits that are there."""
        with self._entered():
            while (data := self._place.get(commit_key(self._commits))) is not None:
                name = f"commit {self._commits}"
                record, chain = (
                    (parsed(data, name), 0)
                    if self._version == 1
                    else checked(data, name, self._chain)
                )
                add_commit(self._index, record, name)
                self._commits, self._chain = self._commits + 1, chain
            yield self._index
