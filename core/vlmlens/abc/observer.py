"""Observer: who is told how a run goes; `vlmlens.runner.progress` has the one that draws bars."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from vlmlens.results import Result


class Observer(Protocol):
    """What the runner calls. Calls come from one thread, stage after stage."""

    def stage(self, name: str, total: int | None) -> None:
        """A stage begins, and the one before it has ended.

        Args:
            name: For people: "extract", "probe".
            total: Number of steps, where known.
        """

    def advance(self, done: int) -> None:
        """`done` steps of the stage are done, counted from its beginning."""

    def note(self, message: str) -> None:
        """Something that the user may like to know."""

    def warn(self, message: str) -> None:
        """Something that the user should know: a fallback, dropped samples."""

    def result(self, result: Result) -> None:
        """An analysis has its result."""


class SilentObserver:
    """An observer that shows nothing but warnings, which go to the log."""

    def stage(self, name: str, total: int | None) -> None:
        """Ignored."""

    def advance(self, done: int) -> None:
        """Ignored."""

    def note(self, message: str) -> None:
        """Ignored."""

    def warn(self, message: str) -> None:
        """Logged, so that it is seen."""
        import logging

        logging.getLogger("vlmlens").warning("%s", message)

    def result(self, result: Result) -> None:
        """Ignored."""
