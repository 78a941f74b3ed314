"""What the analyses of a run use of it: columns, the model, or only samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from vlmlens.abc.analysis import COLUMNS, MODEL
from vlmlens.compose.applicability import Asked
from vlmlens.compose.labels import analysis_named
from vlmlens.errors import CompositionError
from vlmlens.sample_table import SampleTable

if TYPE_CHECKING:
    from vlmlens.abc.analysis import Analysis
    from vlmlens.registry import Registry
    from vlmlens.samples import Sample
    from vlmlens.spec.model import RunSpec

_ALL = frozenset({COLUMNS, MODEL})


def used(
    spec: RunSpec, analyses: Mapping[str, Analysis], samples: Sequence[Sample]
) -> frozenset[str]:
    """What a run is to have, `COLUMNS` and `MODEL`: what the user asks for or an analysis uses.

    Args:
        spec: What the user asked for.
        analyses: Those of the run; none: everything is used.
        samples: The run's samples.

    Raises:
        CompositionError: The model is edited or tuned, and nothing uses it.
    """
    if not analyses or _asks_to_record(spec):
        return _ALL
    found = frozenset[str]().union(*(each.uses(samples) for each in analyses.values()))
    if COLUMNS in found:
        return _ALL
    changes = [*spec.edits, *([] if spec.tuned is None else [spec.tuned])]
    if changes and MODEL not in found:
        raise CompositionError(
            f"Nothing runs the model: {', '.join(analyses)} uses what the samples say, so "
            f"{changes[0]!r} would change nothing.",
            subject=changes[0],
            hint="Leave it out, or let the model answer.",
        )
    return found


def may_use_model(
    spec: RunSpec, asked: Asked, registry: Registry, samples: Sequence[Sample]
) -> bool:
    """Whether a run may have the model. Nothing is checked, so that samples may be incomplete.

    Args:
        spec: What the user asked for.
        asked: Analyses with their options.
        registry: The installed plugins.
        samples: The run's samples.

    Raises:
        PluginError: There is no such analysis.
        SpecError: It does not have such an option.
    """
    if not asked or _asks_to_record(spec):
        return True
    for name, options in asked.items():
        manifest, _ = analysis_named(registry, name)
        analysis: Analysis = registry.load(manifest)(registry.options(manifest, options))
        if analysis.uses(samples):
            return True
    return False


def without_missing_images(samples: SampleTable) -> tuple[SampleTable, list[str]]:
    """The samples, without images whose files are not there; and a note where some are not.

    This is for runs in which nothing looks at images. Groups stay what they were.
    """
    there = cache(lambda path: Path(path).is_file())

    def lacks(sample: Sample) -> bool:
        return any(isinstance(image, str) and not there(image) for image in sample.images)

    lacking = [sample.id for sample in samples if lacks(sample)]
    if not lacking:
        return samples, []
    kept = SampleTable(
        replace(sample, images=(), group=sample.split_group) if lacks(sample) else sample
        for sample in samples
    )
    first = next(str(image) for image in samples[samples.numbers[lacking[0]]].images)
    return kept, [
        f"{len(lacking)} of {len(samples)} samples are kept without their images, whose files are "
        f"not there (the first: {first}). Nothing in this run looks at images."
    ]


def _asks_to_record(spec: RunSpec) -> bool:
    """Whether the user says what is to be recorded."""
    default = type(spec).model_fields["extractor"].default
    extractor = spec.extractor != default or bool(spec.options.extractor)
    return extractor or bool(spec.sites) or spec.generate is not None
