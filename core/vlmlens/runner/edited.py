"""Analyses of a run whose model is edited beside what the run did: what is asked, what is said."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from vlmlens.compose.labels import analysis_named
from vlmlens.errors import CompositionError, SpecError
from vlmlens.registry import names_file

if TYPE_CHECKING:
    from vlmlens.registry import Registry
    from vlmlens.results import Result
    from vlmlens.runner.stages import Job


def check_edited(analyses: Collection[str], edits: Sequence[str], registry: Registry) -> None:
    """Raise an error for analyses that edits cannot be for.

    Args:
        analyses: What the user named.
        edits: The edits; none: everything is fine.
        registry: The installed plugins.

    Raises:
        SpecError: An analysis has no label, so its result would stand for that of the model as it
            is; or none is named.
        CompositionError: One never runs the model. Whether one does with its options and the
            run's samples is seen later, by `model_must_run`.
        PluginError: There is no such analysis.
    """
    if not edits:
        return
    if not analyses:
        raise SpecError(
            "Edits are for analyses that are named.",
            subject=edits[0],
            hint="Name one, with a label: --analysis blind-test:edited.",
        )
    for name in analyses:
        manifest, label = analysis_named(registry, name)
        if "model" not in manifest.needs and not names_file(name):
            raise _not_run(manifest.name, edits)
        if not label:
            raise SpecError(
                f"A result under edits needs a label: as {manifest.name!r} it would be taken for "
                "that of the model as it is.",
                subject=name,
                hint=f"Give it one: --analysis {name}:edited, with options at "
                f"analysis.{name}:edited.",
            )


@contextmanager
def model_must_run(job: Job, name: str) -> Iterator[None]:
    """Raise an error at the end if an analysis under edits did not run the model.

    Raises:
        CompositionError: It did not.
    """
    before = _passes(job)
    yield
    if job.edits and _passes(job) == before:
        raise _not_run(name, job.edits)


def telling(result: Result, edits: Sequence[str]) -> Result:
    """The result, with a note on the edits under which it was made."""
    if not edits:
        return result
    note = (
        f"The model ran under edits: {'; '.join(edits)}. Stored columns are those of the run, "
        "which were made without them."
    )
    return replace(result, notes=[note, *result.notes])


def _passes(job: Job) -> int:
    """How much the edited model has done: units, of which some may be known, and passes."""
    loaded = job.model.cache_info().currsize
    return job.units + sum(each.passes for each in (job.model().active_edits if loaded else ()))


def _not_run(name: str, edits: Sequence[str]) -> CompositionError:
    return CompositionError(
        f"The analysis {name!r} does not run the model, so {edits[0]!r} would change nothing: it "
        "uses what is stored.",
        subject=name,
        hint="To analyse columns under edits, extract them: vlmlens run --edit ...",
    )
