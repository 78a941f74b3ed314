"""NotebookObserver: progress in a notebook, as one output that is drawn anew while a call runs."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from vlmlens._clean import fit_to_say
from vlmlens.report._markup import Markup, tag
from vlmlens.report._text import plural

if TYPE_CHECKING:
    from vlmlens.results import Result

_PERIOD = 0.2
"""Seconds between two drawings of a bar that moves."""
_LINES = 60
_DONE, _STOPPED, _WARNING, _NOTE = "✓", "✗", "!", "·"


def in_notebook() -> bool:
    """Whether a Jupyter kernel runs this process's code."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


@dataclass(slots=True)
class _Line:
    """A note, a warning or a stage.

    Args:
        mark: What it begins with; empty for a stage that runs.
        text: What it says.
        total: The number of steps of a stage, if known.
        done: How many are done.
        began: When it began, in seconds of `time.monotonic`; None where it is no stage.
        seconds: How long a stage took, once it has ended.
    """

    mark: str
    text: str
    total: int | None = None
    done: int = 0
    began: float | None = None
    seconds: float = 0.0

    @property
    def runs(self) -> bool:
        """Whether it is a stage that has not ended."""
        return not self.mark

    def end(self, mark: str) -> None:
        """The stage ends."""
        self.seconds = self.passed
        self.mark = mark

    @property
    def passed(self) -> float:
        """Seconds since the stage began."""
        return time.monotonic() - (self.began or 0.0) if self.runs else self.seconds

    @property
    def facts(self) -> str:
        """Steps, time, and of a stage that runs speed and time left."""
        steps = f"{self.done:,}" if self.done else ""
        if self.total:
            steps = f"{self.done:,}/{self.total:,}"
        said = [steps, _time(self.passed)]
        if self.runs and self.done and self.passed:
            speed = self.done / self.passed
            left = [f"{_time((self.total - self.done) / speed)} left"] if self.total else []
            said += [f"{speed:.1f}/s", *left]
        return ", ".join(filter(None, said))

    def plain(self) -> str:
        """The line as text."""
        if self.began is None:
            return f"{self.mark} {self.text}"
        return f"{self.mark or '…'} {self.text} ({self.facts})"

    def drawn(self) -> Markup:
        """The line as HTML."""
        if self.began is None:
            return tag("div", self.plain())
        bar = Markup("")
        if self.runs:
            share = min(self.done / self.total, 1.0) if self.total else None
            bar = tag("progress", " ", value=share, max=1, style="vertical-align:middle")
        said = f"{self.mark} {self.text} " if self.mark else f"… {self.text} "
        return tag("div", said, bar, tag("small", f" {self.facts}"))


@dataclass(slots=True)
class NotebookObserver:
    """Shows how a call goes below its cell; used as a context manager.

    There is one output, which is replaced. A saved notebook holds its last state: a line per stage.

    Args:
        handle: Shows the output: an `IPython.display.DisplayHandle`; None makes one.
    """

    handle: Any = None
    _lines: list[_Line] = field(default_factory=list)
    _shown: bool = False
    _drawn: float = 0.0
    _ended: bool = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end_stage(_DONE if error is None else _STOPPED)
        self._ended = True
        if self._shown:
            self._draw()

    def stage(self, name: str, total: int | None) -> None:
        """Begin a line with a bar; the same stage again tells its total."""
        now = self._current
        if now is not None and now.text == name:
            now.total = total
        else:
            self._end_stage(_DONE)
            self._lines.append(_Line("", name, total, began=time.monotonic()))
        self._draw()

    def advance(self, done: int) -> None:
        """Move the bar."""
        now = self._current
        if now is not None:
            now.done = done
            if time.monotonic() - self._drawn >= _PERIOD:
                self._draw()

    def note(self, message: str) -> None:
        """Add a line."""
        self._say(_NOTE, message)

    def warn(self, message: str) -> None:
        """Add a line, the same one only once."""
        self._say(_WARNING, message)

    def result(self, result: Result) -> None:
        """Nothing: the cell's value shows it."""

    @property
    def _current(self) -> _Line | None:
        return next((line for line in reversed(self._lines) if line.runs), None)

    def _say(self, mark: str, message: str) -> None:
        said = fit_to_say(message)
        if all((line.mark, line.text) != (mark, said) for line in self._lines):
            self._lines.append(_Line(mark, said))
            self._draw()

    def _end_stage(self, mark: str) -> None:
        now = self._current
        if now is not None:
            if mark == _DONE:
                now.done = now.total or now.done
            now.end(mark)

    def _draw(self) -> None:
        lines, left = self._lines[-_LINES:], len(self._lines) - _LINES
        more = [f"{plural(left, 'earlier line')} …"] if left > 0 else []
        html = tag("div", *(tag("div", line) for line in more), *self._parts(lines))
        plain = "\n".join([*more, *(line.plain() for line in lines)])
        self._drawn = time.monotonic()
        self._show({"text/html": str(html), "text/plain": plain})

    def _parts(self, lines: Sequence[_Line]) -> Iterator[Markup]:
        """The lines in order; once nothing runs, notes fold into one line at the end."""
        notes = [line for line in lines if self._ended and line.mark == _NOTE]
        yield from (line.drawn() for line in lines if line not in notes)
        if notes:
            summary = tag("summary", plural(len(notes), "note"))
            yield tag("details", summary, *(note.drawn() for note in notes))

    def _show(self, data: dict[str, str]) -> None:
        if self.handle is None:
            self.handle = import_module("IPython.display").DisplayHandle()
        (self.handle.update if self._shown else self.handle.display)(data, raw=True)
        self._shown = True


def _time(seconds: float) -> str:
    """A length of time for people.

    >>> _time(0.24), _time(59.6), _time(75), _time(7000)
    ('0.2 s', '1:00 min', '1:15 min', '1:56 h')
    """
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d} h"
