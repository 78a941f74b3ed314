"""Names and tables of results."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from vlmlens.results import Cell, Table


def slug(name: str) -> str:
    """A file name for anything: lower-case letters, digits, hyphens.

    >>> slug("photographer@color")
    'photographer-color'
    """
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "all"


def table(
    name: str, title: str, rows: Sequence[Mapping[str, Cell]], keys: Sequence[str] = ()
) -> Table:
    """A table from its rows, which all have the same columns."""
    headers = list(rows[0]) if rows else []
    return Table(name, title, {header: [row[header] for row in rows] for header in headers}, keys)


def joined(
    name: str, title: str, parts: Sequence[Mapping[str, Sequence[Cell]]], keys: Sequence[str] = ()
) -> Table:
    """A table from parts below each other, each by columns: many rows take little memory so."""
    headers = list(parts[0]) if parts else []
    columns = {header: [cell for part in parts for cell in part[header]] for header in headers}
    return Table(name, title, columns, keys)
