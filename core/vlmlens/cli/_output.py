"""Output: data on stdout (for people or as JSON), everything else on stderr."""

from __future__ import annotations

import codecs
import io
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from vlmlens._clean import UNSAFE, clean, fit_to_say

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from vlmlens.runner.progress import RichObserver

PIPE_WIDTH = 200
"""Characters per line if stdout is no terminal: then tables need not fit a narrow screen."""


_INSTEAD = {"●": "+", "◐": "~", "○": "-", "≠": "!", "≈": "=", "…": "."}


@dataclass
class Output:
    """What one command prints, and how.

    Args:
        json: Print data as one JSON document.
        quiet: Print no progress and no notes, only warnings and errors.
        debug: Print tracebacks of expected errors, too.
        resume_hint: What the user is told after Ctrl-C.
    """

    json: bool = False
    quiet: bool = False
    debug: bool = False
    resume_hint: str = ""

    def data(self, document: Any, *renderables: Any) -> None:
        """Print what the command was asked for: `document` as JSON, else `renderables`."""
        if self.json:
            typer.echo(to_json(document))
            return
        for renderable in renderables:
            if isinstance(renderable, str):
                typer.echo(clean(renderable))
            else:
                stdout().print(renderable)

    def message(self, *renderables: Any) -> None:
        """Print something on stderr, unless quiet."""
        if not self.quiet:
            for renderable in renderables:
                shown = fit_to_say(renderable) if isinstance(renderable, str) else renderable
                stderr().print(shown)

    def observer(self) -> RichObserver:
        """An observer to be used as a context manager."""
        from vlmlens.runner.progress import RichObserver

        return RichObserver(stderr(), quiet=self.quiet)


current: ContextVar[Output] = ContextVar("output")
"""The output of the running command, for printing its errors."""


def spell_out() -> None:
    """Let streams that cannot show all characters print others instead of failing."""
    codecs.register_error("vlmlens", _instead)
    for stream in (sys.stdout, sys.stderr):
        known = codecs.lookup(getattr(stream, "encoding", None) or "utf-8").name
        if isinstance(stream, io.TextIOWrapper) and known != "utf-8":
            stream.reconfigure(errors="vlmlens")


def _instead(error: UnicodeError) -> tuple[str, int]:
    """The marks of verdicts as ASCII, other characters as escapes."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lost = error.object[error.start : error.end]
    escaped = (
        _INSTEAD.get(one) or one.encode("ascii", "backslashreplace").decode() for one in lost
    )
    return "".join(escaped), error.end


def stdout() -> Console:
    """A console that prints text as it is: `[3:9]` is a selector, not markup."""
    return _console(stderr=False)


def stderr() -> Console:
    """The same on stderr."""
    return _console(stderr=True)


def table(*headers: str, title: str | None = None, rows: Iterable[Iterable[Any]]) -> Table:
    """A plain table; long cells are folded, never cut."""
    from rich.table import Table

    made = Table(
        title=title,
        title_justify="left",
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
        show_header=any(headers),
    )
    for header in headers:
        made.add_column(header, overflow="fold", header_style="bold")
    for row in rows:
        made.add_row(*("" if cell is None else clean(cell) for cell in row))
    return made


def to_json(document: Any) -> str:
    """A valid JSON document; numbers that JSON lacks (NaN, infinities) become null.

    What could steer a terminal is escaped, also where JSON would allow it.
    """
    text = json.dumps(_plain(document), indent=2, ensure_ascii=False, allow_nan=False)
    return UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value, key=str) if isinstance(value, set | frozenset) else value
        return [_plain(item) for item in items]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, Path):
        return str(value)
    to_list: Callable[[], Any] | None = getattr(value, "tolist", None)
    return _plain(to_list()) if to_list else str(value)


@cache
def _console(*, stderr: bool) -> Console:
    """A shared console: bars and messages must not overwrite each other."""
    from rich.console import Console

    console = Console(stderr=stderr, markup=False, emoji=False, highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = PIPE_WIDTH
    return console
