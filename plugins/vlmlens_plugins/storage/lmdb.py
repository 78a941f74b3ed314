"""LmdbStore: one LMDB environment per run. docs/storage-format.md describes the format."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
from pydantic import Field

from vlmlens.abc.options import Options as PluginOptions
from vlmlens.abc.storage import (
    DTYPES,
    Array,
    ChunkCheck,
    ColumnBlock,
    ColumnInfo,
    ColumnStore,
    Mode,
    Values,
    remove_path,
)
from vlmlens.errors import StoreCorrupt, StoreError
from vlmlens.stores.writing import (
    check_block,
    crc32_of,
    find_column,
    in_own_type,
    read_only,
    to_json,
)
from vlmlens_plugins.storage import _chunk_format as layout
from vlmlens_plugins.storage._chunk_encoding import prepared
from vlmlens_plugins.storage._chunk_format import Chunk, Column, Index, Piece
from vlmlens_plugins.storage._chunk_reading import ReadPlan, gather, plan_range, plan_read
from vlmlens_plugins.storage._chunks import VALUE_LIMIT, split_block
from vlmlens_plugins.storage._disk_full import FULL, full
from vlmlens_plugins.storage._lmdb_environment import DATA_FILE, Environment
from vlmlens_plugins.storage._lmdb_open import Lease, lease
from vlmlens_plugins.storage._lmdb_record import (
    check_version,
    foreign,
    nothing,
    put_meta,
    put_seal,
    read_record,
    record_of,
)
from vlmlens_plugins.storage._locations import local_path
from vlmlens_plugins.storage._network_mounts import network_of
from vlmlens_plugins.storage._seal import Seal

if TYPE_CHECKING:
    from lmdb import Transaction

_log = logging.getLogger("vlmlens")


class LmdbOptions(PluginOptions):
    """Options of the LMDB store."""

    sync: bool = Field(
        True,
        description="Wait for the disk at each write. Without it a power cut may lose the last "
        "rows or damage the store; a killed process loses nothing either way.",
    )
    check: bool = Field(
        False,
        description="Compare every checksum when a process first reads a chunk, which halves the "
        "speed of that reading. Default: its size; `vlmlens verify` compares all checksums.",
    )
    force_network: bool = Field(
        False, description="Write even if the folder is on a network file system."
    )
    map_size: int | None = Field(
        None,
        ge=1 << 16,
        le=1 << 46,
        description="Initial size of the memory map in bytes; it grows by itself. "
        "Default: 1 TiB of address space, or 64 MiB where that is limited.",
    )


class LmdbStore(ColumnStore):
    """Columns in an LMDB environment: durable, one writer, any number of readers.

    Made by `open`. Stores of one folder share one handle per process.
    """

    Options = LmdbOptions

    def __init__(self, share: Lease, mode: Mode, *, checks: bool) -> None:
        self._share: Lease | None = share
        self._mode = mode
        self._checks = checks

    @classmethod
    def open(cls, location: str, *, mode: Mode, options: PluginOptions) -> Self:
        """Open the environment in a folder, given as a path or as `lmdb:///path`.

        Raises:
            StoreLocked: Another store writes to it.
            StoreCorrupt: The file is damaged, or is no LMDB file.
            StoreError: There is none (mode "r"), or another program or a newer vlmlens wrote it.
        """
        chosen = LmdbOptions.model_validate(options.model_dump())
        folder = folder_of(location)
        if not chosen.force_network:
            _check_local(folder, mode)
        _prepare(folder, mode)
        try:
            share = lease(folder, writer=mode == "a", map_size=chosen.map_size, sync=chosen.sync)
        except OSError as error:
            raise _from_os(folder, error) from error
        store = cls(share, mode, checks=chosen.check)
        try:
            store._check_format()
        except BaseException:
            store.close()
            raise
        return store

    @classmethod
    def remove(cls, location: str, *, options: PluginOptions) -> None:
        """See `ColumnStore.remove`."""
        del options
        remove_path(Path(folder_of(location)))

    def write(self, block: ColumnBlock) -> None:
        """See `ColumnStore.write`. Very large blocks are stored as several chunks, together."""
        environment = self._writable()

        def work(txn: Transaction[bytes], index: Index) -> None:
            known = index.has_any(block.ids)
            check_block(block, index.forms(), lambda name, row: known and index.has(name, row))
            if block.ids and block.columns:
                put_seal(txn, _put_block(txn, index, block))

        environment.write(work)

    def columns(self) -> list[ColumnInfo]:
        """See `ColumnStore.columns`."""

        def plan(index: Index) -> list[ColumnInfo]:
            return [
                ColumnInfo(column.name, *column.form, samples=index.samples(column))
                for column in index.columns.values()
            ]

        with self._environment.snapshot(plan) as (_, infos):
            return infos

    def ids(self, column: str) -> list[str]:
        """See `ColumnStore.ids`."""

        def plan(index: Index) -> list[str]:
            chunks = index.chunks_of(find_column(column, index.columns))
            return [sample for chunk in chunks for sample in chunk.ids]

        with self._environment.snapshot(plan) as (_, ids):
            return ids

    def read(self, column: str, ids: Sequence[str] | None = None) -> Values:
        """See `ColumnStore.read`.

        Raises:
            ColumnNotFound: No such column.
            StoreError: A sample has no value in it.
            StoreCorrupt: A chunk's checksum is wrong.
        """
        environment = self._environment
        plan = environment.snapshot(lambda index: plan_read(index, column, ids))
        with plan as (txn, found):
            array = gather(found, lambda chunk: self._load(environment, txn, found.column, chunk))
        return Values(array, found.column.form.dtype, found.lengths)

    def read_range(self, column: str, start: int, stop: int) -> tuple[list[str], Values]:
        """See `ColumnStore.read_range`."""
        environment = self._environment
        plan = environment.snapshot(lambda index: plan_range(index, column, start, stop))
        with plan as (txn, (ids, found)):
            array = gather(found, lambda chunk: self._load(environment, txn, found.column, chunk))
        return ids, Values(array, found.column.form.dtype, found.lengths)

    def iterate(self, column: str) -> Iterator[tuple[str, Array]]:
        """See `ColumnStore.iterate`; holds one chunk at a time."""
        environment = self._environment

        def chunks(index: Index) -> ReadPlan:
            return plan_read(index, column, None)

        with environment.snapshot(chunks) as (_, plan):
            pass
        for move in plan.moves:
            with environment.snapshot(lambda _: None) as (txn, _):
                array = self._load(environment, txn, plan.column, move.chunk).copy()
            piece = move.chunk.pieces[plan.column.number]
            values = in_own_type(array, plan.column.form.dtype)
            ids = move.chunk.ids
            entries = np.split(values, np.cumsum(piece.entry_lengths(len(ids)))[:-1])
            order = range(len(ids)) if piece.order is None else piece.order
            yield from zip(ids, (entries[entry] for entry in order), strict=True)

    def verify(self) -> Iterator[ChunkCheck]:
        """See `ColumnStore.verify`."""
        environment = self._environment

        def chunks(index: Index) -> list[tuple[Column, Chunk]]:
            return [(c, chunk) for c in index.columns.values() for chunk in index.chunks_of(c)]

        with environment.snapshot(chunks) as (_, every):
            pass
        for column, chunk in every:
            size, problem = 0, ""
            try:
                with environment.snapshot(lambda _: None) as (txn, _):
                    array = _view(environment, txn, column, chunk)
                    _check(environment, column, chunk, array)
                    size = array.nbytes
            except StoreError as error:
                problem = error.message
            yield ChunkCheck(column.name, chunk.ids[0], len(chunk.ids), size, problem)

    def check_reads(self) -> None:
        """See `ColumnStore.check_reads`: like the option `check`."""
        self._checks = True

    def get_meta(self) -> dict[str, Any]:
        """See `ColumnStore.get_meta`."""
        with self._environment.snapshot(lambda _: None) as (txn, _):
            record = read_record(txn)
        return cast(dict[str, Any], record["meta"]) if record else {}

    def set_meta(self, meta: Mapping[str, Any]) -> None:
        """See `ColumnStore.set_meta`."""
        value = record_of(meta)
        self._writable().write(lambda txn, index: put_meta(txn, index, value))

    def close(self) -> None:
        """See `ColumnStore.close`."""
        share, self._share = self._share, None
        if share is not None:
            share.give_back()

    def _load(
        self, environment: Environment, txn: Transaction[memoryview], column: Column, chunk: Chunk
    ) -> Array:
        """A view of a chunk's rows, good while the transaction is open."""
        array = _view(environment, txn, column, chunk)
        place = (column.number, chunk.number)
        if self._checks and place not in environment.verified:
            _check(environment, column, chunk, array)
            environment.verified.add(place)
        return array

    @property
    def _environment(self) -> Environment:
        if self._share is None:
            raise StoreError("The store is closed.")
        return self._share.environment

    def _writable(self) -> Environment:
        if self._mode != "a":
            raise read_only()
        return self._environment

    def _check_format(self) -> None:
        environment = self._environment
        if self._mode == "a":
            # A writer that was killed may have left a whole block that readers see only once the
            # next writer has taken the lock. It has to be seen before anyone asks what is there.
            environment.write(lambda txn, index: None)
        with environment.snapshot(lambda _: None) as (txn, _):
            record, empty = read_record(txn), not txn.stat()["entries"]
        if record is not None:
            check_version(environment.folder, record)
        elif not empty:
            raise foreign(environment.folder)
        elif self._mode == "a":
            self.set_meta({})
        else:
            raise nothing(environment.folder)


def folder_of(location: str) -> str:
    """The folder that a location names: itself, or the path of `lmdb:///path`.

    Raises:
        StoreError: The URI names no place on this machine.
    """
    return local_path(location, "lmdb", "lmdb:///path/to/folder")


def _check_local(folder: str, mode: Mode) -> None:
    """Refuse to write on a network file system; reading a finished store there is no danger."""
    kind = network_of(folder)
    if kind is None:
        return
    if mode == "r":
        _log.warning(
            "%s lies on a network file system (%s): read it while nobody writes to it only.",
            folder,
            kind,
        )
        return
    raise StoreError(
        f"The folder {folder} lies on a network file system ({kind}), where LMDB cannot keep "
        "writers and readers apart and may damage the store.",
        subject=folder,
        hint="Write to a local disk with --out and copy the run when it is finished, use "
        "--storage zarr, or, where a single process on one host uses it, say "
        "--set options.storage.force_network=true.",
    )


def _prepare(folder: str, mode: Mode) -> None:
    data = Path(folder, DATA_FILE)
    if mode == "r" and not data.is_file():
        raise StoreError(
            f"No store in {folder}.", subject=folder, hint="Give the folder of a run's columns."
        )
    if mode == "r" and not data.stat().st_size:
        raise nothing(folder)
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _from_os(folder, error) from error


def _put_block(txn: Transaction[bytes], index: Index, block: ColumnBlock) -> Seal:
    """Store a block. Returns the seal of all columns and chunks."""
    numbers, seal = _put_columns(txn, index, block)
    number = len(index.chunks)
    for ids, columns in split_block(block, largest=VALUE_LIMIT):
        pieces: dict[int, Piece] = {}
        for name, values in columns.items():
            raw, piece = prepared(values)
            txn.put(layout.value_key(numbers[name], number), cast(bytes, raw))
            pieces[numbers[name]] = piece
        header = to_json(Chunk(number, ids, pieces).to_record())
        txn.put(layout.header_key(number), header)
        seal = seal.with_chunk(header)
        number += 1
    return seal


def _put_columns(
    txn: Transaction[bytes], index: Index, block: ColumnBlock
) -> tuple[dict[str, int], Seal]:
    numbers = {name: column.number for name, column in index.columns.items()}
    seal = index.seal
    for name, values in block.columns.items():
        if name not in numbers:
            numbers[name] = len(numbers)
            column = to_json(Column.of(numbers[name], name, values).to_record())
            txn.put(layout.column_key(numbers[name]), column)
            seal = seal.with_column(column)
    return numbers, seal


def _view(
    environment: Environment, txn: Transaction[memoryview], column: Column, chunk: Chunk
) -> Array:
    """A view of a chunk's rows, good while the transaction is open."""
    raw = txn.get(layout.value_key(column.number, chunk.number))
    dtype = DTYPES[column.form.dtype]
    rows = chunk.stored_rows(column.number)
    if raw is None or len(raw) != rows * column.form.width * dtype.itemsize:
        raise _damaged(environment.folder, column, chunk)
    return np.frombuffer(raw, dtype).reshape(rows, column.form.width)


def _check(environment: Environment, column: Column, chunk: Chunk, array: Array) -> None:
    if crc32_of(array) != chunk.pieces[column.number].crc32:
        raise _damaged(environment.folder, column, chunk)


def _damaged(folder: str, column: Column, chunk: Chunk) -> StoreCorrupt:
    return StoreCorrupt(
        f"Column {column.name!r}, chunk {chunk.number} ({len(chunk.ids)} samples from "
        f"{chunk.ids[0]!r}) of the store {folder} is damaged.",
        subject=column.name,
        hint="Copy the store again from its source, or extract again with --fresh.",
    )


def _from_os(folder: str, error: OSError) -> StoreError:
    if error.errno in FULL:
        return full(folder)
    return StoreError(f"The store {folder} cannot be opened: {error.strerror}.", subject=folder)
