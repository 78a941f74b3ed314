"""An observer that keeps what it is told."""

from __future__ import annotations

from typing import Any


class Silent:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.done = 0

    def stage(self, name: str, total: int | None) -> None:
        del name, total

    def advance(self, done: int) -> None:
        self.done = done

    def note(self, message: str) -> None:
        self.said.append(message)

    warn = note

    def result(self, result: Any) -> None:
        del result
