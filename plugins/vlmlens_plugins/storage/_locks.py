"""A gate among the threads of a process. The lock among processes is `vlmlens._locks`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Gate:
    """Many threads pass together, or one alone; newcomers let the one that waits go first."""

    def __init__(self) -> None:
        self._state = threading.Condition()
        self._inside = 0
        self._waiting = 0

    def enter(self) -> None:
        """Go in with others."""
        with self._state:
            while self._waiting:
                self._state.wait()
            self._inside += 1

    def leave(self) -> None:
        """Go out."""
        with self._state:
            self._inside -= 1
            if self._waiting:
                self._state.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until nobody is inside, and keep others out."""
        with self._state:
            self._waiting += 1
            try:
                self._state.wait_for(lambda: self._inside == 0)
                yield
            finally:
                self._waiting -= 1
                self._state.notify_all()
