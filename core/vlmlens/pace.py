"""How long an extraction will take, told from its first batches."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlmlens.plan import Estimate, Plan

_MEASURED = 4
_LEAST = 0.1


@dataclass(frozen=True, slots=True)
class Expectation:
    """How long something will take.

    Args:
        low: Seconds, at least.
        high: Seconds, at most; both with about 95 % confidence, as far as batches are alike.
        batches: How many batches it was told from.
    """

    low: float
    high: float
    batches: int

    def __str__(self) -> str:
        low, high = duration(self.low), duration(self.high)
        if low == high:
            return f"about {high}"
        shared_unit = low.rpartition(" ")[2] == high.rpartition(" ")[2]
        return f"{low.rpartition(' ')[0] if shared_unit else low} to {high}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data."""
        return {
            "seconds_low": round(self.low, 1),
            "seconds_high": round(self.high, 1),
            "batches": self.batches,
        }


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


def timed(plan: Plan, warn: Callable[[str], None]) -> Estimate:
    """A plan's estimate with the expected time: loads the model and runs some batches.

    Args:
        plan: From `vlmlens.plan.compose`.
        warn: Told of what the run itself would warn of.
    """
    from vlmlens.extraction import Extraction

    vlm, spec = plan.load(), plan.spec
    work = Extraction(
        vlm,
        plan.extractor(vlm),
        plan.samples,
        spec.batch_size,
        spec.share_prefix,
        warn,
        generate=spec.generate,
    )
    return replace(plan.estimate, time=work.measure())


def duration(seconds: float) -> str:
    """A time span for people.

    >>> [duration(s) for s in (0.4, 42, 200, 9000, 200_000)]
    ['1 s', '42 s', '3 min', '2.5 h', '2.3 days']
    """
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 36 else f"{hours / 24:.1f} days"
