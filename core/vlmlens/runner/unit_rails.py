"""What runs the units of an analysis: what is known is read, the rest is computed and kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vlmlens._display import count
from vlmlens.abc.model_work import JSON, ModelWork, WorkUnit, code_of, keys_of
from vlmlens.abc.unit_batches import cut, left_over, results_of
from vlmlens.extraction.eta import Pace
from vlmlens.runner.unit_leases import leases_of, run_lease
from vlmlens.runs.unit_results import UnitResults, unit_results

if TYPE_CHECKING:
    from vlmlens.abc.adapter import ModelAdapter
    from vlmlens.abc.analysis import Progress
    from vlmlens.runner.stages import Job

_LONG = 10.0
_UNITS = 256

Computed = Iterator[tuple[Sequence[int], list[JSON]]]
"""Numbers of units, and their results."""


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
        vlm = self._job.model()
        compiled = {"compiled": True} if self._job.run.spec.compile else {}
        keys = keys_of(work, units, {**numbers_of(vlm), **compiled})
        batches = cut(units, keys, self._batch_size)
        with unit_results(self._job.run.path) as kept:
            known = {} if kept is None else self._read(kept, keys)
            todo = left_over(batches, keys, known)
            self._tell(todo, len(known))
            return results_of(
                units,
                keys,
                known,
                self._timed(self._computed(vlm, work, units, todo), todo),
                keep=(lambda new: None) if kept is None else kept.add,
                progress=progress,
            )

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

    def _computed(
        self,
        vlm: ModelAdapter,
        work: ModelWork,
        units: Sequence[WorkUnit],
        todo: Sequence[Sequence[int]],
    ) -> Computed:
        """The results of each batch, computed in this process."""
        numbers = iter(todo)
        for lease in leases_of([[units[i] for i in batch] for batch in todo], _UNITS):
            for results in run_lease(vlm, work, lease, self._job.warn):
                yield next(numbers), results

    def _timed(self, computed: Computed, todo: Sequence[Sequence[int]]) -> Computed:
        """The same; says after the first batches how long the others take, if it is long."""
        pace = Pace([len(batch) for batch in todo])
        for each in computed:
            yield each
            was_known = pace.known
            pace.batch_done()
            expected = pace.remaining() if pace.known and not was_known else None
            if expected is not None and expected.high >= _LONG:
                self._job.watch.observer.note(f"The rest of {self._name} takes {expected}.")


def numbers_of(vlm: ModelAdapter) -> Mapping[str, Any]:
    """What determines the numbers of a loaded model; a checkpoint with a digest may be moved.

    The adapter's code is part of it, so that whoever writes one never sees results of before.
    """
    said = vlm.describe()
    if said.get("digest"):
        said = {name: value for name, value in said.items() if name != "checkpoint"}
    return {**said, "adapter": code_of(type(vlm))}
