"""Analysing a store without a run, such as an old database of VLM-Lens.

The results go to a run folder beside the store, with its name: `old.db` gets `old.db.vlmlens/`.
There is no model, so analyses that need one are refused.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmlens._version import __version__
from vlmlens.abc.analysis import AnalysisContext
from vlmlens.abc.observer import Observer, SilentObserver
from vlmlens.compose.applicability import asked_analyses, suitable
from vlmlens.compose.drawn_samples import drawn_samples, part_of
from vlmlens.compose.labels import analysis_named
from vlmlens.errors import CompositionError, MissingAnnotation, PluginError
from vlmlens.registry import Registry, call_hook
from vlmlens.runner.on_some import on_some, telling_part
from vlmlens.runs.run import NO_MODEL, Run, is_run
from vlmlens.runs.trust import vetted_sample, withheld
from vlmlens.spec.model import make_spec
from vlmlens.stores.opening import is_uri, recognize

if TYPE_CHECKING:
    from vlmlens.abc.adapter import ModelAdapter
    from vlmlens.abc.storage import ColumnStore
    from vlmlens.results import Result
    from vlmlens.runner.changes import Changes
    from vlmlens.sample_table import SampleTable
    from vlmlens.samples import Sample


SUFFIX = ".vlmlens"


def folder_for(where: str) -> Path:
    """The folder for the results of a store: beside it, or in the current folder if it is remote.

    >>> folder_for("data/old.db").as_posix(), folder_for("zarr+s3://bucket/x").as_posix()
    ('data/old.db.vlmlens', 'x.vlmlens')
    """
    path = Path(where.partition("://")[2]) if is_uri(where) else Path(where)
    beside = not is_uri(where) or path.is_absolute()
    return (path if beside else Path(path.name)).with_name(path.name + SUFFIX)


def run_beside(
    where: str,
    registry: Registry,
    options: Mapping[str, Any] | None = None,
    *,
    trust: bool = False,
) -> Run:
    """Create or update the run folder beside a store.

    Args:
        where: Path or URI of a store that knows its samples.
        registry: The installed plugins.
        options: Options of the storage backend.
        trust: Whether to show pictures outside the folder of the store.

    Raises:
        StoreError: No installed backend reads it.
        MissingAnnotation: It does not know its samples.
    """
    uri, store = recognize(registry, where, options=options or {})
    with store:
        samples, meta = store.samples(), store.get_meta()
        columns = [info.name for info in store.columns()]
    if not samples:
        raise MissingAnnotation(
            f"The store {where!r} does not know its samples, so there are no labels.",
            subject=where,
            hint="Analyse the run that the store belongs to.",
        )
    spec = make_spec(
        {
            "adapter": NO_MODEL.name,
            "model": meta.get("model") or None,
            "data": where,
            "storage": uri,
            "options": {"storage": dict(options or {})},
        }
    )
    left_out = meta.get("left_out", {})
    info = {
        "state": "stored",
        "vlmlens": __version__,
        "python": platform.python_version(),
        "started": _now(),
        "columns": columns,
        "model": {"model": meta.get("model", ""), "architecture": meta.get("adapter", "")},
        "warnings": [f"{name} is left out: {why}." for name, why in left_out.items()],
    }
    folder = folder_for(where)
    if is_run(folder):
        before = Run(folder).info
        info |= {key: before.get(key, {}) for key in ("seeds", "drawn")}
    run = Run.create(folder, spec, info, registry=registry)
    around = Path(uri.partition("://")[2]).parent
    shown = list(samples) if trust else [vetted_sample(sample, around) for sample in samples]
    if hidden := sum(new is not old for new, old in zip(shown, samples, strict=True)):
        run.update(warnings=[*info["warnings"], withheld(hidden, where)])
    run.write_samples([_without_lost_images(sample) for sample in shown])
    return run


def only_stored(engine: str | None, changes: Changes) -> None:
    """Refuse an engine, edits and what was tuned for what has no model.

    Raises:
        CompositionError: One is given.
    """
    if changes:
        raise CompositionError(
            "A store without a run has no model that could be edited or tuned.",
            subject=changes.first,
            hint="Leave --edit and --tuned out.",
        )
    if engine is not None:
        raise CompositionError(
            "A store without a run has no model, so there is no work for an engine.",
            subject="engine",
            hint="Leave --engine and --workers out.",
        )


def analyze_stored(
    run: Run,
    analyses: Mapping[str, Mapping[str, Any]],
    registry: Registry,
    *,
    observer: Observer | None = None,
    seed: int = 0,
    fresh: bool = False,
    number: int | None = None,
) -> list[Result]:
    """Run analyses over a store without a model.

    Args:
        run: From `run_beside`.
        analyses: Analyses by name with their options; empty: the default ones that suit.
        registry: The installed plugins.
        observer: Receives progress, notes and warnings.
        seed: The seed of everything random.
        fresh: Replace results of these analyses that have other options.
        number: How many of the samples they read, see `drawn_samples`; None: all.

    Raises:
        PluginError, SpecError, MissingAnnotation, CompositionError: Before anything heavy.
        ResultExists: A result would be replaced, and `fresh` is not set.
    """
    from vlmlens.report.files import write_result
    from vlmlens.runner.keeping import check_kept, folder_of, named, remember
    from vlmlens.runner.run_report import write_run_report

    observer = observer or SilentObserver()
    warnings = list(run.info.get("warnings", ()))

    def warn(message: str) -> None:
        if message not in warnings:
            warnings.append(message)
            observer.warn(message)

    asked = asked_analyses(analyses, {})
    lacking = _needing_model(registry, asked)
    if analyses and lacking:
        raise _no_model(lacking[0], run)
    for name in lacking:
        warn(f"{name} is left out: {_no_model(name, run).message}")
        del asked[name]
    number = part_of(run.samples, number)
    shown = drawn_samples(run.samples, number, seed)
    made, left_out = suitable(
        registry,
        asked,
        adapter=NO_MODEL,
        samples=shown,
        columns=run.info["columns"],
        strict=bool(analyses),
    )
    for name, why in left_out.items():
        warn(f"{name} is left out: {why}")
    if not fresh:
        check_kept(run, made, registry, seed, number=number)
    results = []
    with run.store() as store:
        for name, analysis in made.items():
            observer.stage(name, None)
            manifest, label = analysis_named(registry, name)
            context = _context(run, shown, store, name, seed, observer, warn)
            if number is not None:
                context = on_some(context, len(run.samples))
            folder = folder_of(run, manifest.name, label)
            result = analysis.run(replace(context, folder=folder))
            results.append(named(telling_part(result, context), label))
            remember(run, results[-1], seed, number=number)
            write_result(results[-1], run.path / "results")
            observer.result(results[-1])
            call_hook(registry.hooks(), "vlmlens_result_ready", run=run, result=results[-1])
    summary = {"samples": len(run.samples)}
    run.update(state="finished", finished=_now(), summary=summary, warnings=warnings)
    write_run_report(run)
    return results


def _without_lost_images(sample: Sample) -> Sample:
    """The sample; if its image files are not on this machine, one without them (same group)."""
    if all(not isinstance(image, str) or Path(image).is_file() for image in sample.images):
        return sample
    names = "|".join(str(image) for image in sample.images)
    attributes = {**sample.attributes, "image": names}
    return replace(sample, images=(), group=sample.group or names, attributes=attributes)


def _needing_model(registry: Registry, asked: Mapping[str, Any]) -> list[str]:
    return [name for name in asked if _needs_model(registry, name)]


def _needs_model(registry: Registry, name: str) -> bool:
    """Whether an analysis needs the model; of one that cannot be used, `suitable` tells."""
    try:
        return "model" in analysis_named(registry, name)[0].needs
    except PluginError:
        return False


def _no_model(analysis: str, run: Run) -> CompositionError:
    return CompositionError(
        f"The analysis {analysis!r} needs the model, but {run.spec.data} has none.",
        subject=analysis,
        hint="Leave the analysis out, or extract again with `vlmlens run`.",
    )


def _context(
    run: Run,
    samples: SampleTable,
    store: ColumnStore,
    name: str,
    seed: int,
    observer: Observer,
    warn: Any,
) -> AnalysisContext:
    def no_model() -> ModelAdapter:
        raise _no_model(name, run)

    return AnalysisContext(
        samples=samples,
        store=store,
        model=no_model,
        seed=seed,
        progress=lambda done, total: observer.advance(done),
        warn=warn,
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
