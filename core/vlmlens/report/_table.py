"""A table of the page: sortable, scrollable, and cut where it is long."""

from __future__ import annotations

from collections.abc import Sequence

from vlmlens.report._markup import Markup, join, tag
from vlmlens.report._text import cut, finite, one_line, plural, scalar, show
from vlmlens.results import Cell, Table

_OPEN_ROWS = 12
_LONGEST_CELL = 120


def draw_table(table: Table, file: str, max_rows: int | None) -> Markup:
    """The table as an HTML element that opens and closes.

    Args:
        table: What to show.
        file: Where the complete table is, named where rows are left out.
        max_rows: Rows to show; None: all.
    """
    title = one_line(table.title)
    count = tag("small", plural(len(table), "row"))
    inner = tag("div", table_element(table, max_rows), **_region(title))
    is_open = len(table) <= _OPEN_ROWS
    summary = tag("summary", title, " ", count)
    return tag(
        "details", summary, inner, _note(table, file, max_rows), class_="table", open=is_open
    )


def table_element(table: Table, max_rows: int | None = None) -> Markup:
    """Only the `<table>`."""
    rows = table.rows()[:max_rows]
    numeric = [_is_numeric(values) for values in table.columns.values()]
    headers = [
        _header(name, is_number) for name, is_number in zip(table.columns, numeric, strict=True)
    ]
    body = [_row(row, numeric) for row in rows]
    caption = tag("caption", one_line(table.title))
    head = tag("thead", tag("tr", *headers))
    return tag("table", caption, head, tag("tbody", *body))


def _region(title: str) -> dict[str, str]:
    return {"class_": "scroll", "tabindex": "0", "role": "region", "aria_label": title}


def _note(table: Table, file: str, max_rows: int | None) -> Markup:
    if max_rows is None or len(table) <= max_rows:
        return Markup("")
    shown = f"The first {max_rows:,} of {plural(len(table), 'row')}; all of them are in "
    return tag("p", shown, tag("code", file), ".", class_="muted")


def _header(name: str, is_number: bool) -> Markup:
    button = tag("button", one_line(name), type="button")
    return tag("th", button, scope="col", class_="number" if is_number else None)


def _row(row: Sequence[Cell], numeric: Sequence[bool]) -> Markup:
    cells = [
        _cell(value, number, first=i == 0)
        for i, (value, number) in enumerate(zip(row, numeric, strict=True))
    ]
    return tag("tr", join(cells))


def _cell(value: Cell, is_number: bool, *, first: bool) -> Markup:
    shown = show(value)
    full = one_line(value) if len(shown) > _LONGEST_CELL else None
    look: dict[str, str | None] = {"class_": "number" if is_number else None, "title": full}
    if is_number and (number := finite(scalar(value))) is not None:
        look["data_v"] = f"{number:.7g}"
    if first:
        look["scope"] = "row"
    return tag("th" if first else "td", cut(shown, _LONGEST_CELL), **look)


def _is_numeric(values: Sequence[Cell]) -> bool:
    present = [scalar(value) for value in values if value is not None]
    return bool(present) and all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in present
    )
