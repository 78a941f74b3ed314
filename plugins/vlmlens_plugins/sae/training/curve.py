"""The loss over a training, in few points."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

_POINTS = 200


class Curve:
    """Means of the loss over equal stretches.

    Args:
        steps: How many steps there are.
    """

    def __init__(self, steps: int) -> None:
        self._each, self._steps = math.ceil(steps / _POINTS), steps
        self._found: list[tuple[int, float]] = []
        self._open: list[float] = []
        self._done = 0

    def add(self, loss: float) -> None:
        """That of the next step."""
        self._done += 1
        self._open.append(loss)
        if len(self._open) == self._each or self._done == self._steps:
            self._found.append((self._done, math.fsum(self._open) / len(self._open)))
            self._open = []

    def points(self, batch: int, factor: float) -> tuple[tuple[int, float], ...]:
        """(rows, loss times a factor)."""
        return tuple((step * batch, loss * factor) for step, loss in self._found)

    def state(self) -> Mapping[str, Any]:
        """What `restore` takes."""
        return {"found": self._found, "open": self._open, "done": self._done}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self._found = [(step, loss) for step, loss in state["found"]]
        self._open, self._done = list(state["open"]), state["done"]
