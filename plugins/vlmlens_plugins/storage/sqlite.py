"""SqliteStore: columns in VLM-Lens's table, and VLM-Lens's own databases read as columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

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
    remove_path,
)
from vlmlens.errors import StoreError
from vlmlens.samples import Sample
from vlmlens.stores.writing import read_only
from vlmlens_plugins.storage._locations import local_path
from vlmlens_plugins.storage._sqlite_database import Database
from vlmlens_plugins.storage._sqlite_schema import FORMAT, VERSION
from vlmlens_plugins.storage._sqlite_seal import changed
from vlmlens_plugins.storage._sqlite_tables import OwnTables
from vlmlens_plugins.storage._vlm_lens_tables import VlmLensTables

FILE = "tensors.db"
"""The database's name where a folder was named."""

_SUFFIXES = (".db", ".sqlite", ".sqlite3")


class SqliteOptions(PluginOptions):
    """Options of the SQLite store."""

    sync: bool = Field(
        True,
        description="Wait for the disk at each write. Without it a power cut may lose the last "
        "rows; a killed process loses nothing either way.",
    )
    model: str | None = Field(
        None, description="Of a VLM-Lens database with several models: the one to read (`name`)."
    )
    repeated: Literal["refuse", "first", "last"] = Field(
        "refuse",
        description="Of a VLM-Lens database: which tensor counts where a sample has several in a "
        "layer. Default: such a layer is left out.",
    )


class SqliteStore(ColumnStore):
    """Columns in an SQLite file with VLM-Lens's schema: durable, one writer, many readers.

    Made by `open`, which also reads databases that VLM-Lens wrote (mode "r" only).
    """

    Options = SqliteOptions

    def __init__(self, database: Database, tables: OwnTables | VlmLensTables, mode: Mode) -> None:
        self._database = database
        self._tables = tables
        self._mode = mode

    @classmethod
    def open(cls, location: str, *, mode: Mode, options: PluginOptions) -> Self:
        """Open a database file, `sqlite:///path/to/file.db`, or a folder for one.

        Raises:
            StoreLocked: Another store writes to it.
            StoreCorrupt: The file is damaged, or is no SQLite file.
            StoreError: There is none (mode "r"), VLM-Lens wrote it (mode "a"), or another program.
        """
        chosen = SqliteOptions.model_validate(options.model_dump())
        path = file_of(location)
        if mode == "r" and not path.is_file():
            raise StoreError(
                f"No SQLite store at {path}.", subject=location, hint="Give a database file."
            )
        database = Database(path, mode=mode)
        try:
            return cls(database, _tables(database, mode, chosen), mode)
        except BaseException:
            database.close()
            raise

    @classmethod
    def remove(cls, location: str, *, options: PluginOptions) -> None:
        """See `ColumnStore.remove`."""
        del options
        path = file_of(location)
        for name in ("", "-wal", "-shm", "-journal"):
            remove_path(path.with_name(path.name + name))
        if path.name == FILE:
            remove_path(path.parent)

    def write(self, block: ColumnBlock) -> None:
        """See `ColumnStore.write`."""
        self._writable().write(block)

    def columns(self) -> list[ColumnInfo]:
        """See `ColumnStore.columns`."""
        return self._tables.columns()

    def ids(self, column: str) -> list[str]:
        """See `ColumnStore.ids`."""
        return self._tables.ids(column)

    def read(self, column: str, ids: Sequence[str] | None = None) -> Values:
        """See `ColumnStore.read`."""
        return self._tables.read(column, ids)

    def read_range(self, column: str, start: int, stop: int) -> tuple[list[str], Values]:
        """See `ColumnStore.read_range`."""
        if isinstance(self._tables, OwnTables):
            return self._tables.read_range(column, start, stop)
        return super().read_range(column, start, stop)

    def iterate(self, column: str) -> Iterator[tuple[str, Array]]:
        """See `ColumnStore.iterate`."""
        yield from self._tables.iterate(column)

    def verify(self) -> Iterator[ChunkCheck]:
        """See `ColumnStore.verify`."""
        yield from self._tables.verify()

    def get_meta(self) -> dict[str, Any]:
        """See `ColumnStore.get_meta`."""
        return self._tables.meta()

    def set_meta(self, meta: Mapping[str, Any]) -> None:
        """See `ColumnStore.set_meta`."""
        self._writable().set_meta(meta)

    def samples(self) -> list[Sample]:
        """See `ColumnStore.samples`."""
        return self._tables.samples()

    def describe(self, samples: Iterable[Sample], *, model: str = "", adapter: str = "") -> None:
        """See `ColumnStore.describe`; fills the columns prompt, label, image_path of the table."""
        self._writable().describe(samples, model, adapter)

    def close(self) -> None:
        """See `ColumnStore.close`."""
        self._database.close()

    def _writable(self) -> OwnTables:
        if self._mode != "a" or not isinstance(self._tables, OwnTables):
            raise read_only()
        return self._tables


def file_of(location: str) -> Path:
    """The file that a location names.

    Args:
        location: A file, `sqlite:///path`, or a folder (anything without a database's suffix that
            is no file), which gets one file.

    Raises:
        StoreError: The URI names no place on this machine.

    >>> file_of("sqlite:///data/my%20run/x.db").as_posix(), file_of("runs/a/columns").as_posix()
    ('/data/my run/x.db', 'runs/a/columns/tensors.db')
    """
    path = local_path(location, "sqlite", "sqlite:///path/to/file.db")
    file = Path(path)
    return file if file.suffix in _SUFFIXES or file.is_file() else file / FILE


def _tables(database: Database, mode: Mode, options: SqliteOptions) -> OwnTables | VlmLensTables:
    names = {name for (name,) in database.rows("SELECT name FROM sqlite_master")}
    _check_tables(database)
    if "vlmlens_record" in names:
        version = _check_version(database, names)
        if mode == "a":
            database.prepare(sync=options.sync)
        return OwnTables(database, version)
    if mode == "a" and not names:
        database.prepare(sync=options.sync)
        OwnTables.create(database)
        return OwnTables(database)
    if "tensors" not in names:
        raise StoreError(
            f"The database {database.path} has no table of tensors.", subject=str(database.path)
        )
    if mode == "a":
        raise StoreError(
            f"VLM-Lens wrote {database.path}; vlmlens reads it and changes nothing in it.",
            subject=str(database.path),
            hint="Write to another file; `vlmlens import` copies it.",
        )
    return VlmLensTables(database, model=options.model, repeated=options.repeated)


def _check_tables(database: Database) -> None:
    """Refuse a database whose tables compute what they hold: a view can have no end.

    Raises:
        StoreError: It has such a table.
    """
    odd = database.rows(
        "SELECT type, name FROM sqlite_master WHERE (name = 'tensors' OR name LIKE 'vlmlens%') "
        "AND type IN ('table', 'view') AND (type = 'view' OR sql NOT LIKE 'CREATE TABLE%')"
    )
    for kind, name in odd:
        raise StoreError(
            f"In the database {database.path}, {name} is a {kind} that computes its rows.",
            subject=str(database.path),
            hint="Neither vlmlens nor VLM-Lens writes such databases.",
        )


def _check_version(database: Database, tables: set[str]) -> int:
    """The store's format version.

    Raises:
        StoreError: A newer vlmlens wrote it, or it is damaged.
    """
    name, version = database.row("SELECT format, version FROM vlmlens_record") or (None, None)
    if name != FORMAT or not isinstance(version, int) or version < 1:
        raise changed("format and version", database.path)
    if version > VERSION:
        raise StoreError(
            f"The store {database.path} has format version {version}; this vlmlens reads up to "
            f"{VERSION}.",
            subject=str(database.path),
            hint="Update vlmlens: pip install --upgrade vlmlens.",
        )
    if (version == 1) == ("vlmlens_seal" in tables):
        raise changed("the seal", database.path)
    return version
