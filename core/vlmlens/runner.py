"""Executing a plan: load, extract, analyse, report. Resumable at every batch."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vlmlens._version import __version__
from vlmlens.abc.adapter import ModelAdapter
from vlmlens.abc.analysis import AnalysisContext
from vlmlens.abc.storage import ColumnStore
from vlmlens.errors import FingerprintMismatch, RunExists
from vlmlens.generated import GeneratedTexts
from vlmlens.manifest import PluginKind
from vlmlens.observer import Observer, SilentObserver
from vlmlens.plan import Estimate, Plan, compose, load_request, open_sites
from vlmlens.registry import Registry, call_hook
from vlmlens.runs import Run
from vlmlens.shards import Shard
from vlmlens.spec import RunSpec
from vlmlens.suitability import asked_analyses, suitable
from vlmlens.trial import silent_columns
from vlmlens.workers import shard_plan

if TYPE_CHECKING:
    import pluggy

    from vlmlens.abc.analysis import Analysis
    from vlmlens.results import Result
    from vlmlens.samples import Sample

__all__ = ["Estimate", "Plan", "analyze", "compose", "execute", "open_sites"]

_KEPT = ("model", "without_rows")
"""What a resumed run keeps of run.json where it extracts nothing new."""

RunMode = Literal["new", "resume", "fresh"]


class _Job:
    """What the stages of one execution share."""

    def __init__(
        self, run: Run, hooks: pluggy.PluginManager, load: Callable[[], ModelAdapter], watch: _Watch
    ) -> None:
        self.run = run
        self.hooks = hooks
        self.model = cache(self._timed(load, watch))
        self.watch = watch
        self.warnings: list[str] = []

    def warn(self, message: str) -> None:
        """Show a warning once, and keep it in the run."""
        if message not in self.warnings:
            self.warnings.append(message)
            self.watch.observer.warn(message)
            self.run.update(warnings=self.warnings)

    def hook(self, name: str, **arguments: Any) -> None:
        """Tell lifecycle plugins."""
        call_hook(self.hooks, name, run=self.run, **arguments)

    @staticmethod
    def _timed(load: Callable[[], ModelAdapter], watch: _Watch) -> Callable[[], ModelAdapter]:
        def timed() -> ModelAdapter:
            with watch.timing("load model"):
                return load()

        return timed


class _Watch:
    """Seconds per stage, and the observer that sees the stages."""

    def __init__(self, observer: Observer) -> None:
        self.observer = observer
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[None]:
        """A stage that the observer sees."""
        self.observer.stage(name, total)
        with self.timing(name):
            yield

    @contextmanager
    def timing(self, name: str) -> Iterator[None]:
        """Add what passes inside to the stage's seconds."""
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            self.seconds[name] = round(self.seconds.get(name, 0.0) + spent, 3)


def execute(
    plan: Plan,
    *,
    mode: RunMode = "new",
    observer: Observer | None = None,
    extract_only: bool = False,
    shard: Shard | None = None,
) -> Run:
    """Carry out a plan.

    Args:
        plan: From `compose`.
        mode: "new" refuses a folder that holds a run; "resume" goes on with it; "fresh" removes
            what vlmlens wrote there.
        observer: Told how it goes.
        extract_only: Stop after the columns.
        shard: This process's part of it, which is only extracted; see `vlmlens.shards`.

    Raises:
        RunExists: The folder holds a run, and mode is "new".
        FingerprintMismatch: Resuming under other conditions or with other data.
        SiteSilent, SiteShapeError: An activation is not what its site promises.
        StoreError: The store cannot be written.
    """
    if shard is not None:
        plan, extract_only = shard_plan(plan, shard, mode), True
    run = _open_run(plan, mode)
    job = _Job(run, plan.registry.hooks(), plan.load, _Watch(observer or SilentObserver()))
    job.warnings = [f"{name} is left out: {why}" for name, why in plan.left_out.items()]
    with _state_kept(job):
        job.hook("vlmlens_run_started")
        _extract(job, plan, shard)
        if not extract_only:
            _analyse(job, plan.analyses, plan.samples, plan.spec.samples_at_once, plan.spec.seed)
        _finish(job, len(plan.samples))
    return run


def analyze(
    run: Run,
    analyses: Mapping[str, Mapping[str, Any]],
    registry: Registry,
    *,
    observer: Observer | None = None,
    seed: int | None = None,
) -> list[Result]:
    """Run analyses over the columns of an existing run; the model is loaded only where needed.

    Args:
        run: An extracted run.
        analyses: Analyses by name with their options; empty: the default ones that suit.
        registry: The installed plugins.
        observer: Told how it goes.
        seed: Instead of the run's own.

    Raises:
        PluginError, SpecError, MissingAnnotation, CompositionError: Before anything heavy.
    """
    spec = run.spec
    adapter = registry.find(PluginKind.ADAPTER, spec.adapter)
    samples = run.samples
    with run.store() as store:
        columns = [column.name for column in store.columns()]
    asked = asked_analyses(analyses, run.info.get("suggested", {}))
    made, left_out = suitable(
        registry,
        asked,
        adapter=adapter,
        samples=samples,
        columns=columns,
        strict=bool(analyses),
        extractor=registry.find(PluginKind.EXTRACTOR, spec.extractor),
    )

    def load() -> ModelAdapter:
        adapter_class: type[ModelAdapter] = registry.load(adapter)
        return adapter_class.load(load_request(spec, registry, adapter))

    job = _Job(run, registry.hooks(), load, _Watch(observer or SilentObserver()))
    job.warnings = list(run.info.get("warnings", ()))
    for name, why in left_out.items():
        job.warn(f"{name} is left out: {why}")
    with _state_kept(job):
        chosen = spec.seed if seed is None else seed
        results = _analyse(job, made, samples, spec.samples_at_once, chosen)
        _finish(job, len(samples))
    return results


def _open_run(plan: Plan, mode: RunMode) -> Run:
    info = {
        "state": "running",
        "vlmlens": __version__,
        "python": platform.python_version(),
        "started": _now(),
        "columns": plan.columns,
        "suggested": dict(plan.suggested),
        "notes": list(plan.notes),
    }
    path = Path(plan.spec.out) if plan.spec.out else next_folder(plan.spec.adapter)
    spec = plan.spec.model_copy(update={"out": str(path)})
    if (path / "run.json").is_file():
        old = Run(path, registry=plan.registry)
        if mode == "new":
            raise RunExists(
                f"{str(path)!r} already holds a run ({old.info.get('state')}).",
                subject=str(path),
                hint="Use --resume to go on with it, --fresh to start over, or another --out.",
            )
        if mode == "resume":
            _check_same_samples(old, plan.samples)
            _check_same_extractor(old.spec, plan.spec)
            info = {**{key: old.info[key] for key in _KEPT if key in old.info}, **info}
        else:
            old.clear()
    run = Run.create(path, spec, info, registry=plan.registry)
    run.write_samples(plan.samples)
    run.write_skipped(plan.skipped)
    return run


def next_folder(adapter: str) -> Path:
    """The first of runs/ADAPTER-001, -002, ... that does not exist, made."""
    stem = "".join(c if c.isalnum() or c in "-_" else "-" for c in Path(adapter).stem)
    number = 1
    while True:
        path = Path("runs") / f"{stem}-{number:03d}"
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return path


def _check_same_samples(old: Run, samples: Sequence[Sample]) -> None:
    before = {record["id"]: record["fingerprint"] for record in old.sample_records()}
    for sample in samples:
        if before.get(sample.id, sample.fingerprint()) != sample.fingerprint():
            raise FingerprintMismatch(
                f"The sample {sample.id!r} has another prompt or image than when the run began.",
                subject=sample.id,
                hint="Start over with --fresh, or write to another folder with --out.",
            )


def _check_same_extractor(old: RunSpec, new: RunSpec) -> None:
    before = (old.extractor, old.options.extractor)
    now = (new.extractor, new.options.extractor)
    if before != now:
        raise FingerprintMismatch(
            f"The run's columns were made by {before[0]!r} with {before[1] or 'no options'}, not "
            f"by {now[0]!r} with {now[1] or 'no options'}.",
            subject="extractor",
            hint="Start over with --fresh, or write to another folder with --out.",
        )


@contextmanager
def _state_kept(job: _Job) -> Iterator[None]:
    """Leave run.json saying how it ended."""
    try:
        yield
    except KeyboardInterrupt:
        job.run.update(state="interrupted", warnings=job.warnings)
        raise
    except BaseException:
        job.run.update(state="failed", warnings=job.warnings)
        raise


# ---------------------------------------------------------------------- extract


def _extract(job: _Job, plan: Plan, shard: Shard | None = None) -> None:
    with job.run.store(mode="a") as store:
        plan = plan.without(job.run.info.get("without_rows", {}))
        job.run.update(columns=plan.columns)
        missing = _missing(store, plan.columns, plan.samples)
        if not any(missing):
            job.watch.observer.note("Every column is stored already.")
            return
        vlm = job.model()
        if silent := silent_columns(plan, vlm):
            plan = plan.without(silent)
            job.run.update(without_rows=silent, columns=plan.columns)
            job.warn(f"{len(silent)} columns of modules that give no rows are left out.")
            missing = _missing(store, plan.columns, plan.samples)
        _check_fingerprint(store, {**vlm.describe(), "extractor": plan.spec.extractor})
        job.run.update(model=vlm.describe())
        with job.watch.stage("extract", len(plan.samples)):
            _run_units(job, plan, store, vlm, missing, shard)


def _run_units(
    job: _Job,
    plan: Plan,
    store: ColumnStore,
    vlm: ModelAdapter,
    missing: list[tuple[str, ...]],
    shard: Shard | None,
) -> None:
    from vlmlens.extraction import Extraction

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
        texts=GeneratedTexts(job.run.path),
        shard=shard,
    )

    def advance(done: int) -> None:
        job.watch.observer.advance(done)
        elapsed = time.perf_counter() - start
        job.hook("vlmlens_batch_done", done=done, total=total, seconds=elapsed)

    extraction.run(store, missing, advance)
    for what, count in extraction.shared.items():
        job.run.update(**{f"shared_{what}": count})


def _missing(
    store: ColumnStore, columns: Sequence[str], samples: Sequence[Sample]
) -> list[tuple[str, ...]]:
    """Per sample, the columns that are not stored yet."""
    known = {info.name for info in store.columns()}
    have = {name: set(store.ids(name)) if name in known else set() for name in columns}
    return [tuple(name for name in columns if s.id not in have[name]) for s in samples]


def _check_fingerprint(store: ColumnStore, now: Mapping[str, Any]) -> None:
    meta = store.get_meta()
    before = meta.get("fingerprint")
    if before is None:
        store.set_meta({**meta, "fingerprint": dict(now)})
        return
    differing = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
    if differing:
        shown = "; ".join(f"{key} was {before.get(key)}, is {now.get(key)}" for key in differing)
        raise FingerprintMismatch(
            f"The stored rows were made under other conditions: {shown}.",
            subject=differing[0],
            hint="Start over with --fresh, or write to another folder with --out.",
        )


# ---------------------------------------------------------------------- analyse


def _analyse(
    job: _Job,
    analyses: Mapping[str, Analysis],
    samples: Sequence[Sample],
    batch_size: int,
    seed: int,
) -> list[Result]:
    from vlmlens.report.files import write_result

    results = []
    for name, analysis in analyses.items():
        with job.watch.stage(name), job.run.store() as store:
            result = analysis.run(_context(job, store, samples, batch_size, seed, name))
        write_result(result, job.run.path / "results")
        job.watch.observer.result(result)
        job.hook("vlmlens_result_ready", result=result)
        results.append(result)
    return results


def _context(
    job: _Job, store: ColumnStore, samples: Sequence[Sample], batch_size: int, seed: int, name: str
) -> AnalysisContext:
    observer = job.watch.observer
    known: list[int] = []

    def progress(done: int, total: int) -> None:
        if known != [total]:
            known[:] = [total]
            observer.stage(name, total)
        observer.advance(done)

    return AnalysisContext(
        samples=samples,
        store=store,
        model=job.model,
        batch_size=batch_size,
        seed=seed,
        progress=progress,
        warn=job.warn,
        generated=GeneratedTexts(job.run.path).generations(),
        folder=job.run.path / "results",
    )


def _finish(job: _Job, samples: int) -> None:
    from vlmlens.report.of_run import write_run_report

    run = job.run
    summary = {
        "samples": samples,
        "skipped": len(run.skipped),
        "seconds": dict(job.watch.seconds),
    }
    run.update(state="finished", finished=_now(), summary=summary, warnings=job.warnings)
    if run.results:
        with job.watch.stage("report"):
            write_run_report(run)
    job.hook("vlmlens_run_finished", summary=summary)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
