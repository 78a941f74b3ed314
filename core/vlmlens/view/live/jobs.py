"""Jobs: questions that wait for the model, are being answered, or have been."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from threading import Event
from typing import Any, Literal

from vlmlens.view.live.question import Asked

State = Literal["waiting", "loading", "running", "done", "failed", "cancelled"]
ENDED: tuple[State, ...] = ("done", "failed", "cancelled")
PATIENCE = 60.0
"""Seconds after which a job that nobody asks about any more is cancelled."""


class Stopped(Exception):
    """The job that was being answered was cancelled."""


@dataclass(eq=False)
class Job:
    """A question on its way.

    Args:
        asked: What is asked.
        id: Names it; random.
        state: Where it is.
        done: Steps that are done, of `total`.
        result: What was found, JSON-ready.
        error: What went wrong: "message" and "hint".
    """

    asked: Asked
    id: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    state: State = "waiting"
    done: int = 0
    total: int | None = None
    result: dict[str, Any] | None = None
    error: dict[str, str] | None = None
    cancelled: Event = field(default_factory=Event)
    touched: float = field(default_factory=time.monotonic)

    @property
    def is_left(self) -> bool:
        """Whether nobody has asked about it for a while."""
        return time.monotonic() - self.touched > PATIENCE

    def touch(self) -> None:
        """Somebody asks about it."""
        self.touched = time.monotonic()

    def check(self) -> None:
        """Raise `Stopped` if the job is to end here."""
        if self.cancelled.is_set() or self.is_left:
            raise Stopped

    def step(self, done: int, total: int | None) -> None:
        """Tell how far it is; called between passes.

        Raises:
            Stopped: It is to end here.
        """
        self.done, self.total = done, total
        self.check()

    def told(self, ahead: int) -> dict[str, Any]:
        """The job as the page's script reads it."""
        said: dict[str, Any] = {"job": self.id, "state": self.state, "ahead": ahead}
        said |= {"done": self.done, "total": self.total}
        if self.result is not None:
            said["result"] = self.result
        if self.error is not None:
            said["error"] = self.error
        return said
