"""Extracting in this process: what is missing goes to the run's own store."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vlmlens._display import changes
from vlmlens.errors import FingerprintMismatch
from vlmlens.extraction.dry_pass import silent_columns, two_samples
from vlmlens.runner.lease_worker import fingerprint, not_compiled, observed_dtypes
from vlmlens.runner.missing import Missing
from vlmlens.runs.generated_texts import GeneratedTexts
from vlmlens.runs.leases import lease_plans
from vlmlens.stores.sharded import ShardedStore

if TYPE_CHECKING:
    from vlmlens.abc.adapter import ModelAdapter
    from vlmlens.abc.storage import ColumnStore
    from vlmlens.compose.estimate import Expectation
    from vlmlens.compose.plan import Plan
    from vlmlens.runner.stages import Job
    from vlmlens.runs.run import Run

_WORTH_TELLING = 10.0


def extract(job: Job, plan: Plan) -> None:
    """Compute and store what is missing of a plan's columns.

    Raises:
        FingerprintMismatch: What is stored was made under other conditions.
        SiteSilent, SiteShapeError: A site gave no activation, or one with other rows than its axis.
        StoreError: The store cannot be written.
    """
    for leases in lease_plans(job.run.path):
        leases.close()
    with job.run.store(mode="a") as store:
        job.files.record()
        plan = plan.without(job.run.info.get("without_rows", {}))
        job.run.update(columns=plan.columns)
        missing = missing_columns(job, store, plan)
        if missing.nothing:
            if plan.columns:
                job.watch.observer.note("All columns are already stored.")
            return
        vlm = job.model()
        if silent := silent_columns(vlm, plan.spec.sites, plan.columns, two_samples(plan.samples)):
            plan = plan.without(silent)
            note_silent(job, silent, plan.columns)
            missing = missing_columns(job, store, plan)
        now = fingerprint(vlm, plan.spec, plan.image_rules)
        _check_fingerprint(job, store, now)
        _note_compiled(job, not_compiled(vlm, plan.spec, plan.columns))
        job.run.update(model=vlm.describe())
        with job.watch.stage("extract", len(plan.samples)):
            _run_units(job, plan, store, vlm, missing)


def note_silent(job: Job, silent: Mapping[str, str], columns: Sequence[str]) -> None:
    """Record and report the columns that gave no rows."""
    job.run.update(without_rows=dict(silent), columns=list(columns))
    job.warn(f"{len(silent)} columns are left out, because their modules give no rows.")


def _note_compiled(job: Job, left: Sequence[str] | None) -> None:
    """Report and record which blocks run uncompiled because a column is read inside them."""
    if left is None:
        return
    job.run.update(compiled={"not_compiled": list(left)})
    if left:
        job.watch.observer.note(
            f"{len(left)} blocks run without torch.compile: columns are read inside them."
        )


def _run_units(
    job: Job,
    plan: Plan,
    store: ColumnStore,
    vlm: ModelAdapter,
    missing: Missing,
) -> None:
    from vlmlens.extraction.extraction import Extraction

    total, start = len(plan.samples), time.perf_counter()
    spec = plan.spec
    extraction = Extraction(
        vlm,
        plan.extractor(vlm),
        plan.samples,
        spec.batch_size,
        spec.share_prefix,
        job.warn,
        generate=spec.generate,
        texts=GeneratedTexts(job.run.path).append,
    )

    def advance(done: int) -> None:
        job.watch.observer.advance(done)
        elapsed = time.perf_counter() - start
        job.hook("vlmlens_batch_done", done=done, total=total, seconds=elapsed)

    def expect(found: Expectation) -> None:
        if found.high >= _WORTH_TELLING:
            job.watch.observer.note(f"The rest of the extraction takes {found}.")
        job.run.update(expected=found.to_dict())

    extraction.expect = expect
    extraction.run(store, missing, advance)
    job.run.update(observed_dtypes=observed_dtypes(store))
    for what, count in extraction.shared.items():
        job.run.update(**{f"shared_{what}": count})


def missing_columns(job: Job, store: ColumnStore | None, plan: Plan) -> Missing:
    """Per sample, the columns that neither a store nor a part of the run has yet.

    Args:
        job: The job.
        store: The run's own store; None if it is not open or not there.
        plan: Its samples and columns.
    """
    parts = job.run.stores.parts()
    try:
        stores = [*([store] if store else []), *parts]
        whole = ShardedStore(stores, overlapping=True) if len(stores) != 1 else stores[0]
        return Missing.of(whole, plan.columns, plan.samples)
    finally:
        for part in parts:
            part.close()


def _check_fingerprint(job: Job, store: ColumnStore, now: Mapping[str, Any]) -> None:
    meta = store.get_meta()
    before = meta.get("fingerprint") or leased_fingerprint(job.run)
    if before is not None:
        check_alike(before, now)
    if "fingerprint" not in meta:
        store.set_meta({**meta, "fingerprint": dict(now)})


def leased_fingerprint(run: Run) -> dict[str, Any] | None:
    """The fingerprint of what several processes wrote; None if there is nothing."""
    for leases in lease_plans(run.path):
        for receipt in leases.receipts():
            found: dict[str, Any] = receipt["fingerprint"]
            return found
    return None


def check_alike(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Check that rows were made under the same conditions.

    Raises:
        FingerprintMismatch: They were not. The error names what differs.
    """
    if found := changes(before, now):
        raise FingerprintMismatch(
            f"The stored rows were made under other conditions: {'; '.join(found.values())}.",
            subject=next(iter(found)),
            hint="Start over with --fresh, or write to another folder with --out.",
        )
