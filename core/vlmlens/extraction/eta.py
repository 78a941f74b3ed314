"""Estimating how long an extraction will take, from its first batches."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence

from vlmlens.compose.estimate import Expectation

_MEASURED = 4
_LEAST = 0.1


class Pace:
    """Measures seconds per unit of work, from batch to batch.

    The first batch is not counted: memory is still being allocated, and the queues are empty.

    Args:
        work: The work in each batch, in any unit, for example tokens.
        clock: Returns the time in seconds.
    """

    def __init__(self, work: Sequence[float], clock: Callable[[], float] = time.perf_counter):
        self._work = list(work)
        self._clock = clock
        self._done = 0
        self._ends: list[float] = []

    def batch_done(self) -> None:
        """Record that the next batch is done."""
        self._ends.append(self._clock())
        self._done += 1

    @property
    def known(self) -> bool:
        """Whether enough batches are done for an estimate."""
        return self._done > _MEASURED

    def remaining(self) -> Expectation | None:
        """How long the remaining batches will take; None while it is not known."""
        return self.expected(sum(self._work[self._done :]))

    def expected(self, work: float) -> Expectation | None:
        """How long this much work takes; None while it is not known."""
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
        return Expectation(work * rate / (1 + spread), work * rate * (1 + spread), len(measured))
