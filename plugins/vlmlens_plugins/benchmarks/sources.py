"""Where a benchmark's rows are: a table file, a folder that `datasets` reads, or the hub."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmlens._files import expanded
from vlmlens.errors import DataError, DataNotFound
from vlmlens_plugins.data._embedded import Stored, taken_out
from vlmlens_plugins.data._hf_loading import load, split_source
from vlmlens_plugins.data._paths import InFolder, existing
from vlmlens_plugins.data._table_files import Row, is_table, read_rows

_HUB = re.compile(r"[\w.-]+/[\w.-]+(:[\w.+-]+(\[[^\]]*\])?)?")
_ROWS_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Source:
    """The rows of one file, or of one split.

    Args:
        name: For messages.
        columns: Their names, in order.
        rows: Each knows its place; images inside are paths of the cache (`Stored`).
        digest: The first 12 digits of the SHA-256 of the file; "" of what is no single file.
    """

    name: str
    columns: tuple[str, ...]
    rows: Sequence[Row]
    digest: str = ""

    def has(self, *columns: str) -> bool:
        """Whether all these columns are there."""
        return set(columns) <= set(self.columns)


def file_source(path: Path) -> Source:
    """The rows of a table: JSON (lines), CSV, TSV, Parquet.

    Raises:
        ManifestError: It is no table of its suffix's kind.
    """
    rows = read_rows(path)
    return Source(str(path), rows.columns, rows.rows, digest(path))


def digest(path: Path) -> str:
    """The first 12 digits of the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def source_of(source: str, subset: str | None = None, revision: str | None = None) -> Source:
    """The rows of a table file, of a folder that `datasets` reads, or of `ORG/NAME[:SPLIT]`.

    Nothing is downloaded unless `source` is no path and has the form of a name on the hub.

    Args:
        source: A path or a name, maybe with a split.
        subset: Configuration of a dataset of the hub.
        revision: Branch, tag or commit there.

    Raises:
        DataNotFound: There is no such thing.
        ManifestError: The file is broken.
        MissingDependency: The package `datasets` is needed and not installed.
    """
    place, split = split_source(source)
    path = expanded(place)
    if path.is_file() and is_table(path):
        return file_source(path)
    if path.exists() and not path.is_file() and not path.is_dir():
        raise DataNotFound(
            f"{source!r} is no file and no folder.", subject=source, hint="Give a table's file."
        )
    if not path.exists() and not is_hub_name(source):
        existing(source)
    table = load(source, str(path) if path.exists() else place, split, subset, revision)
    rows = list(hub_rows(table))
    if not rows:
        raise DataNotFound(f"{source} has no rows.", subject=source, hint="Choose another split.")
    return Source(source, tuple(table.column_names), rows)


def default_root(source: str) -> Path:
    """The folder that names of images start from."""
    path = expanded(split_source(source)[0])
    return path if path.is_dir() else path.parent if path.is_file() else Path()


def is_hub_name(source: str) -> bool:
    """Whether a text has the form `ORG/NAME` or `ORG/NAME:SPLIT`."""
    return bool(_HUB.fullmatch(source)) and not source.startswith((".", "/", "~"))


class ImageRoot:
    """Turns image cells into paths: those of the cache as they are, names from a folder.

    Args:
        folder: The user's folder of images; None: `default`.
        default: The folder of the file that names them.
        allow_outside: Accept paths that leave the folder.
    """

    def __init__(self, folder: str | None, default: Path, *, allow_outside: bool = False) -> None:
        self.folder = _existing_folder(folder) if folder else default
        self._inside = None if allow_outside else InFolder(self.folder)

    def path(self, cell: Any, where: str) -> str:
        """The image's path. Whether the file is there is checked later, for all samples.

        Raises:
            DataError: The cell is no path, or it leaves the folder.
        """
        if isinstance(cell, Stored):
            return str(cell)
        if not isinstance(cell, str) or not cell.strip() or "\0" in cell or "://" in cell:
            raise DataError(
                f"{where}: expected an image or its path, got {str(cell)[:60]!r}.",
                subject=where,
                hint="Give the files that the set's authors publish, or embedded images.",
            )
        path = self.folder / cell.strip()
        if self._inside is not None:
            self._inside.check(path, where=where, given=cell)
        return str(path)


def _existing_folder(folder: str) -> Path:
    path = existing(folder)
    if path.is_dir():
        return path
    raise DataNotFound(
        f"images={folder!r} is no folder.",
        subject=folder,
        hint="Name the folder that the images are in (an archive must be unpacked).",
    )


def hub_rows(table: Any) -> Iterator[Row]:
    """The rows of a table of the package `datasets`, one by one; images become files."""
    number = 0
    for block in table.with_format("arrow").iter(_ROWS_AT_ONCE):
        for cells in block.to_pylist():
            number += 1
            read = {name: taken_out(value) for name, value in cells.items()}
            yield Row(number, f"row {number}", read)
