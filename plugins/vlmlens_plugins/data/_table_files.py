"""Reading tables: JSON, CSV, TSV, Parquet and Excel files as rows that know their place."""

from __future__ import annotations

import csv
import gzip
import json
import math
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any, overload

from vlmlens.errors import ManifestError
from vlmlens_plugins.data._embedded import taken_out
from vlmlens_plugins.data._excel import DAMAGED, excel_cells
from vlmlens_plugins.data._json_rows import NoRowsError, conversed, rows_in

_MOST_TEXT = 2 << 30
_LONGEST_FIELD = 2**31 - 1
_ROWS_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its number from 1, where it stands ("line 3"), and its cells by column."""

    number: int
    place: str
    cells: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rows:
    """A table's column names, in order of appearance, its rows, and what to tell about them."""

    columns: tuple[str, ...]
    rows: Sequence[Row]
    notes: Sequence[str] = ()


class _Lines(Sequence[Row]):
    """The rows of JSON lines, each parsed when it is asked for."""

    def __init__(self, path: Path, data: bytes) -> None:
        self._path = path
        self._data = data
        self._lines = array("Q")
        self._starts = array("Q")
        start = 0
        for number, line in enumerate(BytesIO(data), start=1):
            if line.strip():
                self._lines.append(number)
                self._starts.append(start)
            start += len(line)

    def __len__(self) -> int:
        return len(self._lines)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        start, line = self._starts[place], self._lines[place]
        end = self._data.find(b"\n", start)
        text = self._data[start : end if end >= 0 else len(self._data)].decode()
        return Row(place + 1, f"line {line}", _json_row(self._path, line, text))


def kind_of(path: Path) -> str:
    """The suffix that says how a table is written: `.csv` of `x.CSV.gz`."""
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() if suffix == ".gz" else suffix


def read_rows(path: Path, wanted: str | None = None) -> Rows:
    """All rows of a table; images inside it are written to the cache.

    Args:
        path: Of the table.
        wanted: The name of the list that holds the rows in a JSON object.

    Raises:
        ManifestError: It is no table of its suffix's kind; names the line.
    """
    kind = kind_of(path)
    rows = _json(path, wanted) if kind == ".json" else _READERS[kind](path)
    return _with_conversations(rows)


def rows_in_memory(rows: Sequence[Mapping[str, Any]]) -> Rows:
    """Rows that are in memory already: of a DataFrame, say."""
    cells = [{str(name): _plain(value) for name, value in row.items()} for row in rows]
    return _with_conversations(Rows(_columns(cells), list(_numbered(cells))))


def _with_conversations(rows: Rows) -> Rows:
    if not {"conversations", "messages", "conversation"} & set(rows.columns):
        return rows
    cells, more = conversed(row.cells for row in rows.rows)
    made = [
        Row(row.number, row.place, {name: taken_out(value) for name, value in each.items()})
        for row, each in zip(rows.rows, cells, strict=True)
    ]
    note = f"{more} of {len(made)} conversations go on after the first answer: only it is used"
    return Rows(_columns(cells), made, [*rows.notes, *([note] if more else [])])


def _plain(value: Any) -> Any:
    """A cell without the types of pandas and numpy; what they call missing is None."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    missing = isinstance(value, float) and math.isnan(value)
    return None if missing or type(value).__name__ in ("NAType", "NaTType") else taken_out(value)


def _columns(cells: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for row in cells for name in row))


def _jsonl(path: Path) -> Rows:
    return _json_lines(path, _text(path))


def _json_lines(path: Path, text: str) -> Rows:
    lines = _Lines(path, text.encode())
    return Rows(_columns(row.cells for row in lines), lines)


def _json_row(path: Path, line: int, text: str) -> dict[str, Any]:
    cells = _parsed(path, f"line {line}", text)
    if not isinstance(cells, dict):
        raise _wrong(path, f"line {line}", f"expected an object {{...}}, got {text.strip()[:40]!r}")
    return {name: taken_out(value) for name, value in cells.items()}


def _json(path: Path, wanted: str | None) -> Rows:
    """A JSON document, or JSON lines in a file called `.json`."""
    text = _text(path)
    first = text.lstrip().split("\n", 1)
    if len(first) == 2 and first[1].strip() and _is_object(first[0]):
        return _json_lines(path, text)
    document = _parsed(path, "", text)
    try:
        cells, notes = rows_in(document, wanted)
    except (NoRowsError, RecursionError) as error:
        raise _wrong(path, "", str(error)) from error
    rows = [{name: taken_out(value) for name, value in row.items()} for row in cells]
    placed = [Row(i, f"item {i}", row) for i, row in enumerate(rows, start=1)]
    return Rows(_columns(rows), placed, notes)


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _parsed(path: Path, place: str, text: str) -> Any:
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        at = f"{place}" or f"line {error.lineno}"
        raise _wrong(path, at, f"not JSON: {error.msg}, column {error.colno}") from error
    except (RecursionError, ValueError) as error:
        raise _wrong(path, place, f"not JSON: {error}") from error
    if "\\ud" in text.lower() and not _encodes(found):
        raise _wrong(path, place, "half a surrogate pair (\\ud800-\\udfff)")
    return found


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
        cells = dict(zip(columns, map(taken_out, fields), strict=True))
        rows.append(Row(len(rows) + 1, place, cells))
    return Rows(tuple(columns), rows)


def _records(path: Path, text: str, delimiter: str) -> Iterator[tuple[str, list[str]]]:
    """(place, fields) of every line that is not blank; a quoted field may span lines."""
    csv.field_size_limit(_LONGEST_FIELD)
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
        file = pq.ParquetFile(path)
        columns = tuple(str(name) for name in file.schema_arrow.names)
        _check_header(path, columns)
        cells = [
            {name: taken_out(value) for name, value in row.items()}
            for batch in file.iter_batches(_ROWS_AT_ONCE)
            for row in batch.to_pylist()
        ]
    except (pa.ArrowException, OSError) as error:
        raise _wrong(path, "", f"not a Parquet file ({error})") from error
    return Rows(columns, list(_numbered(cells)))


def _excel(path: Path) -> Rows:
    try:
        lines, notes = excel_cells(path)
    except DAMAGED as error:
        raise _wrong(path, "", f"not an Excel file ({error})") from error
    rows = [Row(i, f"line {line}", cells) for i, (line, cells) in enumerate(lines, start=1)]
    return Rows(_columns(row.cells for row in rows), rows, notes)


def _numbered(cells: Iterable[dict[str, Any]]) -> Iterator[Row]:
    for number, row in enumerate(cells, start=1):
        yield Row(number, f"row {number}", row)


def _text(path: Path) -> str:
    try:
        return _bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ManifestError(
            f"{path}, line {line}: not UTF-8 text.", subject=str(path), hint="Save it as UTF-8."
        ) from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise _wrong(path, "", f"not a whole gzip file ({error})") from error
    except OSError as error:
        raise _wrong(path, "", f"cannot be read: {error.strerror}") from error


def _bytes(path: Path) -> bytes:
    if path.suffix.lower() != ".gz":
        return path.read_bytes()
    with gzip.open(path) as file:
        data = file.read(_MOST_TEXT + 1)
    if len(data) > _MOST_TEXT:
        raise _wrong(path, "", "more than 2 GiB unpacked")
    return data


def _wrong(path: Path, place: str, what: str) -> ManifestError:
    where = f"{path}, {place}" if place else str(path)
    return ManifestError(f"{where}: {what}.", subject=where, hint="Correct the file.")


_READERS: Mapping[str, Callable[[Path], Rows]] = {
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".csv": _csv,
    ".tsv": _tsv,
    ".parquet": _parquet,
    ".xlsx": _excel,
    ".xlsm": _excel,
}
KINDS = frozenset({*_READERS, ".json"})
"""Suffixes of the tables that can be read, in lower case."""
PACKED = frozenset({".jsonl", ".ndjson", ".json", ".csv", ".tsv"})
"""Those that are read with a further `.gz`, too."""


def is_table(path: Path) -> bool:
    """Whether a path has the name of a table."""
    packed = path.suffix.lower() == ".gz"
    return kind_of(path) in (PACKED if packed else KINDS)
