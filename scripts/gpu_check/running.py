"""Running checks one after the other, each within its time."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from scripts.gpu_check.listing import Check
from scripts.gpu_check.outcome import Outcome
from scripts.gpu_check.worker import Worker

_LEAST = 1.0


@dataclass
class Runner:
    """Runs checks in child processes.

    Checks that need no process of their own share one, which keeps the models that it loaded. If
    one of them is killed, the next one gets a new process. It is ended before a check that needs a
    process of its own, so that the GPU's memory is free; so on a GPU, such checks come last, but
    for the first two of all, which load no model that others could use.

    Args:
        setting: See `Setting.from_json`.
        path: `PYTHONPATH` of the processes.
        limits: What the time limits of checks are multiplied by.
        total: Seconds for all checks; what has not begun by then is left for another time.
    """

    setting: Mapping[str, Any]
    path: str
    limits: float = 1.0
    total: float = math.inf
    _shared: Worker | None = field(default=None, init=False)

    def run(self, checks: Sequence[Check], done: Callable[[Outcome], None]) -> list[Check]:
        """Run checks.

        Args:
            checks: In this order, but for what the class says.
            done: Called with each outcome when it is there.

        Returns:
            The checks for which no time was left.
        """
        end = time.monotonic() + self.total
        try:
            ordered = sorted(checks, key=self._late)
            for place, check in enumerate(ordered):
                left = end - time.monotonic()
                if left < _LEAST:
                    return ordered[place:]
                done(self._outcome(check, left))
        finally:
            self._end_shared()
        return []

    def _late(self, check: Check) -> bool:
        return self._alone(check) and check.number > 1

    def _alone(self, check: Check) -> bool:
        return check.alone and self.setting["device"] == "cuda"

    def _outcome(self, check: Check, left: float) -> Outcome:
        device, shape = self.setting["device"], self.setting["shape"]
        if why := check.obstacle(device):
            return Outcome(
                check.number, check.name, "skipped", 0.0, check.expected, device, shape, why=why
            )
        alone = self._alone(check)
        worker = self._new() if alone else self._sharing()
        try:
            answer = worker.ask(check, min(check.limit * self.limits, left))
        finally:
            if alone:
                worker.kill()
        return Outcome(
            check.number, check.name, answer.outcome, answer.seconds, check.expected, device,
            shape, answer.numbers, answer.why,
        )  # fmt: skip

    def _new(self) -> Worker:
        self._end_shared()
        return Worker(self.setting, self._variables())

    def _sharing(self) -> Worker:
        if self._shared is None or not self._shared.alive:
            self._shared = self._new()
        return self._shared

    def _end_shared(self) -> None:
        if self._shared is not None:
            self._shared.kill()
            self._shared = None

    def _variables(self) -> dict[str, str]:
        """The environment of a process: this checkout, and no network."""
        fixed = {"PYTHONPATH": self.path, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
        return {**os.environ, **fixed}


def counted(outcomes: Iterable[Outcome]) -> dict[str, int]:
    """How many checks passed, failed, were skipped and were killed."""
    found = {"passed": 0, "failed": 0, "skipped": 0, "timeout": 0}
    for outcome in outcomes:
        found[outcome.outcome] += 1
    return found
