"""The first sheet of an Excel file as rows."""

from __future__ import annotations

import warnings
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vlmlens.errors import MissingDependency

MOST_BYTES = 2 << 30
"""More than this unpacked is taken for an attack."""

DAMAGED = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    SyntaxError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What openpyxl raises for a file that is none of Excel's."""


def excel_cells(path: Path) -> tuple[list[tuple[int, dict[str, Any]]], list[str]]:
    """(line, cells) of the first sheet, whose first row names the columns; and notes.

    Raises:
        MissingDependency: openpyxl is not installed.
        ValueError, and others of `DAMAGED`: It is no file of Excel.
    """
    try:
        import openpyxl
    except ImportError as error:
        raise MissingDependency(
            "Excel files need the package openpyxl, not installed in this environment.",
            subject="openpyxl",
            hint="pip install 'vlmlens[excel]', or save the table as CSV.",
        ) from error
    with zipfile.ZipFile(path) as archive:
        if sum(item.file_size for item in archive.infolist()) > MOST_BYTES:
            raise ValueError("more than 2 GiB unpacked")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        try:
            sheets = book.worksheets
            rows = list(_rows(sheets[0].iter_rows(values_only=True)))
        finally:
            book.close()
    several = f"only the first of {len(sheets)} sheets is read: {sheets[0].title!r}"
    return rows, [several] if len(sheets) > 1 else []


def _rows(lines: Iterator[tuple[Any, ...]]) -> Iterator[tuple[int, dict[str, Any]]]:
    header: list[str] = []
    for line, values in enumerate(lines, start=1):
        if all(value is None for value in values):
            continue
        if not header:
            header = [f"column {i}" if v is None else str(v).strip() for i, v in enumerate(values)]
            twice = [name for name in header if header.count(name) > 1]
            if twice:
                raise ValueError(f"the column {twice[0]!r} appears twice")
            continue
        cells = dict(zip(header, values, strict=False))
        yield line, {k: v for k, v in cells.items() if v is not None or not k.startswith("column ")}
