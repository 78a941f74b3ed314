"""Units of an analysis on an engine: workers run their leases, and this process keeps the results.

Nothing of it lies on the disk: what is finished is kept by content, so a repeated command hands
out only what is new.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vlmlens._display import changes
from vlmlens._version import __version__
from vlmlens.abc.engine import Json, Work, Worker
from vlmlens.abc.model_work import JSON, ModelWork
from vlmlens.compose.edit_check import opened_edits, others_for
from vlmlens.errors import FingerprintMismatch
from vlmlens.manifest import PluginKind
from vlmlens.runner.lease_worker import begin_worker
from vlmlens.runner.unit_leases import UnitLease
from vlmlens.runner.unit_worker import said_of
from vlmlens.tuned.putting import described as put_in_as

if TYPE_CHECKING:
    from vlmlens.runner.stages import Job

Take = Callable[[list[list[JSON]]], None]
"""Called with the results of a lease, batch by batch."""


class SpreadUnits(Work):
    """The leases of units of one analysis.

    Args:
        job: The run, and who is told.
        work: What the model is to do.
        expected: What workers must say of their model, see `said_of`.
        leases: The leases, each with the function that takes its results.
    """

    def __init__(
        self,
        job: Job,
        work: ModelWork,
        expected: Mapping[str, Any],
        leases: Sequence[tuple[UnitLease, Take]],
    ) -> None:
        self.order = _order(job, work)
        self._job = job
        self._expected = expected
        self._leases = {f"{lease.number:05d}": (lease, take) for lease, take in leases}
        self._done: set[str] = set()

    def begin(self) -> Worker:
        """See `Work.begin`."""
        return begin_worker(self.order, self._job.run.registry)

    def names(self) -> list[str]:
        """See `Work.names`."""
        return list(self._leases)

    def open(self) -> list[str]:
        """See `Work.open`."""
        return [name for name in self._leases if name not in self._done]

    def busy(self, name: str) -> bool:
        """See `Work.busy`: only the engine in this process hands leases out, and it knows."""
        del name
        return False

    def take(self, name: str) -> Json:
        """See `Work.take`."""
        return self._leases[name][0].to_dict()

    def finish(self, name: str, receipt: Json) -> bool:
        """See `Work.finish`."""
        if found := changes(self._expected, receipt["model"]):
            raise FingerprintMismatch(
                f"The workers' model is not the one of the run: {'; '.join(found.values())}.",
                subject=next(iter(found)),
                hint="Analyse without an engine: this process then uses the model as it is now.",
            )
        if name in self._done:
            return False
        self._done.add(name)
        for message in receipt["warnings"]:
            self._job.warn(message)
        self._leases[name][1](receipt["results"])
        return True

    def drop(self, name: str, lease: Json, *, gone: bool = True) -> None:
        """See `Work.drop`: an unfinished attempt leaves nothing."""
        del name, lease, gone

    def advance(self, name: str, done: int) -> None:
        """See `Work.advance`: progress counts units whose results are kept."""
        del name, done

    def warn(self, message: str) -> None:
        """See `Work.warn`."""
        self._job.watch.observer.warn(message)


def described(job: Job) -> dict[str, Any]:
    """What is known of the run's model without loading it; empty if nothing is."""
    run = job.run
    model = run.info.get("model")
    if not isinstance(model, dict):
        return {}
    adapter = run.registry.find(PluginKind.ADAPTER, run.spec.adapter)
    if job.changes.edits:
        edits = [edit.describe() for edit in opened_edits(job.spec, run.registry)]
        model = {**model, "edits": edits}
    if job.changes.opened is not None:
        model = {**model, "tuned": put_in_as(job.changes.opened, merge=job.changes.merge_tuned)}
    return said_of(model, run.registry.load(adapter), run.spec)


def _order(job: Job, work: ModelWork) -> dict[str, Any]:
    run = job.run
    run.check_trust("adapter", "model", "trust_remote_code", "tuned", "edits")
    edits = opened_edits(job.spec, run.registry)
    return {
        "vlmlens": __version__,
        "spec": job.spec.model_dump(mode="json"),
        "work": work.to_dict(),
        "others": others_for(edits, run.samples),
    }
