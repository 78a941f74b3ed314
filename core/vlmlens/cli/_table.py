"""Tables that fit the screen, without rich: importing it takes longer than listing plugins."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Iterable, Sequence
from shutil import get_terminal_size

import typer

from vlmlens._clean import clean
from vlmlens.cli._output import PIPE_WIDTH

_GAP = "  "
_LAST = 24
"""The least width of the last column; its cells are wrapped."""


def plain_table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str | None:
    """The text of a table; None if it does not fit the screen.

    >>> print(plain_table(["kind", "name"], [["adapter", "demo"]]))
    kind     name
    adapter  demo
    """
    lines = [list(headers), *([clean(cell) for cell in row] for row in rows)]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    room = _screen() - sum(widths[:-1]) - len(_GAP) * (len(widths) - 1)
    if room < min(_LAST, widths[-1]):
        return None
    text = [line for cells in lines for line in _folded(cells, widths[:-1], room)]
    return "\n".join([typer.style(text[0], bold=True) if _coloured() else text[0], *text[1:]])


def _folded(cells: Sequence[str], widths: Sequence[int], room: int) -> Iterable[str]:
    last = textwrap.wrap(cells[-1], room) or [""]
    begin = _GAP.join(cell.ljust(width) for cell, width in zip(cells[:-1], widths, strict=True))
    yield f"{begin}{_GAP}{last[0]}".rstrip()
    for more in last[1:]:
        yield f"{' ' * len(begin)}{_GAP}{more}"


def _screen() -> int:
    if sys.stdout.isatty() or "COLUMNS" in os.environ:
        return get_terminal_size().columns
    return PIPE_WIDTH


def _coloured() -> bool:
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ
