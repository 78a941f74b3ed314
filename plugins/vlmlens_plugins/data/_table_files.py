"""Reading tables: JSONL, CSV, TSV and Parquet files as rows that know their line."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from vlmlens.errors import ManifestError


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its number from 1, where it stands ("line 3"), and its cells by column."""

    number: int
    place: str
    cells: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rows:
    """A table's column names, in order of appearance, and its rows."""

    columns: tuple[str, ...]
    rows: list[Row]


def read_rows(path: Path) -> Rows:
    """All rows of a table.

    Raises:
        ManifestError: It is no table of its suffix's kind; names the line.
    """
    return _READERS[path.suffix.lower()](path)


def rows_in_memory(rows: Sequence[Mapping[str, Any]]) -> Rows:
    """Rows that are in memory already: of a DataFrame, say."""
    cells = [{str(name): _plain(value) for name, value in row.items()} for row in rows]
    columns = tuple(dict.fromkeys(name for row in cells for name in row))
    return Rows(columns, list(_numbered(cells)))


def _plain(value: Any) -> Any:
    """A cell without the types of pandas and numpy; what they call missing is None."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    missing = isinstance(value, float) and math.isnan(value)
    return None if missing or type(value).__name__ in ("NAType", "NaTType") else value


def _jsonl(path: Path) -> Rows:
    rows: list[Row] = []
    for line, text in enumerate(_text(path).split("\n"), start=1):
        if text.strip():
            rows.append(Row(len(rows) + 1, f"line {line}", _json_row(path, line, text)))
    return Rows(tuple(dict.fromkeys(name for row in rows for name in row.cells)), rows)


def _json_row(path: Path, line: int, text: str) -> dict[str, Any]:
    try:
        cells = json.loads(text)
    except json.JSONDecodeError as error:
        raise _wrong(
            path, f"line {line}", f"not JSON: {error.msg}, column {error.colno}"
        ) from error
    except (RecursionError, ValueError) as error:
        raise _wrong(path, f"line {line}", f"not JSON: {error}") from error
    if "\\ud" in text.lower() and not _encodes(cells):
        raise _wrong(path, f"line {line}", "half a surrogate pair (\\ud800-\\udfff)")
    if not isinstance(cells, dict):
        raise _wrong(path, f"line {line}", f"expected an object {{...}}, got {text.strip()[:40]!r}")
    return cells


def _encodes(cells: Any) -> bool:
    try:
        json.dumps(cells, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _csv(path: Path) -> Rows:
    text = _text(path)
    header_line = text.split("\n", 1)[0]
    european = ";" in header_line and "," not in header_line
    return _delimited(path, text, ";" if european else ",")


def _tsv(path: Path) -> Rows:
    return _delimited(path, _text(path), "\t")


def _delimited(path: Path, text: str, delimiter: str) -> Rows:
    lines = _records(path, text, delimiter)
    _, header = next(lines, ("", []))
    columns = [name.strip() for name in header]
    _check_header(path, columns)
    rows: list[Row] = []
    for place, fields in lines:
        if len(fields) != len(columns):
            raise _wrong(path, place, f"{len(fields)} fields, but the header has {len(columns)}")
        rows.append(Row(len(rows) + 1, place, dict(zip(columns, fields, strict=True))))
    return Rows(tuple(columns), rows)


def _records(path: Path, text: str, delimiter: str) -> Iterator[tuple[str, list[str]]]:
    """(place, fields) of every line that is not blank; a quoted field may span lines."""
    reader = csv.reader(StringIO(text, newline=""), delimiter=delimiter, strict=True)
    before = 0
    try:
        for fields in reader:
            if fields:
                yield f"line {before + 1}", fields
            before = reader.line_num
    except csv.Error as error:
        raise _wrong(path, f"line {before + 1}", str(error)) from error


def _check_header(path: Path, columns: Sequence[str]) -> None:
    twice = [name for name in columns if columns.count(name) > 1]
    if twice:
        raise _wrong(path, "header", f"the column {twice[0]!r} appears twice")


def _parquet(path: Path) -> Rows:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(path).read()
    except (pa.ArrowException, OSError) as error:
        raise _wrong(path, "", f"not a Parquet file ({error})") from error
    columns = tuple(str(name) for name in table.column_names)
    _check_header(path, columns)
    return Rows(columns, list(_numbered(table.to_pylist())))


def _numbered(cells: Iterable[dict[str, Any]]) -> Iterator[Row]:
    for number, row in enumerate(cells, start=1):
        yield Row(number, f"row {number}", row)


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ManifestError(
            f"{path}, line {line}: not UTF-8 text.", subject=str(path), hint="Save it as UTF-8."
        ) from error
    except OSError as error:
        raise _wrong(path, "", f"cannot be read: {error.strerror}") from error


def _wrong(path: Path, place: str, what: str) -> ManifestError:
    where = f"{path}, {place}" if place else str(path)
    return ManifestError(f"{where}: {what}.", subject=where, hint="Correct the file.")


_READERS = {
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".csv": _csv,
    ".tsv": _tsv,
    ".parquet": _parquet,
}
SUFFIXES = frozenset(_READERS)
"""Suffixes of the tables that can be read, in lower case."""
