"""Tables by slice: a page holds the first rows, its script asks for others, sorted or searched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from vlmlens.report._markup import Markup, tag
from vlmlens.report._text import cut, finite, one_line, plural, scalar, show
from vlmlens.results import Cell, Table
from vlmlens.view.addresses import of_sample
from vlmlens.view.queries import whole_number

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from vlmlens.view.shown_run import ShownRun

SLICE = 50
"""Rows that are shown at a time."""
_LONGEST_CELL = 120
_MOST_COLUMNS = 1_000
_OPEN_ROWS = 12

Link: TypeAlias = Callable[[int, str], "str | None"]
"""The address that a cell leads to, by row and name of the column; None: nowhere."""


def to_samples(run: ShownRun, table: Table) -> Link:
    """Sample ids lead to the samples' pages."""
    ids = table.columns.get("sample", ())
    return lambda row, name: of_sample(run, ids[row]) if name == "sample" else None


def slice_of(request: Request, table: Table, link: Link) -> Response:
    """Rows of a table as JSON: {"rows", "count"}.

    The query: `from` (rows that are left out), `sort` (the number of a column), `down` (1: the
    largest first), `find` (rows with this in a text).

    Args:
        request: What was asked.
        table: The table.
        link: What its cells lead to.

    Raises:
        HTTPException: 404: there is no such column; 422: a number is none.
    """
    table = narrowed(table)
    start, sort = whole_number(request, "from") or 0, whole_number(request, "sort")
    if sort is not None and sort >= len(table.columns):
        raise HTTPException(404, f"The table has no column {sort}.")
    down = request.query_params.get("down") == "1"
    order = ordered(table, sort, down=down, find=request.query_params.get("find", ""))
    shown = cells(table, order[start : start + SLICE], link)
    return JSONResponse({"rows": shown, "count": len(order)})


def draw_sliced(table: Table, address: str, number: int, link: Link) -> Markup:
    """A table that opens and closes, with its first rows, and controls for the others.

    Args:
        table: The table.
        address: What answers with `slice_of` it.
        number: Tells it apart from the page's other tables.
        link: What its cells lead to.
    """
    title, columns = one_line(table.title), len(table.columns)
    table = narrowed(table)
    size = plural(len(table), "row")
    if columns > len(table.columns):
        size += f", the first {len(table.columns):,} of {columns:,} columns"
    first = cells(table, range(min(SLICE, len(table))), link)
    region = {"class_": "scroll", "tabindex": "0", "role": "region", "aria_label": title}
    many = len(table) > SLICE
    return tag(
        "details",
        tag("summary", title, " ", tag("small", size)),
        _controls(len(table)) if many else "",
        tag("div", _element(table, first), **region),
        class_="table",
        id=f"table-{number}",
        open=len(table) <= _OPEN_ROWS,
        data_rows=address if many else None,
    )


def narrowed(table: Table) -> Table:
    """A table with the first of very many columns, which no page could show."""
    if len(table.columns) <= _MOST_COLUMNS:
        return table
    kept = dict(islice(table.columns.items(), _MOST_COLUMNS))
    return Table(table.name, table.title, kept, table.keys)


def ordered(
    table: Table, sort: int | None = None, *, down: bool = False, find: str = ""
) -> Sequence[int]:
    """Numbers of rows in the order in which they are shown.

    Args:
        table: The table.
        sort: The number of the column to sort by; None: as they are.
        down: Whether the largest come first. Rows without a value come last all the same.
        find: Only rows with this in one of their texts, in whatever case.
    """
    order: Sequence[int] = range(len(table))
    if find:
        order = _found(table, find.casefold())
    if sort is None:
        return order
    column = list(table.columns.values())[sort]
    keys = [_key(value) for value in column]
    known = [i for i in order if keys[i] is not None]
    rest = [i for i in order if keys[i] is None]
    return [*sorted(known, key=keys.__getitem__, reverse=down), *rest]  # type: ignore[arg-type]


def cells(table: Table, order: Sequence[int], link: Link) -> list[list[Any]]:
    """Rows as a page shows them: per cell a text, or a text with an address."""
    read = [_read(values, order) for values in table.columns.values()]
    return [
        [
            _cell(values[i], link(row, name))
            for name, values in zip(table.columns, read, strict=True)
        ]
        for i, row in enumerate(order)
    ]


def _read(values: Sequence[Cell], order: Sequence[int]) -> Sequence[Cell]:
    """Some values of a column, which may lie in a file: in one piece, if they do there."""
    if isinstance(order, range):
        return values[order.start : order.stop]
    return [values[row] for row in order]


def _cell(value: Cell, address: str | None) -> str | list[str]:
    said = cut(show(value), _LONGEST_CELL)
    return said if address is None else [said, address]


def _element(table: Table, first: Sequence[Sequence[Any]]) -> Markup:
    looks = ["number" if _is_numeric(values[:SLICE]) else None for values in table.columns.values()]
    heads = [
        tag("th", tag("button", one_line(name), type="button"), scope="col", class_=look)
        for name, look in zip(table.columns, looks, strict=True)
    ]
    body = [tag("tr", *map(_drawn, row, looks, range(len(row)))) for row in first]
    caption = tag("caption", one_line(table.title))
    return tag("table", caption, tag("thead", tag("tr", *heads)), tag("tbody", *body))


def _drawn(cell: str | list[str], look: str | None, column: int) -> Markup:
    content = cell if isinstance(cell, str) else tag("a", cell[0], href=cell[1])
    if column == 0:
        return tag("th", content, scope="row", class_=look)
    return tag("td", content, class_=look)


def _controls(count: int) -> Markup:
    find = tag("label", tag("span", "rows with"), tag("input", type="search", data_role="find"))
    steps = [
        tag("button", name, type="button", class_="more", data_step=step, disabled=off)
        for name, step, off in (("Previous", "-1", True), ("Next", "1", False))
    ]
    place = tag("output", f"1 to {SLICE} of {count:,}", class_="count")
    return tag("div", find, *steps, place, class_="live controls pager")


def _key(value: Cell) -> tuple[int, float, str] | None:
    """What a value is sorted by: numbers before texts; None if there is none."""
    value = scalar(value)
    if value is None or value == "":
        return None
    if isinstance(value, int | float):
        number = finite(value) if abs(value) != float("inf") else value
        return None if number is None else (0, number, "")
    return (1, 0.0, str(value).casefold())


def _found(table: Table, wanted: str) -> list[int]:
    kept: set[int] = set()
    for values in table.columns.values():
        kept.update(
            i
            for i, value in enumerate(values)
            if isinstance(value, str) and wanted in value.casefold()
        )
    return sorted(kept)


def _is_numeric(values: Sequence[Cell]) -> bool:
    present = [scalar(value) for value in values if value is not None]
    return bool(present) and all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in present
    )
