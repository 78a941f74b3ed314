"""Where the time of an extraction goes: seconds inside some methods, summed over threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class Spent:
    """Seconds by what they were spent on. Parts that overlap are counted each."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def of(self, thing: Any, method: str) -> Iterator[None]:
        """Count what a method of an object takes inside."""
        setattr(thing, method, self._timed(method, getattr(thing, method)))
        try:
            yield
        finally:
            delattr(thing, method)

    def writing(self, store: Any) -> Any:
        """A store whose `write` is counted from now on."""
        store.write = self._timed("write", store.write)
        return store

    def _timed(self, name: str, run: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            begun = time.perf_counter()
            try:
                return run(*args, **kwargs)
            finally:
                spent = time.perf_counter() - begun
                self.seconds[name] = self.seconds.get(name, 0.0) + spent

        return timed
