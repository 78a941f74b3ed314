"""Results in the terminal: findings first, then small tables; figures are named only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vlmlens.report._text import clean, cut, one_line, plural, show, width
from vlmlens.report._theme import verdict_look
from vlmlens.report.files import file_names
from vlmlens.results import Finding, Result, Table, Verdict

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_SMALL = 14
_SHOWN = 8
_CELL = 36


def print_results(results: Sequence[Result], console: Console) -> None:
    """Print results. Text from data is never read as rich markup or as escape codes.

    Args:
        results: In the order in which they are shown.
        console: Where to; its width decides how many columns of a table are shown.
    """
    for result in results:
        _print_findings(result, console)
    for result in results:
        _print_details(result, console)


def _print_findings(result: Result, console: Console) -> None:
    _heading(result.title, console)
    if not result.findings:
        console.print(_text("nothing to report", "dim"))
    if result.findings:
        longest = max(len(finding.verdict) for finding in result.findings)
        console.print(_findings_grid(result.findings, longest + 2))
    for warning in result.warnings:
        console.print(_text(f"! {clean(warning)}", "yellow"))


def _findings_grid(found: Sequence[Finding], chip: int) -> object:
    from rich.table import Table as Grid

    grid = Grid.grid(padding=(0, 2, 0, 0))
    grid.add_column(width=chip, no_wrap=True)
    grid.add_column()
    for finding in found:
        grid.add_row(_chip(finding.verdict), _text(clean(finding.text)))
    return grid


def _print_details(result: Result, console: Console) -> None:
    if not result.tables and not result.figures:
        return
    _heading(f"{one_line(result.title)}: numbers", console)
    files = file_names(result, result.tables, "parquet")
    for table, file in zip(result.tables, files, strict=True):
        _print_table(table, file, console)
    names = file_names(result, result.figures, "svg")
    for figure, name in zip(result.figures, names, strict=True):
        console.print(_text(f"Figure {name}: {one_line(figure.title)}", "dim"))


def _print_table(table: Table, file: str, console: Console) -> None:
    from rich.table import Table as Drawn

    rows = table.rows()
    shown = rows if len(rows) <= _SMALL else rows[:_SHOWN]
    texts = [[cut(show(cell), _CELL) for cell in row] for row in shown]
    count = _columns_that_fit(list(table.columns), texts, console.width)
    drawn = Drawn(title=_text(one_line(table.title), "bold"), title_justify="left", box=None)
    for index, name in enumerate(list(table.columns)[:count]):
        numeric = all(isinstance(row[index], int | float | None) for row in shown)
        drawn.add_column(_text(one_line(name), "dim"), justify="right" if numeric else "left")
    for row in texts:
        drawn.add_row(*(_text(cell) for cell in row[:count]))
    console.print(drawn)
    _print_left_out(len(rows) - len(shown), len(table.columns) - count, file, console)


def _columns_that_fit(names: Sequence[str], texts: Sequence[Sequence[str]], room: int) -> int:
    used = 0
    for index, name in enumerate(names):
        cells = [one_line(name), *(row[index] for row in texts)]
        used += max(round(width(cell, 1 / 0.54)) for cell in cells) + 2
        if used > room and index > 0:
            return index
    return len(names)


def _print_left_out(rows: int, columns: int, file: str, console: Console) -> None:
    parts = [plural(n, noun) for n, noun in ((rows, "row"), (columns, "column")) if n > 0]
    if parts:
        console.print(_text(f"  … {' and '.join(parts)} more in {file}", "dim"))
    console.print()


def _heading(title: str, console: Console) -> None:
    console.print()
    console.print(_text(one_line(title), "bold underline"))


def _chip(verdict: Verdict) -> Text:
    symbol, _, style = verdict_look(verdict)
    return _text(f"{symbol} {verdict.value}", style)


def _text(content: str, style: str = "") -> Text:
    from rich.text import Text

    return Text(content, style=style)
