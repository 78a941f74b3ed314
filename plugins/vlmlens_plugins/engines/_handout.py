"""Which lease is next, and what happens when a worker is lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import Field, field_validator

from vlmlens import errors
from vlmlens.abc.engine import Json, Work
from vlmlens.abc.options import Options
from vlmlens.errors import RunError, VlmlensError
from vlmlens_plugins.engines._gpus import EACH_HELP, check_each

MOST_LOSSES = 4
"""A lease whose worker is lost this many times is not tried again."""

MOST_STARTS = 3
"""A worker that is lost this many times in a row before it is ready is not started again."""


class WorkerOptions(Options):
    """Options of engines that start workers."""

    workers: str = Field("1", description="Number of workers, or MIN:MAX.")
    gpus_per_worker: float | None = Field(None, ge=0, description=f"{EACH_HELP}; default: one.")

    _each = field_validator("gpus_per_worker")(check_each)

    @field_validator("workers", mode="before")
    @classmethod
    def _range(cls, value: Any) -> str:
        text = str(value)
        least, colon, most = text.partition(":")
        parts = [least, most] if colon else [least]
        right = all(part.isdecimal() and int(part) > 0 for part in parts)
        if not right or (colon and int(least) > int(most)):
            raise ValueError(f"{text!r} is no number of workers: write 4, or 2:8")
        return text

    @property
    def least(self) -> int:
        """The number of workers to begin with."""
        return int(self.workers.partition(":")[0])

    @property
    def most(self) -> int:
        """The largest number of workers."""
        return int(self.workers.rpartition(":")[2])


@dataclass
class Taken:
    """A lease that a worker has.

    Args:
        name: Its name.
        lease: Its content.
    """

    name: str
    lease: Json


class Handout:
    """The leases of a piece of work, while workers run them.

    Args:
        work: The work.
        what: What a worker is, for messages.
    """

    def __init__(self, work: Work, what: str) -> None:
        self._work = work
        self._what = what
        self._left = work.open()[::-1]
        self._taken: dict[int, Taken] = {}
        self._losses: Counter[str] = Counter()
        self._ready: set[int] = set()
        self._failed_starts: Counter[int] = Counter()
        self._doubtful: list[Taken] = []

    @property
    def left(self) -> int:
        """The number of leases that no worker has yet."""
        return len(self._left)

    @property
    def over(self) -> bool:
        """Whether no lease is left, and no worker has one."""
        return not self._left and not self._taken

    def take(self, worker: int) -> Json | None:
        """The next lease for a worker that is ready; None if none is left."""
        self._ready.add(worker)
        self._failed_starts[worker] = 0
        if not self._left:
            return None
        name = self._left.pop()
        lease = self._work.take(name)
        self._taken[worker] = Taken(name, lease)
        return lease

    def advance(self, worker: int, done: int) -> None:
        """A worker has done this many samples of its lease."""
        if worker in self._taken:
            self._work.advance(self._taken[worker].name, done)

    def finish(self, worker: int, receipt: Json) -> None:
        """A worker has finished its lease."""
        self._work.finish(self._taken.pop(worker).name, receipt)

    def lost(self, worker: int, how: str, *, gone: bool = True) -> None:
        """A worker is lost: its lease goes to another one.

        Args:
            worker: The worker. The one that takes its place has the same number.
            how: What happened to it, as the end of a sentence and what it said.
            gone: Whether it surely does not write any more.

        Raises:
            RunError: It happened too often with the same lease, or before the worker was ready.
        """
        taken = self._taken.pop(worker, None)
        self._check_start(worker, how)
        if taken is None:
            self._work.warn(f"{self._what} {worker} was lost. It {how}")
            return
        if gone:
            self._work.drop(taken.name, taken.lease)
        else:
            self._doubtful.append(taken)
        self._work.advance(taken.name, 0)
        self._losses[taken.name] += 1
        if self._losses[taken.name] >= MOST_LOSSES:
            first = taken.lease["samples"][0]["id"]
            raise RunError(
                f"{MOST_LOSSES} workers were lost while they ran the same lease "
                f"({len(taken.lease['samples'])} samples, the first is {first!r}); the last one "
                f"{how}",
                subject=taken.name,
                hint="Fix the problem, and run the same command with --resume. If the memory was "
                "full: fewer workers, or a smaller --batch-size.",
            )
        self._left.append(taken.name)
        self._work.warn(f"{self._what} {worker} was lost; another one does its part. It {how}")

    def _check_start(self, worker: int, how: str) -> None:
        if worker in self._ready:
            self._ready.remove(worker)
            return
        self._failed_starts[worker] += 1
        if self._failed_starts[worker] >= MOST_STARTS:
            raise RunError(
                f"{self._what} {worker} was lost {MOST_STARTS} times before it was ready; at last "
                f"it {how}",
                subject=str(worker),
                hint="Fix the problem, and run the same command with --resume.",
            )

    def clear(self) -> None:
        """Remove what workers wrote of which it was not known whether they were gone."""
        for taken in self._doubtful:
            self._work.drop(taken.name, taken.lease, gone=False)


def failed(worker: object, error: Mapping[str, Any]) -> VlmlensError:
    """The error of a worker, as this process raises it.

    Args:
        worker: Its number or name.
        error: What `vlmlens.runner.worker_process.told` gives.
    """
    kind = getattr(errors, str(error["kind"]), RunError)
    right = isinstance(kind, type) and issubclass(kind, VlmlensError)
    made: VlmlensError = (kind if right else RunError)(
        f"Worker {worker}: {error['message']}",
        subject=error["subject"],
        hint=str(error["hint"]),
    )
    return made
