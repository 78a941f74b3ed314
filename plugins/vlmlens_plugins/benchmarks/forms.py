"""The forms of a set: finding its files in a folder, and saying which form was expected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from vlmlens._files import expanded
from vlmlens.errors import DataError, ManifestError
from vlmlens_plugins.benchmarks.sources import Source, file_source, source_of
from vlmlens_plugins.data._embedded import Stored
from vlmlens_plugins.data._table_files import Row

_SHOWN = 12
_HUB_FILES = ("dataset_dict.json", "state.json", "dataset_info.json")
_HUB_TABLES = ("*.parquet", "*.arrow", "*/*.parquet", "*/*.arrow")


def wrong_form(
    title: str, source: str, found: Sequence[str], forms: Mapping[str, str]
) -> DataError:
    """The error for a source that is in none of a set's forms.

    Args:
        title: The set's name.
        source: As the user gave it.
        found: The columns or files that are there.
        forms: What each form has, by its name.
    """
    shown = ", ".join(found[:_SHOWN]) + (", ..." if len(found) > _SHOWN else "")
    expected = "; ".join(f"{name} ({what})" for name, what in forms.items())
    return DataError(
        f"{source!r} is in none of the forms of {title}: it has {shown or 'nothing'}.",
        subject=source,
        hint=f"Expected: {expected}.",
    )


def entries(folder: Path) -> list[str]:
    """The names in a folder, in order; hidden ones are left out."""
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def is_hub_folder(folder: Path) -> bool:
    """Whether the package `datasets` may read a folder: by the names of its files."""
    return any((folder / name).is_file() for name in _HUB_FILES) or any(
        next(folder.glob(pattern), None) is not None for pattern in _HUB_TABLES
    )


def rows_of(
    title: str,
    source: str,
    names: Sequence[str],
    forms: Mapping[str, str],
    *,
    subset: str | None = None,
    revision: str | None = None,
) -> Source:
    """The rows of a source: a table, a folder with one of the set's own files, or the hub's.

    Args:
        title: The set's name.
        source: As the user gave it.
        names: Of the set's own files, as they lie in a folder; the first that is there is read.
        forms: For the error: what each form has.
        subset: Configuration of a dataset of the hub.
        revision: Branch, tag or commit there.

    Raises:
        DataError: There is no such thing, or nothing of the set in it.
    """
    path = expanded(source)
    if path.is_dir():
        for name in names:
            if (path / name).is_file():
                return file_source(path / name)
        if not is_hub_folder(path):
            raise wrong_form(title, source, entries(path), forms)
    return source_of(source, subset, revision)


def missing(row: Row, column: str, what: str, source: Source) -> ManifestError:
    """The error for a cell that is not what it must be."""
    where = f"{source.name}, {row.place}"
    return ManifestError(
        f"{where}: {column} is {str(row.cells.get(column))[:60]!r}, where {what} is expected.",
        subject=where,
        hint="Correct the row, or take the file as its authors publish it.",
    )


def text_in(row: Row, column: str, source: Source) -> str:
    """A cell's text.

    Raises:
        ManifestError: It is empty, or no text or number.
    """
    value = row.cells.get(column)
    kind = isinstance(value, str | int | float) and not isinstance(value, bool)
    if not kind or str(value) in ("", "nan"):
        raise missing(row, column, "text", source)
    return str(value)


class HeldImages:
    """The image cells of VLMEvalKit's tables, where a short cell names the row that has the image.

    Args:
        source: With the columns `index` and `image`.
    """

    def __init__(self, source: Source) -> None:
        self._held = {
            str(row.cells.get("index")): row.cells["image"]
            for row in source.rows
            if isinstance(row.cells.get("image"), Stored)
        }

    def cell(self, row: Row) -> object:
        """The row's own image, or that of the row that it names."""
        given = row.cells.get("image")
        return given if isinstance(given, Stored) else self._held.get(str(given), given)
