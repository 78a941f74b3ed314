"""RichObserver: progress bars on a terminal, one line per stage elsewhere.

`watched` chooses who is told; in notebooks that is `vlmlens.runner.notebook_progress`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from vlmlens._clean import clean, fit_to_say
from vlmlens.abc.observer import SilentObserver
from vlmlens.runner.notebook_progress import NotebookObserver, in_notebook

if TYPE_CHECKING:
    from rich.console import Console

    from vlmlens.abc.observer import Observer
    from vlmlens.results import Result


class RateColumn(ProgressColumn):
    """Steps per second, once there are some."""

    def render(self, task: Task) -> Text:
        """The text of one bar."""
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f}/s" if speed else "", style="progress.data.speed")


class RichObserver:
    """Shows how a run goes; used as a context manager.

    Args:
        console: On stderr.
        quiet: Show warnings only.
    """

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self._console = console
        self._quiet = quiet
        self._bars = _bars(console) if console.is_terminal and not quiet else None
        self._task: TaskID | None = None
        self._name: str | None = None
        self._warned: set[str] = set()

    def __enter__(self) -> Self:
        if self._bars:
            self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bars:
            self._end_stage(complete=error is None)
            self._bars.stop()

    def stage(self, name: str, total: int | None) -> None:
        """Begin a bar, or print the stage's line; the same stage again tells its total."""
        if self._bars and self._task is not None and name == self._name:
            self._bars.update(self._task, total=total)
        elif self._bars:
            self._end_stage(complete=True)
            self._task = self._bars.add_task(clean(name), total=total)
        elif not self._quiet and name != self._name:
            self._console.print(clean(f"{name} ({total})" if total else name))
        self._name = name

    def advance(self, done: int) -> None:
        """Move the bar."""
        if self._bars and self._task is not None:
            self._bars.update(self._task, completed=done)

    def note(self, message: str) -> None:
        """Print a line, unless quiet."""
        if not self._quiet:
            self._console.print(fit_to_say(message))

    def warn(self, message: str) -> None:
        """Print a warning; the same one only once."""
        if message not in self._warned:
            self._warned.add(message)
            self._console.print(Text.assemble(("warning: ", "bold yellow"), fit_to_say(message)))

    def result(self, result: Result) -> None:
        """Nothing: what was found is printed at the end."""

    def _end_stage(self, *, complete: bool) -> None:
        if self._bars is None or self._task is None:
            return
        task = self._bars.tasks[self._bars.task_ids.index(self._task)]
        if complete:
            total = task.total if task.total is not None else max(task.completed, 1)
            self._bars.update(self._task, total=total, completed=total)
        self._bars.stop_task(self._task)
        self._task = None


@contextmanager
def watched(observer: Observer | None, progress: bool | None) -> Iterator[Observer]:
    """Who is told how a call of the Python API goes.

    Args:
        observer: The user's own, which goes before all else.
        progress: True: bars, in a notebook below the cell, else on stderr (lines where that is no
            terminal); False: silence; None: bars in terminals and notebooks, silence elsewhere.
    """
    if observer is not None or progress is False:
        yield observer or SilentObserver()
        return
    if in_notebook():
        with NotebookObserver() as below:
            yield below
        return
    from rich.console import Console

    console = Console(stderr=True, markup=False, emoji=False, highlight=False, force_jupyter=False)
    if not (progress or console.is_terminal):
        yield SilentObserver()
        return
    with RichObserver(console) as shown:
        yield shown


def _bars(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        RateColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )
