"""Observer: receives progress and warnings; `vlmlens.runner.progress` has one that draws bars."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from vlmlens.results import Result


class Observer(Protocol):
    """The methods that the runner calls, all from one thread, stage after stage."""

    def stage(self, name: str, total: int | None) -> None:
        """A stage begins, and the previous one has ended.

        Args:
            name: A name to show: "extract", "probe".
            total: Number of steps, if known.
        """

    def advance(self, done: int) -> None:
        """`done` steps of the stage are done so far."""

    def note(self, message: str) -> None:
        """Something that may interest the user."""

    def warn(self, message: str) -> None:
        """Something that the user should know: a fallback, dropped samples."""

    def result(self, result: Result) -> None:
        """An analysis has a result."""


class SilentObserver:
    """An observer that shows nothing, and logs warnings."""

    def stage(self, name: str, total: int | None) -> None:
        """Ignored."""

    def advance(self, done: int) -> None:
        """Ignored."""

    def note(self, message: str) -> None:
        """Ignored."""

    def warn(self, message: str) -> None:
        """Log the warning, so that it is seen."""
        import logging

        logging.getLogger("vlmlens").warning("%s", message)

    def result(self, result: Result) -> None:
        """Ignored."""
