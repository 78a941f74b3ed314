"""Executing a plan: load, extract, analyse, report. A run can be resumed at every batch.

Over 400 lines: the order of all steps of a run and of a later analysis; what a step does is in the
modules beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmlens._disk import disk_errors
from vlmlens.abc.adapter import ModelAdapter
from vlmlens.abc.analysis import AnalysisContext
from vlmlens.abc.observer import Observer, SilentObserver
from vlmlens.abc.storage import ColumnStore
from vlmlens.compose.applicability import asked_analyses, check_lasting, suitable
from vlmlens.compose.drawn_samples import drawn_samples, part_of
from vlmlens.compose.edit_check import check_edits, opened_edits
from vlmlens.compose.estimate import Estimate
from vlmlens.compose.given import IN_MEMORY
from vlmlens.compose.labels import analysis_named
from vlmlens.compose.plan import Plan, compose, load_model, load_request, open_sites
from vlmlens.compose.plugin_checks import check_lifecycle
from vlmlens.compose.tuned_check import check_tuned
from vlmlens.errors import CompositionError, RunError, SpecError
from vlmlens.manifest import PluginKind
from vlmlens.registry import Registry
from vlmlens.runner.changed import check_changed, model_must_run, telling
from vlmlens.runner.changes import NO_CHANGES, Changes
from vlmlens.runner.keeping import check_kept, folder_of, named, remember
from vlmlens.runner.on_some import on_some, telling_part
from vlmlens.runner.run_folder import (
    RunMode,
    next_folder,
    now,
    open_run,
    place_of,
)
from vlmlens.runner.stages import Job, Watch, state_kept
from vlmlens.runs.generated_texts import GeneratedTexts
from vlmlens.runs.lock import changing
from vlmlens.runs.run import Run, is_run

if TYPE_CHECKING:
    from vlmlens.abc.analysis import Analysis
    from vlmlens.abc.engine import Engine
    from vlmlens.passes.edits import EdgeCut, Edit
    from vlmlens.results import Result
    from vlmlens.sample_table import SampleTable
    from vlmlens.samples import Sample
    from vlmlens.spec.model import RunSpec

__all__ = [
    "Estimate",
    "Plan",
    "RunMode",
    "analyze",
    "compose",
    "engine_of",
    "execute",
    "next_folder",
    "open_sites",
]


def execute(
    plan: Plan,
    *,
    mode: RunMode = "new",
    observer: Observer | None = None,
    extract_only: bool = False,
    engine: Engine | None = None,
) -> Run:
    """Execute a plan.

    Args:
        plan: From `compose`.
        mode: What to do if the folder already holds a run. "new": refuse; "resume": go on with it;
            "fresh": remove what vlmlens wrote there, and start over.
        observer: Receives progress, notes and warnings.
        extract_only: Whether to stop after extraction.
        engine: Spreads the work over several processes; None: this process does it.

    Raises:
        RunExists: The folder holds a run, and mode is "new".
        FingerprintMismatch: The run is resumed under other conditions or with other data.
        SiteSilent, SiteShapeError: A site gave no activation, or one with other rows than its axis.
        StoreError: The store cannot be written.
    """
    if engine is not None:
        storage = plan.spec.storage
        check_lasting(plan.registry.find(PluginKind.STORAGE, storage), storage)
    with disk_errors():
        path = place_of(plan, mode)
        with changing(path):
            return _execute_held(
                plan, path, mode, observer or SilentObserver(), extract_only, engine
            )


def engine_of(spec: RunSpec, registry: Registry) -> Engine | None:
    """The engine that a spec names; None if this process does the work.

    Raises:
        PluginError: There is no such engine, or it cannot be used.
        SpecError: The engine does not have such an option, or options are given without an engine.
        CompositionError: It cannot run here.
    """
    if spec.engine is None:
        if spec.options.engine:
            raise SpecError(
                f"Options of an engine are given ({', '.join(spec.options.engine)}), but no "
                "engine.",
                subject="engine",
                hint="Name one: --engine processes.",
            )
        return None
    from vlmlens.runner.leased import on_gpu

    manifest = registry.find(PluginKind.ENGINE, spec.engine)
    check_lasting(registry.find(PluginKind.STORAGE, spec.storage), spec.storage)
    made: Engine = registry.load(manifest)(registry.options(manifest, spec.options.engine))
    made.check()
    if on_gpu(spec):
        made.check_gpus()
    return made


def _execute_held(
    plan: Plan,
    path: Path,
    mode: RunMode,
    observer: Observer,
    extract_only: bool,
    engine: Engine | None,
) -> Run:
    """Like `execute`, in a folder that the caller has the right to change."""
    from vlmlens.runner.extracting import extract
    from vlmlens.runner.leased import clear_abandoned, extract_leased

    if mode == "resume" and not extract_only and is_run(path):
        _check_kept(plan, path)
    run = open_run(plan, path, mode)
    if plan.spec.data == IN_MEMORY:
        plan = replace(plan, samples=run.samples)
    alone = engine is None or engine.part() is not None
    if not plan.columns and engine is not None and alone:
        raise _nothing_to_share(plan)
    job = Job(
        run, plan.registry.hooks(), plan.load, Watch(observer), engine=None if alone else engine
    )
    job.warnings = _warnings(run, plan)
    with state_kept(job):
        job.hook("vlmlens_run_started")
        clear_abandoned(run, observer.warn)
        if said := company_matters(plan.spec):
            job.warn(said)
        if engine is None or not plan.columns:
            extract(job, plan)
        elif not extract_leased(job, plan, engine):
            return _unfinished(job)
        if not extract_only:
            _analyse(job, plan.analyses, plan.samples, plan.spec)
        finish(job, len(plan.samples))
    return run


def _nothing_to_share(plan: Plan) -> CompositionError:
    return CompositionError(
        "Processes that are started one by one share an extraction, but nothing is extracted: "
        f"{', '.join(plan.analyses)} uses no columns.",
        subject="engine",
        hint="Leave the engine out, or let this process start its workers: --engine processes.",
    )


def _unfinished(job: Job) -> Run:
    """Record that other processes have not done their part yet."""
    job.run.update(state="unfinished", warnings=job.warnings)
    job.watch.observer.note("Other parts of the run are not finished yet.")
    return job.run


def company_matters(spec: RunSpec) -> str:
    """What to say of a quantized model whose samples share batches; empty if there is nothing."""
    if spec.quantization is None or spec.batch_size == 1:
        return ""
    return (
        f"The model computes in {spec.quantization}: the numbers of a sample depend on which "
        "samples share its batch (bitsandbytes). For numbers that do not, use --batch-size 1."
    )


def _check_kept(plan: Plan, path: Path) -> None:
    """Refuse to replace results by others, if the files of the run can be read."""
    kept = Run(path, registry=plan.registry, trust=True)
    try:
        _ = kept.info, kept.spec
    except RunError:
        return
    number = part_of(plan.samples, plan.spec.samples)
    check_kept(kept, plan.analyses, plan.registry, plan.spec.seed, number=number)


def _warnings(run: Run, plan: Plan) -> list[str]:
    """The stored warnings of a resumed run, without old ones about analyses left out."""
    chosen = (*plan.left_out, *plan.analyses)
    before = [
        text
        for text in run.info.get("warnings", ())
        if not text.startswith(tuple(f"{name} is left out" for name in chosen))
    ]
    return before + [f"{name} is left out: {why}" for name, why in plan.left_out.items()]


def analyze(
    run: Run,
    analyses: Mapping[str, Mapping[str, Any]],
    registry: Registry,
    *,
    observer: Observer | None = None,
    seed: int | None = None,
    fresh: bool = False,
    engine: Engine | None = None,
    changes: Changes = NO_CHANGES,
    number: int | None = None,
) -> list[Result]:
    """Run analyses over the columns of an existing run. Loads the model only if one needs it.

    Args:
        run: An extracted run.
        analyses: Analyses by name with their options; empty: the default ones that suit.
        registry: The installed plugins.
        observer: Receives progress, notes and warnings.
        seed: A seed to use instead of the run's own.
        fresh: Replace results of these analyses that have other options.
        engine: Spreads their model work over several processes; None: this process does it.
        changes: Of the model, beside what the run did. Columns stay as they are.
        number: How many of the samples they read, see `drawn_samples`; None: all.

    Raises:
        PluginError, SpecError, EditError, MissingAnnotation, CompositionError: Before anything
            heavy.
        ResultExists: A result would be replaced, and `fresh` is not set.
    """
    if engine is not None and engine.part() is not None:
        raise CompositionError(
            "Processes that are started one by one share an extraction, not an analysis.",
            subject="engine",
            hint="Leave it out, or let this process start its workers: --engine processes or ray.",
        )
    spec = run.spec
    run.check_trust("adapter", "extractor", "options.plugins")
    check_lifecycle(spec, registry)
    check_changed(analyses, changes, registry)
    adapter = registry.find(PluginKind.ADAPTER, spec.adapter)
    samples = run.samples
    with run.store() as store:
        columns = [column.name for column in store.columns()]
    extractor = registry.find(PluginKind.EXTRACTOR, spec.extractor)
    asked = asked_analyses(analyses, run.info.get("suggested", {}), extractor)

    def _adapter_class() -> type[ModelAdapter]:
        run.check_trust("model", "trust_remote_code", *([] if changes.tuned else ["tuned"]))
        found: type[ModelAdapter] = registry.load(adapter)
        return found

    @cache
    def skeleton() -> ModelAdapter:
        return _adapter_class().skeleton(load_request(spec, registry, adapter))

    changed = changes.made_to(spec)
    chosen = spec.seed if seed is None else seed
    number = part_of(samples, number)
    shown = drawn_samples(samples, number, chosen)
    made, left_out = suitable(
        registry,
        asked,
        adapter=adapter,
        samples=shown,
        columns=columns,
        strict=bool(analyses),
        extractor=extractor,
        skeleton=skeleton,
        edited=bool(changed.edits),
    )

    if not fresh:
        check_kept(run, made, registry, chosen, changes, number)

    def all_edits() -> list[Edit | EdgeCut]:
        run.check_trust("edits")
        return opened_edits(changed, registry)

    if changes.opened is not None:
        for note in check_tuned(changed, changes.opened, skeleton()):
            (observer or SilentObserver()).note(note)
    if changes.edits:
        check_edits(all_edits(), skeleton(), samples, spec.generate or 0)

    def load() -> ModelAdapter:
        request = load_request(spec, registry, adapter)
        return load_model(changed, _adapter_class(), request, all_edits(), samples)

    with disk_errors(), changing(run.path, shared=True):
        job = Job(run, registry.hooks(), load, Watch(observer or SilentObserver()), engine, changes)
        job.warnings = list(run.info.get("warnings", ()))
        for name, why in left_out.items():
            job.warn(f"{name} is left out: {why}")
        with state_kept(job):
            told = spec.model_copy(update={"seed": chosen, "samples": number})
            results = _analyse(job, made, samples, told)
            finish(job, len(samples))
    return results


def _analyse(
    job: Job,
    analyses: Mapping[str, Analysis],
    samples: SampleTable,
    spec: RunSpec,
) -> list[Result]:
    """Run analyses.

    Args:
        job: The run.
        analyses: By name.
        samples: All samples of the run.
        spec: Says how many of them are read, with which seed, and how many at a time.
    """
    from vlmlens.report.files import write_result

    results = []
    number, seed = part_of(samples, spec.samples), spec.seed
    shown = drawn_samples(samples, number, seed)
    for name, analysis in analyses.items():
        with job.watch.stage(name), job.run.store() as store:
            manifest, label = analysis_named(job.run.registry, name)
            context = _context(job, store, shown, spec.samples_at_once, seed, name)
            if number is not None:
                context = on_some(context, len(samples))
            folder = folder_of(job.run, manifest.name, label)
            with model_must_run(job, name):
                result = telling(analysis.run(replace(context, folder=folder)), job.changes)
            result = named(telling_part(result, context), label)
        remember(job.run, result, seed, job.changes, number)
        write_result(result, job.run.path / "results")
        _tell_model(job)
        job.files.record()
        job.watch.observer.result(result)
        job.hook("vlmlens_result_ready", result=result)
        results.append(result)
    return results


def _tell_model(job: Job) -> None:
    """Record the model in a run that has no columns, and so has not recorded it yet."""
    loaded = job.model.cache_info().currsize > 0
    if loaded and not job.changes and "model" not in job.run.info:
        job.run.update(model=job.model().describe())


def _context(
    job: Job, store: ColumnStore, samples: Sequence[Sample], batch_size: int, seed: int, name: str
) -> AnalysisContext:
    from vlmlens.runner.unit_rails import UnitRails

    observer = job.watch.observer
    known: list[int] = []

    def progress(done: int, total: int) -> None:
        if known != [total]:
            known[:] = [total]
            observer.stage(name, total)
        observer.advance(done)

    rails = UnitRails(job, name, batch_size)
    return AnalysisContext(
        samples=samples,
        store=store,
        model=job.model,
        batch_size=batch_size,
        seed=seed,
        progress=progress,
        warn=job.warn,
        generated={} if job.changes else GeneratedTexts(job.run.path).generations(),
        runner=rails,
        lookup=rails.known,
    )


def finish(job: Job, samples: int) -> None:
    """Record that a run is finished, and write its report if it has results."""
    from vlmlens.runner.run_report import write_run_report

    run = job.run
    earlier = run.info.get("summary", {}).get("seconds", {})
    summary = {
        "samples": samples,
        "skipped": len(run.skipped),
        "seconds": {**earlier, **job.watch.seconds},
    }
    run.update(state="finished", finished=now(), summary=summary, warnings=job.warnings)
    try:
        reported = bool(run.results)
    except RunError as error:
        reported = False
        job.warn(f"The report was not written. {error}")
    if reported:
        with job.watch.stage("report"):
            write_run_report(run)
    job.hook("vlmlens_run_finished", summary=summary)
