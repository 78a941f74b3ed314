"""How long an extraction will take, told from its first batches."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from vlmlens.compose.estimate import Expectation

if TYPE_CHECKING:
    pass

_MEASURED = 4
_LEAST = 0.1


class Pace:
    """Seconds per unit of work, from batch to batch.

    The first batch is not counted: memory is still being claimed, and the queues are empty.

    Args:
        work: Of each batch to come, in any unit: tokens, say.
        clock: Gives seconds.
    """

    def __init__(self, work: Sequence[float], clock: Callable[[], float] = time.perf_counter):
        self._work = list(work)
        self._clock = clock
        self._done = 0
        self._ends: list[float] = []

    def batch_done(self) -> None:
        """A batch is done, the next of those to come."""
        self._ends.append(self._clock())
        self._done += 1

    @property
    def known(self) -> bool:
        """Whether enough batches are done to tell."""
        return self._done > _MEASURED

    def remaining(self) -> Expectation | None:
        """What the batches to come will take; None while that cannot be told."""
        return self.expected(sum(self._work[self._done :]))

    def expected(self, work: float) -> Expectation | None:
        """What so much work takes; None while that cannot be told."""
        measured = self._work[1 : self._done]
        if len(measured) < 2 or not sum(measured):
            return None
        seconds = [
            after - before for before, after in zip(self._ends, self._ends[1:], strict=False)
        ]
        rate = sum(seconds) / sum(measured)
        rates = [spent / done for spent, done in zip(seconds, measured, strict=True)]
        spread = 2 * statistics.stdev(rates) / math.sqrt(len(rates)) / rate if rate else 0.0
        spread = max(spread, _LEAST)
        return Expectation(
            work * rate * max(0.0, 1 - spread), work * rate * (1 + spread), len(measured)
        )
