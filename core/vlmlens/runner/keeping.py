"""Results of earlier analyses are kept: none is replaced by one with other options unasked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from vlmlens._display import changes as differences
from vlmlens.compose.labels import analysis_named, result_name
from vlmlens.errors import ResultExists
from vlmlens.report.files import plain, stem
from vlmlens.results import Result
from vlmlens.runner.changes import NO_CHANGES, Changes

if TYPE_CHECKING:
    from vlmlens.abc.analysis import Analysis
    from vlmlens.registry import Registry
    from vlmlens.runs.run import Run


def check_kept(
    run: Run,
    analyses: Mapping[str, Analysis],
    registry: Registry,
    seed: int,
    changes: Changes = NO_CHANGES,
    number: int | None = None,
) -> None:
    """Refuse to replace a result by one with other options, another seed or other changes.

    Args:
        run: Where results are kept.
        analyses: Those that are about to run, by the user's names.
        registry: The installed plugins.
        seed: The seed that they run with.
        changes: Of the model, beside what the run did.
        number: How many of the samples they read; None: all.

    Raises:
        ResultExists: A result would be replaced.
    """
    results, seeds = run.results, run.info.get("seeds", {})
    edited, drawn = run.info.get("edited", {}), run.info.get("drawn", {})
    for name, analysis in analyses.items():
        manifest, label = analysis_named(registry, name)
        base, kept = manifest.name, result_name(manifest, label)
        if kept not in results:
            continue
        options = _completed(analysis, results[kept].options)
        before = {
            **options,
            "seed": seeds.get(kept, seed),
            "edits": edited.get(kept, []),
            "samples": drawn.get(kept, run.sample_count),
        }
        now = {
            **plain(analysis.options.model_dump(mode="json")),
            "seed": seed,
            "edits": changes.texts,
            "samples": number or run.sample_count,
        }
        if found := differences(before, now):
            raise ResultExists(
                f"The run has a result of {kept} with other options: {'; '.join(found.values())}.",
                subject=kept,
                hint=f"To keep both, give this one a label: --analysis {base}:LABEL, with options "
                f"at analysis.{base}:LABEL. To replace it: --fresh.",
            )


def named(result: Result, label: str) -> Result:
    """The result under its label."""
    if not label:
        return result
    return replace(
        result,
        analysis=f"{result.analysis}:{label}",
        title=f"{result.title} ({label})",
        overview=[replace(each, question=f"{each.question} ({label})") for each in result.overview],
    )


def folder_of(run: Run, manifest_name: str, label: str) -> Path:
    """Where an analysis keeps files of its own; those of a label lie apart."""
    folder = run.path / "results"
    return folder / stem(f"{manifest_name}:{label}") if label else folder


def remember(
    run: Run,
    result: Result,
    seed: int,
    changes: Changes = NO_CHANGES,
    number: int | None = None,
) -> None:
    """Keep the seed, the changes and the number of samples that a result was made with."""
    edited = {**run.info.get("edited", {}), result.analysis: changes.texts}
    known = {name: made for name, made in edited.items() if made}
    seeds = {**run.info.get("seeds", {}), result.analysis: seed}
    every = {**run.info.get("drawn", {}), result.analysis: number}
    drawn = {name: made for name, made in every.items() if made is not None}
    more = {"edited": known, "drawn": drawn}
    run.update(seeds=seeds, **{key: made for key, made in more.items() if made or key in run.info})


def _completed(analysis: Analysis, options: Mapping[str, Any]) -> dict[str, Any]:
    """Stored options, with defaults for those that have been added since."""
    try:
        whole = type(analysis.options).model_validate(dict(options)).model_dump(mode="json")
    except ValidationError:
        whole = dict(options)
    found: dict[str, Any] = plain(whole)
    return found
