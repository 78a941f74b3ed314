"""Which analyses suit a run: what they need, against what samples, columns and adapter hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vlmlens.abc.analysis import Analysis
from vlmlens.errors import (
    CheckpointError,
    CompositionError,
    DataError,
    MissingAnnotation,
    PluginError,
)
from vlmlens.manifest import Manifest, PluginKind
from vlmlens.samples import Sample
from vlmlens.spec.model import DEFAULT_ANALYSES, merged
from vlmlens.tokens import Column

if TYPE_CHECKING:
    from vlmlens.abc.adapter import ModelAdapter
    from vlmlens.registry import Registry

Asked = Mapping[str, Mapping[str, Any]]

_ACTIVATIONS = "activations"


def asked_analyses(by_user: Asked, suggested: Asked) -> dict[str, dict[str, Any]]:
    """The analyses with their options: the user's, else the default ones.

    Args:
        by_user: What the user asked for; empty for the default.
        suggested: Options that the data suggests, which apply where the user gave none.
    """
    asked = by_user or {name: {} for name in DEFAULT_ANALYSES}
    return {name: merged(suggested.get(name, {}), options) for name, options in asked.items()}


def suitable(
    registry: Registry,
    asked: Asked,
    *,
    adapter: Manifest,
    samples: Sequence[Sample],
    columns: Sequence[str],
    strict: bool,
    extractor: Manifest | None = None,
    skeleton: Callable[[], ModelAdapter] | None = None,
) -> tuple[dict[str, Analysis], dict[str, str]]:
    """The analyses that suit, ready to run, and why the others do not.

    Args:
        registry: The installed plugins.
        asked: Analyses with their options.
        adapter: What the model offers.
        samples: The run's samples.
        columns: Names of its columns; empty while they are not known.
        strict: Raise for one that does not suit (the user named it) instead of leaving it out.
        extractor: What makes the columns; None: it is taken to give activations.
        skeleton: Gives the model without weights, where an analysis asks for it; None: its
            columns are not known yet.

    Raises:
        SpecError: An option that an analysis does not have, or that means nothing for the model.
        PluginError, MissingAnnotation, CompositionError: Strict, and one does not suit.
    """
    made: dict[str, Analysis] = {}
    left_out: dict[str, str] = {}
    for name, options in asked.items():
        try:
            manifest = registry.find(PluginKind.ANALYSIS, name)
            _check_columns(manifest, extractor)
            analysis = _make(registry, manifest, options, adapter, samples, columns)
            if skeleton is not None and type(analysis).check_model is not Analysis.check_model:
                analysis.check_model(skeleton(), samples, columns)
            made[name] = analysis
        except (PluginError, CompositionError, MissingAnnotation) as error:
            if strict:
                raise
            left_out[name] = error.message
    return made, left_out


def check_storage(storage: Manifest, columns: Sequence[str]) -> None:
    """Raise where a store cannot hold the columns.

    Raises:
        CompositionError: A column has several rows per sample, and the store keeps one.
    """
    if "ragged" in storage.offers:
        return
    for name in columns:
        if Column.parse(name).selector.ragged:
            raise CompositionError(
                f"The column {name!r} has several rows per sample, and the storage "
                f"{storage.name!r} keeps one (it does not offer 'ragged').",
                subject=name,
                hint="Pool it or pick a token, for example image.mean or last, or use --storage "
                "lmdb.",
            )


def check_lasting(storage: Manifest) -> None:
    """Raise where other processes would not find what one has stored.

    Raises:
        CompositionError: The store keeps it in its own process.
    """
    if "durable" not in storage.offers:
        raise CompositionError(
            f"Several processes share a run's columns, and the storage {storage.name!r} keeps them "
            "in one (it does not offer 'durable').",
            subject=storage.name,
            hint="Use --storage lmdb, or extract in one process.",
        )


def check_samples(skeleton: ModelAdapter, samples: Sequence[Sample]) -> None:
    """Raise where the family does not take samples with so many images, or with none.

    The first sample with each number of images is encoded. What a processor raises for another
    reason, or because it takes weights to tell, is left to the run.

    Raises:
        DataError: The family's own words.
        CheckpointError, PluginError: Its processor cannot be had.
    """
    tried: set[int] = set()
    for sample in samples:
        if len(sample.images) in tried:
            continue
        tried.add(len(sample.images))
        try:
            skeleton.encode([sample])
        except (DataError, CheckpointError, PluginError):
            raise
        except Exception:  # noqa: BLE001, S112  processors raise what they like; the run will tell
            continue


def _make(
    registry: Registry,
    manifest: Manifest,
    options: Mapping[str, Any],
    adapter: Manifest,
    samples: Sequence[Sample],
    columns: Sequence[str],
) -> Analysis:
    analysis: Analysis = registry.load(manifest)(registry.options(manifest, options))
    _check_needs(manifest, adapter, samples)
    _check_options(manifest, analysis, adapter)
    analysis.check(samples, columns)
    return analysis


def _check_columns(analysis: Manifest, extractor: Manifest | None) -> None:
    """Raise where an analysis reads activations, and the columns are something else."""
    if extractor is None or _ACTIVATIONS not in analysis.needs:
        return
    if _ACTIVATIONS not in extractor.offers:
        raise CompositionError(
            f"The analysis {analysis.name!r} reads activations, which the extractor "
            f"{extractor.name!r} does not give.",
            subject=analysis.name,
            hint="Leave the analysis out, or use --extractor activations.",
        )


def _check_needs(analysis: Manifest, adapter: Manifest, samples: Sequence[Sample]) -> None:
    held = {
        "labels": any(sample.label is not None for sample in samples),
        "choices": any(sample.choices for sample in samples),
        "images": any(sample.images for sample in samples),
        "answers": _can_answer(adapter, samples),
        "model": True,
        _ACTIVATIONS: True,
    }
    if "answers" in analysis.needs and not held["answers"]:
        raise MissingAnnotation(
            f"The analysis {analysis.name!r} needs answers: the adapter {adapter.name!r} only "
            "compares choices, and a sample has neither choices nor a label.",
            subject=analysis.name,
            hint="Give the data a column of choices, or labels, or leave the analysis out.",
        )
    for need in sorted(analysis.needs):
        if need in held and not held[need]:
            raise MissingAnnotation(
                f"The analysis {analysis.name!r} needs {need}, and no sample has any.",
                subject=analysis.name,
                hint="Add them to the data, or leave the analysis out.",
            )
        if need not in held and need not in adapter.offers:
            raise CompositionError(
                f"The analysis {analysis.name!r} needs {need!r}, which the adapter "
                f"{adapter.name!r} does not offer (it offers "
                f"{', '.join(sorted(adapter.offers)) or 'nothing'}).",
                subject=analysis.name,
                hint="Leave the analysis out, or choose another adapter.",
            )


def _check_options(manifest: Manifest, analysis: Analysis, adapter: Manifest) -> None:
    for need in sorted(analysis.needs() - adapter.offers):
        raise CompositionError(
            f"The analysis {manifest.name!r}, with these options, needs {need!r}, which the "
            f"adapter {adapter.name!r} does not offer.",
            subject=manifest.name,
            hint="Choose other options for the analysis, or another adapter.",
        )


def _can_answer(adapter: Manifest, samples: Sequence[Sample]) -> bool:
    """Whether every question can be answered: by a model that writes, or out of choices."""
    if "choice-scores" not in adapter.offers or "generate" in adapter.offers:
        return True
    return all(sample.choices or sample.label is not None for sample in samples)
