"""Results in the terminal: the answer in a grid; findings and tables where they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vlmlens._clean import clean
from vlmlens.report._features import feature_lines
from vlmlens.report._graph import graph_lines
from vlmlens.report._grid import grid, legend
from vlmlens.report._shades import shades
from vlmlens.report._text import cut, one_line, plural, show, width
from vlmlens.report._theme import verdict_look
from vlmlens.report.files import file_names
from vlmlens.report.overview import overview_of
from vlmlens.results import Finding, Glance, Result, Table, Verdict

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_ROWS = 12
_NOTABLE = 4
_SMALL = 14
_SHOWN = 8
_CELL = 36


def print_summary(
    results: Sequence[Result], console: Console, *, title: str = "", rows: int = _ROWS
) -> None:
    """Print the answer: a row per task and a column per question, then what is notable.

    Analyses that give no answers per task show their findings instead, a line each.

    Args:
        results: In the order in which they are shown.
        console: Where to; its width decides what is cut.
        title: What was run, as the first line.
        rows: How many tasks are shown at most, and how many findings of the other analyses.
    """
    overview = overview_of(results, title)
    if title:
        console.print(_text(one_line(title), "bold"))
    if overview.overview:
        _print_grid(overview.overview, console, rows)
    others = [result for result in results if not result.overview]
    for result in others:
        _print_lines(result, console, max(rows // len(others), 1))
    _print_notable(overview.findings, console)
    _print_warnings([warning for result in results for warning in result.warnings], console)


def print_answers(result: Result, console: Console, *, rows: int = _ROWS) -> None:
    """Print the cells of a result, a row per task and a column per question; nothing without any.

    Args:
        result: Whose.
        console: Where to.
        rows: How many tasks are shown at most.
    """
    if result.overview:
        _print_grid(result.overview, console, rows)


def print_findings(results: Sequence[Result], console: Console) -> None:
    """Print all findings and warnings. Text from data is never read as markup or escape codes."""
    for result in results:
        _print_findings(result, console)


def print_maps(result: Result, console: Console) -> None:
    """Print maps of patches (first sample, layer with the highest values), graphs and features."""
    drawn = {"patches": shades, "graph": graph_lines, "features": feature_lines}
    for figure in result.figures:
        for line in drawn[figure.kind](figure) if figure.kind in drawn else ():
            console.print(_text(line), no_wrap=True, crop=False)


def print_results(results: Sequence[Result], console: Console) -> None:
    """Print all findings, then all tables.

    Args:
        results: In the order in which they are shown.
        console: Where to; its width decides how many columns of a table are shown.
    """
    print_findings(results, console)
    print_tables(results, console)


def print_tables(results: Sequence[Result], console: Console, *, rows: int = _SMALL) -> None:
    """Print tables, and name the figures.

    Args:
        results: Whose.
        console: Where to; its width decides how many columns are shown.
        rows: A longer table is cut, and says where the rest is.
    """
    for result in results:
        _print_details(result, console, rows)


def _print_grid(cells: Sequence[Glance], console: Console, rows: int) -> None:
    subjects = list(dict.fromkeys(cell.subject for cell in cells))
    shown = [cell for cell in cells if cell.subject in subjects[:rows]]
    for line in grid(shown, console.width):
        console.print(line, no_wrap=True, crop=False)
    if len(subjects) > rows:
        console.print(_text(f"… and {len(subjects) - rows} more", "dim"))
    if marks := legend(shown):
        console.print(_text(marks, "dim"))


def _print_lines(result: Result, console: Console, lines: int) -> None:
    """The findings of an analysis that has no cells in the grid, a line each."""
    console.print(_text(one_line(result.title), "bold"))
    for finding in result.findings[:lines]:
        symbol, _, style = verdict_look(finding.verdict)
        line = _marked((f"{symbol} ", style), one_line(finding.text))
        console.print(line, no_wrap=True, overflow="ellipsis")
    if len(result.findings) > lines:
        console.print(_text(f"… and {len(result.findings) - lines} more", "dim"))
    if not result.findings:
        console.print(_text("nothing to report", "dim"))


def _print_notable(findings: Sequence[Finding], console: Console) -> None:
    for finding in findings[:_NOTABLE]:
        console.print(_marked(("Notable: ", "bold"), clean(finding.text)))
    if len(findings) > _NOTABLE:
        console.print(_text(f"… and {len(findings) - _NOTABLE} more", "dim"))


def _print_warnings(warnings: Sequence[str], console: Console) -> None:
    """Print each warning once: results with other options may warn of the same."""
    for warning in dict.fromkeys(warnings):
        console.print(_text(f"! {clean(warning)}", "yellow"))


def _print_findings(result: Result, console: Console) -> None:
    _heading(result.title, console)
    if not result.findings:
        console.print(_text("nothing to report", "dim"))
    if result.findings:
        longest = max(len(finding.verdict) for finding in result.findings)
        console.print(_findings_grid(result.findings, longest + 2))
    _print_warnings(result.warnings, console)


def _findings_grid(found: Sequence[Finding], chip: int) -> object:
    from rich.table import Table as Grid

    grid = Grid.grid(padding=(0, 2, 0, 0))
    grid.add_column(width=chip, no_wrap=True)
    grid.add_column()
    for finding in found:
        grid.add_row(_chip(finding.verdict), _text(clean(finding.text)))
    return grid


def _print_details(result: Result, console: Console, rows: int) -> None:
    if not result.tables and not result.figures:
        return
    _heading(f"{one_line(result.title)}: numbers", console)
    files = file_names(result, result.tables, "parquet")
    for table, file in zip(result.tables, files, strict=True):
        _print_table(table, file, console, rows)
    names = file_names(result, result.figures, "svg")
    for figure, name in zip(result.figures, names, strict=True):
        console.print(_text(f"Figure {name}: {one_line(figure.title)}", "dim"))


def _print_table(table: Table, file: str, console: Console, most: int) -> None:
    from rich.table import Table as Drawn

    rows = table.rows()
    shown = rows if len(rows) <= most else rows[: max(most - _SMALL + _SHOWN, 1)]
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


def _marked(mark: tuple[str, str], content: str) -> Text:
    from rich.text import Text

    return Text.assemble(mark, content)


def _text(content: str, style: str = "") -> Text:
    from rich.text import Text

    return Text(content, style=style)
