"""An engine that runs leases in this process, and an observer that keeps what it is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vlmlens.abc.engine import Engine, Work


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


class Here(Engine):
    """Runs leases in this process, in an order of its own."""

    def __init__(self, order: Callable[[list[str]], list[str]] = lambda names: names) -> None:
        super().__init__(self.Options())
        self.order = order
        self.ran: list[str] = []

    def run(self, work: Work) -> None:
        from vlmlens.runner import begin_worker

        run_lease = begin_worker(work.order)
        for name in self.order(work.open()):
            self.ran.append(name)
            self.one(work, name, run_lease)

    def one(self, work: Work, name: str, run_lease: Any) -> None:
        assert work.finish(name, run_lease(work.take(name), lambda done: work.advance(name, done)))
