"""The numbers of a result, by names that loggers group by their slashes."""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vlmlens.results import Cell, Result, Table

AT_MOST = 1000
"""Numbers of one result that are told; findings come first."""


def numbers(result: Result) -> dict[str, float]:
    """What a logger can draw of a result.

    Of findings, the values; of tables, the cells, unless a row is about one sample. Infinite and
    missing numbers are left out, and what comes after the first thousand.

    Returns:
        `ANALYSIS/SUBJECT/VALUE` and `ANALYSIS/TABLE/WHAT THE ROW IS ABOUT/COLUMN` by number.
    """
    found: dict[str, float] = {}
    for name, cell in _cells(result):
        if isinstance(cell, int | float) and isfinite(cell) and len(found) < AT_MOST:
            found.setdefault(f"{result.analysis}/{name}", float(cell))
    return found


def _cells(result: Result) -> Iterator[tuple[str, Cell]]:
    for finding in result.findings:
        for name, value in finding.values.items():
            yield _joined(finding.subject, name), value
    for table in result.tables:
        if "sample" not in table.columns:
            yield from _of_table(table)


def _of_table(table: Table) -> Iterator[tuple[str, Cell]]:
    about = [i for i, header in enumerate(table.columns) if header in table.about]
    for row in table.rows():
        subject = [row[i] for i in about]
        for i, header in enumerate(table.columns):
            if i not in about:
                yield _joined(table.name, *subject, header), row[i]


def _joined(*parts: Cell) -> str:
    return "/".join(str(part).replace("/", ":") for part in parts if part not in (None, ""))
