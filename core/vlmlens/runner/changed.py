"""Analyses of a run whose model is changed beside what the run did: what is asked, what is said."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from vlmlens.compose.labels import analysis_named
from vlmlens.errors import CompositionError, SpecError
from vlmlens.registry import names_file

if TYPE_CHECKING:
    from vlmlens.registry import Registry
    from vlmlens.results import Result
    from vlmlens.runner.changes import Changes
    from vlmlens.runner.stages import Job


def check_changed(analyses: Collection[str], changes: Changes, registry: Registry) -> None:
    """Raise an error for analyses that edits, or what was tuned, cannot be for.

    Args:
        analyses: What the user named.
        changes: The changes; none: everything is fine.
        registry: The installed plugins.

    Raises:
        SpecError: An analysis has no label, so its result would stand for that of the model as it
            is; or none is named.
        CompositionError: One never runs the model. Whether one does with its options and the
            run's samples is seen later, by `model_must_run`.
        PluginError: There is no such analysis.
    """
    if not changes:
        return
    what, label = ("Edits are", "edited") if changes.edits else ("What was tuned is", "tuned")
    if not analyses:
        raise SpecError(
            f"{what} for analyses that are named.",
            subject=changes.first,
            hint=f"Name one, with a label: --analysis blind-test:{label}.",
        )
    for name in analyses:
        manifest, given = analysis_named(registry, name)
        if "model" not in manifest.needs and not names_file(name):
            raise _not_run(manifest.name, changes)
        if not given:
            raise SpecError(
                f"A result of a changed model needs a label: as {manifest.name!r} it would be "
                "taken for that of the model as it is.",
                subject=name,
                hint=f"Give it one: --analysis {name}:{label}, with options at "
                f"analysis.{name}:{label}.",
            )


@contextmanager
def model_must_run(job: Job, name: str) -> Iterator[None]:
    """Raise an error at the end if an analysis of a changed model did not use the model.

    Under edits it must run it. Of a tuned model it may also read the weights.

    Raises:
        CompositionError: It did not.
    """
    before, asked = _passes(job), _asked(job)
    yield
    used = _asked(job) != asked and not job.changes.edits
    if job.changes and not used and _passes(job) == before:
        raise _not_run(name, job.changes)


def telling(result: Result, changes: Changes) -> Result:
    """The result, with a note on the changes of the model with which it was made."""
    if not changes:
        return result
    how = "ran under edits" if changes.tuned is None else "was changed"
    note = (
        f"The model {how}: {changes.told}. Stored columns are those of the run, which were made "
        "without them."
    )
    return replace(result, notes=[note, *result.notes])


def _passes(job: Job) -> int:
    """How much the changed model has done: units, of which some may be known, and edited passes."""
    loaded = job.model.cache_info().currsize
    return job.units + sum(each.passes for each in (job.model().active_edits if loaded else ()))


def _asked(job: Job) -> int:
    """How often the job's model has been asked for."""
    info = job.model.cache_info()
    return info.hits + info.misses


def _not_run(name: str, changes: Changes) -> CompositionError:
    option = "--edit" if changes.edits else "--tuned"
    return CompositionError(
        f"The analysis {name!r} does not run the model, so {changes.first!r} would change nothing: "
        "it uses what is stored.",
        subject=name,
        hint=f"To analyse columns of the changed model, extract them: vlmlens run {option} ...",
    )
