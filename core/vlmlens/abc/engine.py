"""Engine: what hands the parts of a run's work (leases) to workers, wherever they are.

A lease is a minute or so of work, as JSON data. A worker gets the order once (which model, what to
do with it), then one lease after another, and returns a receipt for each. Whatever an engine does,
a lease counts once: the first receipt of a lease is kept, and a later one is dropped. So an engine
may hand out a lease again when a worker is lost, or when it is not known whether it is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from vlmlens.abc import options as base

Json = Mapping[str, Any]
"""Data that can be sent to another machine as JSON."""

Worker = Callable[[Json, Callable[[int], None]], dict[str, Any]]
"""Runs a lease: called with the lease and with a function to call with the samples done so far.

It returns the receipt. `vlmlens.runner.begin_worker(order)` makes one, and loads the model; in the
process that calls `Engine.run`, `Work.begin()` does.
"""


@dataclass(frozen=True, slots=True)
class Part:
    """Which of several processes this is that were started with the same command.

    Args:
        number: From 0.
        count: How many there are.
        group: What the processes have in common and other starts of the command do not; empty if
            they are started one by one, and each does its own share of the leases.
    """

    number: int
    count: int
    group: str = ""


class Work(ABC):
    """The leases of one piece of work, as an engine sees them."""

    order: Json
    """What a worker begins with."""

    @abstractmethod
    def begin(self) -> Worker:
        """A worker in this process, with the plugins that it has read. It loads the model."""

    @abstractmethod
    def names(self) -> list[str]:
        """All leases, the longest first."""

    @abstractmethod
    def open(self) -> list[str]:
        """The leases that nobody has finished yet, the longest first. It is read anew each time."""

    @abstractmethod
    def busy(self, name: str) -> bool:
        """Whether a living process is at work on a lease, as far as can be told from here."""

    @abstractmethod
    def take(self, name: str) -> Json:
        """A lease for a worker, with a place of its own: take it again for another attempt."""

    @abstractmethod
    def finish(self, name: str, receipt: Json) -> bool:
        """Keep a worker's receipt.

        Returns:
            False if another attempt at the lease was first. This attempt's rows are removed.

        Raises:
            FingerprintMismatch: Its rows were made under other conditions than those of others.
        """

    @abstractmethod
    def drop(self, name: str, lease: Json, *, gone: bool = True) -> None:
        """Remove what an attempt may have written that will not be finished.

        Args:
            name: The lease's name.
            lease: What `take` gave.
            gone: Whether its worker surely does not write any more. If not, the next start of the
                run looks again.
        """

    @abstractmethod
    def advance(self, name: str, done: int) -> None:
        """Tell how many samples of a lease are done, for the progress bar."""

    @abstractmethod
    def warn(self, message: str) -> None:
        """Tell the user something, for example that a worker was lost."""


class Engine(ABC):
    """Base class of engines.

    Args:
        options: The engine's own options.
    """

    Options: ClassVar[type[base.Options]] = base.Options

    def __init__(self, options: base.Options) -> None:
        self.options = options

    def check(self) -> None:  # noqa: B027  most engines can always run
        """Raise an error if it cannot run here, before anything heavy.

        Raises:
            CompositionError: It cannot, or its options do not fit this machine.
        """

    def check_gpus(self) -> None:  # noqa: B027  most engines give each worker its own
        """Raise an error if workers would share a GPU though nobody asked for it.

        Called after `check`, if the model is to compute on GPUs.

        Raises:
            CompositionError: They would.
        """

    def part(self) -> Part | None:
        """Which of several processes with the same command this is; None: there is only this one.

        Raises:
            SpecError: It cannot be found out.
        """
        return None

    @property
    def on_gpus(self) -> bool | None:
        """Whether workers compute on GPUs; None: on what this machine has."""
        return None

    @abstractmethod
    def run(self, work: Work) -> None:
        """Hand out leases until none is open, or until this process's share is done.

        Raises:
            RunError: Workers fail for good. What is finished is kept.
        """
