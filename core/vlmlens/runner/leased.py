"""Extracting on an engine: a plan is cut into leases once, and workers run them."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmlens._files import create_only, write_json
from vlmlens._version import __version__
from vlmlens.abc.engine import Engine, Json, Part, Work, Worker
from vlmlens.compose.edit_check import opened_edits, others_for
from vlmlens.errors import RunError, StoreError
from vlmlens.extraction.dry_pass import two_samples
from vlmlens.extraction.planning import budget_on, cut, planned, to_json
from vlmlens.manifest import PluginKind
from vlmlens.runner.extracting import (
    check_alike,
    leased_fingerprint,
    missing_columns,
    note_silent,
)
from vlmlens.runner.lease_worker import begin_worker
from vlmlens.runs.leases import FOLDER, LeasePlan, lease_plans
from vlmlens.sample_table import SampleTable
from vlmlens.stores.opening import is_uri

if TYPE_CHECKING:
    from vlmlens.abc.observer import Observer
    from vlmlens.compose.plan import Plan
    from vlmlens.runner.missing import Missing
    from vlmlens.runner.stages import Job
    from vlmlens.runs.run import Run
    from vlmlens.samples import Sample
    from vlmlens.spec.model import RunSpec

_NOT_COMPARED = {"out", "engine", "analysis", "seed", "samples"}
"""Settings that do not matter for what is extracted."""


def extract_leased(job: Job, plan: Plan, engine: Engine) -> bool:
    """Compute and store what is missing of a plan's columns, with the workers of an engine.

    Returns:
        Whether everything is stored; False if other processes have a part to do.

    Raises:
        FingerprintMismatch: What is stored was made under other conditions.
        RunError: Workers fail for good.
    """
    run = job.run
    plan = plan.without(run.info.get("without_rows", {}))
    run.update(columns=plan.columns)
    leases = _current(job, plan, engine)
    tell_group(run.path, engine.part(), {"plan": leases.folder.name if leases else None})
    if leases is None:
        job.watch.observer.note("All columns are already stored.")
        settle(job)
        return True
    work = LeasedWork(run, leases, job.watch.observer, leased_fingerprint(run))
    with job.watch.stage("extract", sum(leases.samples.values())):
        work.run_on(engine)
    if leases.open():
        return False
    settle(job)
    return True


def tell_group(folder: Path, part: Part | None, news: Mapping[str, Any]) -> None:
    """Tell the other processes of the same start of a command which plan is theirs.

    Args:
        folder: The run's folder.
        part: Which of the processes this is; nothing happens if there are no others.
        news: `plan`, its name, None if there is nothing to do; or `error`, why there is none.
    """
    if part is not None and part.group:
        path = group_file(folder, part)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, news)


def group_file(folder: Path, part: Part) -> Path:
    """Where the first process of a start of a command tells the others what to do."""
    return folder / FOLDER / f"group-{hashlib.sha256(part.group.encode()).hexdigest()[:16]}.json"


class LeasedWork(Work):
    """The leases of a plan, for an engine.

    Args:
        run: The run.
        leases: Its plan.
        observer: Receives progress and warnings.
        known: The fingerprint of what is stored; None if nothing is.
    """

    def __init__(
        self, run: Run, leases: LeasePlan, observer: Observer, known: Mapping[str, Any] | None
    ) -> None:
        self.order = leases.order
        self._run = run
        self._leases = leases
        self._observer = observer
        self._known = known
        self._samples = leases.samples
        self._done: Counter[str] = Counter()

    def run_on(self, engine: Engine) -> None:
        """Let an engine run what is open."""
        try:
            engine.run(self)
        finally:
            self._leases.release_all()

    def begin(self) -> Worker:
        """See `Work.begin`."""
        return begin_worker(self.order, self._run.registry)

    def names(self) -> list[str]:
        """See `Work.names`."""
        return self._leases.names

    def open(self) -> list[str]:
        """See `Work.open`."""
        left = self._leases.open()
        for name in self._samples.keys() - set(left):
            self._done[name] = self._samples[name]
        self._observer.advance(self._done.total())
        return left

    def busy(self, name: str) -> bool:
        """See `Work.busy`."""
        attempts = self._leases.attempts(name)
        return any(self._leases.at_work(name, attempt) for attempt in attempts)

    def take(self, name: str) -> Json:
        """See `Work.take`."""
        attempt = self._leases.begin(name)
        lease = self._leases.lease(name)
        return {**lease, "plan": self._leases.folder.name, "name": name, "attempt": attempt}

    def finish(self, name: str, receipt: Json) -> bool:
        """See `Work.finish`."""
        if self._known is None:
            self._known = receipt["fingerprint"]
        check_alike(self._known, receipt["fingerprint"])
        first = self._leases.finish(name, receipt)
        self._leases.release(receipt["attempt"])
        if first:
            for message in receipt["warnings"]:
                self._observer.warn(message)
            self.advance(name, self._samples[name])
        else:
            self.drop(name, receipt)
        return first

    def drop(self, name: str, lease: Json, *, gone: bool = True) -> None:
        """See `Work.drop`."""
        attempt, warn = lease["attempt"], self._observer.warn
        if _remove(self._run, self._leases, name, attempt, warn) and gone:
            self._leases.forget(name, attempt)
        self._leases.release(attempt)

    def advance(self, name: str, done: int) -> None:
        """See `Work.advance`."""
        self._done[name] = done
        self._observer.advance(self._done.total())

    def warn(self, message: str) -> None:
        """See `Work.warn`."""
        self._observer.warn(message)


def clear_abandoned(run: Run, warn: Callable[[str], None]) -> None:
    """Remove what attempts at leases wrote whose processes have ended."""
    for leases in lease_plans(run.path):
        done = leases.done()
        for name in leases.names:
            kept = leases.receipt(name)["attempt"] if name in done else None
            for attempt in leases.attempts(name):
                if attempt == kept or leases.at_work(name, attempt):
                    continue
                if _remove(run, leases, name, attempt, warn):
                    leases.forget(name, attempt)


def _remove(
    run: Run, leases: LeasePlan, name: str, attempt: str, warn: Callable[[str], None]
) -> bool:
    """Remove the rows of an attempt; whether they are gone."""
    try:
        run.stores.remove_lease(leases.folder.name, name, attempt)
    except (OSError, StoreError) as error:
        warn(f"What an unfinished attempt wrote was not removed: {error}")
        return False
    return True


def settle(job: Job) -> None:
    """Record in run.json what the receipts say of the model and the columns."""
    shared: Counter[str] = Counter()
    observed: set[str] = set()
    receipts, seconds, last = 0, 0.0, None
    for leases in lease_plans(job.run.path):
        for receipt in leases.receipts():
            receipts, last = receipts + 1, receipt
            seconds += receipt["seconds"]
            shared.update(receipt["shared"])
            observed.update(receipt.get("observed_dtypes", ()))
            for message in receipt["warnings"]:
                job.warn(message)
    if last is None:
        return
    told: dict[str, Any] = {"model": last["model"], "observed_dtypes": sorted(observed)}
    told |= {f"shared_{what}": count for what, count in shared.items()}
    told["leases"] = {"finished": receipts, "seconds": round(seconds, 3)}
    if last["compiled"] is not None:
        told["compiled"] = {"not_compiled": last["compiled"]}
    job.run.update(**told)
    if last["without_rows"]:
        note_silent(job, last["without_rows"], last["columns"])


# ------------------------------------------------------------------------ plan


def _current(job: Job, plan: Plan, engine: Engine) -> LeasePlan | None:
    """The plan whose open leases are to be run: the run's newest, or a new one; None: no need."""
    samples = SampleTable(_whole_paths(job.run.keep_images(sample)) for sample in plan.samples)
    samples.seen = plan.samples.seen
    digest = _digest(plan, samples)
    before = lease_plans(job.run.path)
    last = before[-1] if before else None
    fits = last and last.is_own() and last.order["digest"] == digest
    if last and fits and last.open() and last.is_whole():
        return last
    for leases in before:
        leases.close()
    missing = _missing(job, plan)
    if missing.nothing:
        return None
    order = _order(job.run, plan, samples, digest)
    return LeasePlan.create(job.run.path, order, _leases(plan, samples, missing, engine))


def _missing(job: Job, plan: Plan) -> Missing:
    stores, uri = job.run.stores, is_uri(plan.spec.storage)
    if not stores.has_own and not uri:
        return missing_columns(job, None, plan)
    # A store elsewhere is marked as this run's before anybody writes beside it.
    with stores.own("a" if uri else "r") as own:
        return missing_columns(job, own, plan)


def _leases(
    plan: Plan, samples: Sequence[Sample], missing: Sequence[tuple[str, ...]], engine: Engine
) -> Iterator[dict[str, Any]]:
    if plan.skeleton is None:
        raise RunError("The plan has no skeleton.", hint="Make it with `compose`.")
    gpu = engine.on_gpus if engine.on_gpus is not None else on_gpu(plan.spec)
    spec = plan.spec
    units = planned(
        samples,
        plan.skeleton,
        plan.extractor(plan.skeleton),
        batch_size=spec.batch_size,
        share=spec.share_prefix and not spec.edits,
        generate=spec.generate,
        budget=budget_on("cuda" if gpu else "cpu"),
    )
    todo = [unit for unit in units.units if any(missing[number] for number in unit.samples)]
    parameters = sum(each.numel() for each in plan.skeleton.module.parameters())
    leases = cut(units, todo, parameters=parameters, gpu=gpu)
    return (to_json(lease, samples, missing) for lease in leases)


def on_gpu(spec: RunSpec) -> bool:
    """Whether a run computes on a GPU here."""
    if spec.device == "auto":
        import torch

        return torch.cuda.is_available()
    return spec.device != "cpu"


def _order(run: Run, plan: Plan, samples: Sequence[Sample], digest: str) -> dict[str, Any]:
    storage = plan.registry.find(PluginKind.STORAGE, plan.spec.storage)
    return {
        "vlmlens": __version__,
        "run": str(run.path.resolve()),
        "key": _key(run.path),
        "store": run.stores.key if is_uri(plan.spec.storage) else None,
        "digest": digest,
        "spec": run.spec.model_dump(mode="json"),
        "asked": asked_settings(plan.asked or plan.spec),
        "columns": list(plan.columns),
        "image_rules": dict(plan.image_rules),
        "first": [sample.to_dict() for sample in two_samples(samples)],
        "others": others_for(opened_edits(plan.spec, plan.registry), samples),
        "described": "samples" in storage.offers,
    }


def _key(folder: Path) -> str:
    """What tells the run's folder from another one at the same path of another machine."""
    path = folder / FOLDER / "key"
    path.parent.mkdir(exist_ok=True)
    create_only(path, secrets.token_hex(16).encode())
    return path.read_text(encoding="utf-8")


def _digest(plan: Plan, samples: Sequence[Sample]) -> str:
    """What has to be the same, so that the leases of an earlier start of a command still fit."""
    found = hashlib.sha256()
    settings = asked_settings(plan.spec.model_copy(update={"limit": None}))
    found.update(json.dumps([settings, plan.columns], sort_keys=True).encode())
    for sample in samples:
        found.update(json.dumps(sample.to_dict(), sort_keys=True).encode())
    return found.hexdigest()


def asked_settings(spec: RunSpec) -> dict[str, Any]:
    """The settings that matter for what is extracted, as data."""
    found = spec.model_dump(mode="json", exclude=_NOT_COMPARED)
    found["options"] = {k: v for k, v in found["options"].items() if k != "engine"}
    return found


def _whole_paths(sample: Sample) -> Sample:
    images = tuple(os.path.abspath(str(image)) for image in sample.images)  # noqa: PTH100 - links
    return sample if images == sample.images else replace(sample, images=images)
