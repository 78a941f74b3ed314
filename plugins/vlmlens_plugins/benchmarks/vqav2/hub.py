"""VQAv2 with the columns of the hub, row by row: the split holds too many to be held at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vlmlens._files import expanded
from vlmlens_plugins.benchmarks.forms import missing, text_in, wrong_form
from vlmlens_plugins.benchmarks.sources import Source, file_source, hub_rows, is_hub_name
from vlmlens_plugins.benchmarks.vqav2.official import FORMS, TITLE, Annotation, annotated
from vlmlens_plugins.data._hf_loading import load, split_source
from vlmlens_plugins.data._paths import existing
from vlmlens_plugins.data._table_files import Row, is_table

_COLUMNS = ("question_id", "question", "image_id")


class HubQuestions:
    """The rows of a Parquet file, another table, a folder, or `ORG/NAME[:SPLIT]`.

    Args:
        source: As the user gave it.
        subset: Configuration of a dataset of the hub.
        revision: Branch, tag or commit there.

    Raises:
        DataError: There is no such thing, or it has other columns.
    """

    def __init__(self, source: str, subset: str | None, revision: str | None) -> None:
        self._source = source
        place, split = split_source(source)
        path = expanded(place)
        self._table: Any = None
        self._file: Source | None = None
        if path.is_file() and is_table(path) and path.suffix.lower() != ".parquet":
            self._file = file_source(path)
            columns = list(self._file.columns)
        else:
            if not path.exists() and not is_hub_name(source):
                existing(source)
            name = str(path) if path.exists() else place
            self._table = load(source, name, split, subset, revision)
            columns = list(self._table.column_names)
        if not set(_COLUMNS) <= set(columns):
            raise wrong_form(TITLE, source, columns, FORMS)

    def __iter__(self) -> Iterator[tuple[Row, str]]:
        """The rows, each with its place for messages."""
        rows = self._file.rows if self._file else hub_rows(self._table)
        for row in rows:
            yield row, f"{self._source}, {row.place}"

    def number(self, row: Row, column: str) -> int:
        """A cell that is a number, or the text of one.

        Raises:
            ManifestError: It is something else.
        """
        try:
            return int(str(row.cells[column]))
        except (KeyError, ValueError) as error:
            raise missing(row, column, "a whole number", self._named(row)) from error

    def question(self, row: Row) -> str:
        """The question.

        Raises:
            ManifestError: It is empty, or no text.
        """
        return text_in(row, "question", self._named(row))

    def annotation(self, row: Row) -> Annotation | None:
        """What people answered; None in the test splits.

        Raises:
            ManifestError: It is malformed.
        """
        if not row.cells.get("answers"):
            return None
        try:
            return annotated(row.cells)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise missing(row, "answers", "a list of answers", self._named(row)) from error

    def _named(self, row: Row) -> Source:
        return Source(self._source, tuple(row.cells), [row])


def folder_of(source: str) -> Path:
    """The folder that names of images start from."""
    path = expanded(split_source(source)[0])
    return path if path.is_dir() else path.parent if path.is_file() else Path()
