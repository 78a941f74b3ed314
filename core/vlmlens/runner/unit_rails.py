"""What runs the units of an analysis: what is known is read, the rest is computed and kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from vlmlens._display import count
from vlmlens.abc.model_work import JSON, ModelWork, WorkUnit, keys_of
from vlmlens.abc.unit_batches import Gathered, cut, left_over
from vlmlens.extraction.eta import Pace
from vlmlens.runner.spread_units import SpreadUnits, Take, described
from vlmlens.runner.unit_leases import UnitLease, leases_of, run_lease
from vlmlens.runner.unit_worker import said_of
from vlmlens.runs.unit_results import UnitResults, unit_results

if TYPE_CHECKING:
    from vlmlens.abc.analysis import Progress
    from vlmlens.runner.stages import Job

_LONG = 10.0
_UNITS = 256

_LEAST_LEASES = 16

Batches = Sequence[Sequence[int]]
"""The numbers of the units of each batch."""


class UnitRails:
    """Runs the units of one analysis of a run.

    Args:
        job: The run, its model, and who is told.
        name: The analysis, for messages.
        batch_size: The most units of a batch.
    """

    def __init__(self, job: Job, name: str, batch_size: int) -> None:
        self._job = job
        self._name = name
        self._batch_size = batch_size

    def __call__(
        self, work: ModelWork, units: Sequence[WorkUnit], progress: Progress
    ) -> list[JSON]:
        """See `AnalysisContext.run_units`."""
        self._job.units += len(units)
        engine = self._job.engine
        model = described(self._job) if engine else {}
        if not model:
            vlm, spec = self._job.model(), self._job.run.spec
            model = said_of(vlm.describe(), type(vlm), spec)
        keys = keys_of(work, units, model)
        batches = cut(units, keys, self._batch_size)
        with unit_results(self._job.run.path) as kept:
            known = {} if kept is None else self._read(kept, keys)
            todo = left_over(batches, keys, known)
            self._tell(todo, len(known))
            keep = (lambda new: None) if kept is None else kept.add
            gathered = Gathered(keys, known, keep=keep, progress=progress)
            leases = leases_of([[units[i] for i in batch] for batch in todo], _lease_size(todo))
            rest = iter(todo)
            handed = [(lease, _taking(gathered, rest, len(lease.batches))) for lease in leases]
            if engine is None:
                self._run_here(work, handed)
            elif handed:
                engine.run(SpreadUnits(self._job, work, model, handed))
            return gathered.all()

    def known(self, work: ModelWork, units: Sequence[WorkUnit]) -> list[JSON] | None:
        """See `AnalysisContext.known_units`."""
        model = described(self._job)
        if not model:
            return None
        keys = keys_of(work, units, model)
        with unit_results(self._job.run.path) as kept:
            found = {} if kept is None else self._read(kept, keys)
        if len(found) < len(set(keys)):
            return None
        self._job.units += len(units)
        self._tell((), len(found))
        return [found[key] for key in keys]

    def _run_here(self, work: ModelWork, handed: Sequence[tuple[UnitLease, Take]]) -> None:
        """Run leases in this process."""
        pace = Pace([len(batch) for lease, _ in handed for batch in lease.batches])
        for lease, take in handed:
            for results in run_lease(self._job.model(), work, lease, self._job.warn):
                take([results])
                self._tell_rest(pace)

    def _read(self, kept: UnitResults, keys: Iterable[bytes]) -> dict[bytes, JSON]:
        known = kept.read(keys)
        if kept.foreign:
            self._job.warn(
                f"{count(kept.foreign, 'result')} of the model's work in the run's folder were "
                "not made by you on this machine. They are not used, and computed again."
            )
        return known

    def _tell(self, todo: Sequence[Sequence[int]], known: int) -> None:
        """Say what the work will cost."""
        left, batches = sum(map(len, todo)), len(todo)
        several = "batch" if batches == 1 else "batches"
        cost = f"{count(left, 'unit')} of model work in {batches:,} {several}"
        if not left:
            cost = "no model work is left"
        done = f"; {count(known, 'result')} from before" if known else ""
        self._job.watch.observer.note(f"{self._name}: {cost}{done}.")

    def _tell_rest(self, pace: Pace) -> None:
        """Say after the first batches how long the others take, if it is long."""
        was_known = pace.known
        pace.batch_done()
        expected = pace.remaining() if pace.known and not was_known else None
        if expected is not None and expected.high >= _LONG:
            self._job.watch.observer.note(f"The rest of {self._name} takes {expected}.")


def _lease_size(todo: Batches) -> int:
    """About how many units a lease has. It does not depend on the number of workers."""
    return min(_UNITS, -(-sum(map(len, todo)) // _LEAST_LEASES))


def _taking(gathered: Gathered, rest: Iterator[Sequence[int]], batches: int) -> Take:
    """A function that keeps the results of a lease, which has so many of the batches."""
    numbers = iter([next(rest) for _ in range(batches)])

    def take(results: list[list[JSON]]) -> None:
        for found in results:
            gathered.take(next(numbers), found)

    return take
