"""Tables by slice: a page holds the first rows, its script asks for others, sorted or searched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from vlmlens.report._markup import Markup, join, tag
from vlmlens.report._text import cut, finite, one_line, plural, scalar, show
from vlmlens.results import Cell, Table
from vlmlens.view.addresses import of_analysis, of_sample
from vlmlens.view.viewer import run_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from vlmlens.view.shown_run import ShownRun

SLICE = 50
"""Rows that are shown at a time."""
_LONGEST_CELL = 120
_OPEN_ROWS = 12

Link = Callable[[object], "str | None"]
"""The address of a sample by its id; None if there is none."""


def rows(request: Request) -> Response:
    """A slice of a table as JSON.

    The query: `from` (rows that are left out), `sort` (the number of a column), `down` (1: the
    largest first), `find` (rows with this in a text).
    """
    run = run_of(request)
    table = _table_of(request, run)
    start, sort = _number(request, "from") or 0, _number(request, "sort")
    if sort is not None and sort >= len(table.columns):
        raise HTTPException(404, f"The table has no column {sort}.")
    down = request.query_params.get("down") == "1"
    order = ordered(table, sort, down=down, find=request.query_params.get("find", ""))
    return JSONResponse(
        {"rows": cells(table, order[start : start + SLICE], _link(run)), "count": len(order)}
    )


def draw_sliced(run: ShownRun, analysis: str, number: int, table: Table) -> Markup:
    """A table that opens and closes, with its first rows, and controls for the others.

    Args:
        run: The run.
        analysis: Whose table it is.
        number: Its place among the tables of the result.
        table: The table.
    """
    title = one_line(table.title)
    first = cells(table, range(min(SLICE, len(table))), _link(run))
    inner = tag("div", _element(table, first), class_="scroll", tabindex="0", role="region",
                aria_label=title)  # fmt: skip
    summary = tag("summary", title, " ", tag("small", plural(len(table), "row")))
    many = len(table) > SLICE
    parts = [summary, _controls(len(table)) if many else "", inner]
    address = f"{of_analysis(run, analysis)}/tables/{number}"
    return tag("details", *parts, class_="table", id=f"table-{number}", open=len(table) <= _OPEN_ROWS,
               data_rows=address if many else None)  # fmt: skip


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
    values = list(table.columns.values())[sort]
    known = [i for i in order if _key(values[i]) is not None]
    rest = [i for i in order if _key(values[i]) is None]
    return [*sorted(known, key=lambda i: _key(values[i]) or (0, 0, ""), reverse=down), *rest]


def cells(table: Table, order: Sequence[int], link: Link) -> list[list[Any]]:
    """Rows as a page shows them: per cell a text, or a text with an address."""
    columns = list(table.columns.items())
    return [[_cell(values[row], name, link) for name, values in columns] for row in order]


def _cell(value: Cell, name: str, link: Link) -> str | list[str]:
    said = cut(show(value), _LONGEST_CELL)
    address = link(value) if name == "sample" else None
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


def _link(run: ShownRun) -> Link:
    return lambda sample: of_sample(run, sample)


def _table_of(request: Request, run: ShownRun) -> Table:
    result = run.results.get(request.path_params["name"])
    number = int(request.path_params["table"])
    if result is None or number >= len(result.tables):
        raise HTTPException(404, "There is no such table.")
    return result.tables[number]


def _number(request: Request, name: str) -> int | None:
    """A number of the query; None if it is not there."""
    given = request.query_params.get(name, "")
    if not given:
        return None
    if not (given.isascii() and given.isdigit() and len(given) < 12):
        raise HTTPException(422, f"{name} = {given!r}: expected a whole number from 0.")
    return int(given)
