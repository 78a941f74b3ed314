"""Which parts of a run fit together: what analyses need, what samples and adapter offer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any

from vlmlens.abc.analysis import Analysis
from vlmlens.compose.labels import analysis_named, result_name
from vlmlens.errors import (
    CheckpointError,
    CompositionError,
    DataError,
    MissingAnnotation,
    PluginError,
    SpecError,
)
from vlmlens.manifest import IMAGES_ONLY, Manifest
from vlmlens.samples import Sample
from vlmlens.spec.model import DEFAULT_ANALYSES, merged
from vlmlens.stores.opening import beside, is_passing, is_uri
from vlmlens.tokens import Column

if TYPE_CHECKING:
    from vlmlens.abc.adapter import ModelAdapter
    from vlmlens.registry import Registry

Asked = Mapping[str, Mapping[str, Any]]

_OF_COLUMNS = ("activations", "attention")
"""What an extractor's columns can be, which analyses need."""

_ANSWERS, _TEXT = "answers", "text"


def asked_analyses(
    by_user: Asked, suggested: Asked, extractor: Manifest | None = None
) -> dict[str, dict[str, Any]]:
    """The analyses with their options: the user's, else the default ones.

    Args:
        by_user: The analyses that the user asked for; empty: the default ones.
        suggested: Options that the data suggests. They are used if the user gave none.
        extractor: Its manifest may suggest analyses of its columns; they come after the default
            ones.
    """
    also: Asked = extractor.suggests.get("analysis", {}) if extractor else {}
    asked = by_user or {**{name: {} for name in DEFAULT_ANALYSES}, **also}
    return {
        name: merged(suggested.get(name, suggested.get(name.partition(":")[0], {})), options)
        for name, options in asked.items()
    }


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
    edited: bool = False,
) -> tuple[dict[str, Analysis], dict[str, str]]:
    """The analyses that suit the run, ready to run, and the reasons against the others.

    Args:
        registry: The installed plugins.
        asked: Analyses with their options.
        adapter: The adapter's manifest.
        samples: The run's samples.
        columns: Names of its columns; empty while they are not known.
        strict: Whether an analysis that does not suit is an error (because the user named it);
            if not, it is left out.
        extractor: The extractor's manifest; None: assume that it gives activations.
        skeleton: Returns the model without weights, for analyses that check it; None while the
            columns are not known.
        edited: Whether the model runs under edits.

    Raises:
        SpecError: An analysis does not have such an option, or it has no meaning for the model.
        PluginError, MissingAnnotation, CompositionError: `strict`, and an analysis does not suit.
    """
    made: dict[str, Analysis] = {}
    left_out: dict[str, str] = {}
    results: dict[str, str] = {}
    for name, options in asked.items():
        try:
            manifest, label = analysis_named(registry, name)
            _check_once(results, result_name(manifest, label), name)
            _check_columns(manifest, extractor)
            analysis = _make(registry, manifest, options, adapter, samples, columns, edited)
            if skeleton is not None and type(analysis).check_model is not Analysis.check_model:
                analysis.check_model(skeleton(), samples, columns)
            made[name] = analysis
        except (PluginError, CompositionError, MissingAnnotation) as error:
            if strict:
                raise
            left_out[name] = error.message
    return made, left_out


def _check_once(results: dict[str, str], result: str, name: str) -> None:
    """Raise an error if two names would keep their results in one place."""
    if result in results:
        raise SpecError(
            f"The analyses {results[result]!r} and {name!r} are the same: each has the result "
            f"{result!r}.",
            subject=name,
            hint=f"Give one of them a label: {result.partition(':')[0]}:NAME.",
        )
    results[result] = name


def check_storage(manifest: Manifest, storage: str, columns: Sequence[str]) -> list[str]:
    """Raise an error if the store cannot hold the columns.

    Args:
        manifest: The storage backend.
        storage: As the user named it: a name or a URI.
        columns: What it is to hold.

    Returns:
        What to tell the user of it.

    Raises:
        CompositionError: A column has several rows per sample, but the store keeps only one.
    """
    for name in columns if "ragged" not in manifest.offers else ():
        if Column.parse(name).selector.ragged:
            raise CompositionError(
                f"The column {name!r} has several rows per sample, but the storage "
                f"{manifest.name!r} keeps only one (it does not offer 'ragged').",
                subject=name,
                hint="Pool the rows or choose one token, for example image.mean or last; or use "
                "--storage lmdb.",
            )
    if columns and is_passing(manifest, storage):
        return [f"The storage {storage!r} keeps columns only until this process ends."]
    return []


def check_lasting(manifest: Manifest, storage: str) -> None:
    """Raise an error if other processes cannot read what one process has stored.

    Args:
        manifest: The storage backend.
        storage: As the user named it: a name or a URI.

    Raises:
        CompositionError: The store keeps columns in the memory of its own process.
        StoreError: It is a URI that has no room beside it for what other processes write.
    """
    if is_passing(manifest, storage):
        durable = "durable" in manifest.offers
        why = "it is fsspec's 'memory'" if durable else "it does not offer 'durable'"
        raise CompositionError(
            f"Several processes need the run's columns, but the storage {storage!r} keeps them in "
            f"one process ({why}).",
            subject=storage,
            hint="Use --storage lmdb, or extract in one process.",
        )
    if is_uri(storage):
        beside(storage)


def check_samples(skeleton: ModelAdapter, samples: Sequence[Sample]) -> None:
    """Raise an error if the family does not take samples with this number of images.

    For each number of images (also none), one sample is encoded. Other errors of a processor are
    left to the run, since some of them come from the missing weights.

    Raises:
        DataError: The family refuses such samples; the message is its own.
        CheckpointError, PluginError: The processor cannot be loaded.
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
    edited: bool,
) -> Analysis:
    analysis: Analysis = registry.load(manifest)(registry.options(manifest, options))
    _check_needs(manifest, adapter, samples)
    _check_options(manifest, analysis, adapter)
    if edited:
        _check_edited(manifest, analysis, adapter)
    analysis.check(samples, columns)
    return analysis


def _check_columns(analysis: Manifest, extractor: Manifest | None) -> None:
    """Raise an error if an analysis reads another kind of columns than there are."""
    if extractor is None:
        return
    for kind in _OF_COLUMNS:
        if kind in analysis.needs and kind not in extractor.offers:
            raise CompositionError(
                f"The analysis {analysis.name!r} reads {kind}, which the extractor "
                f"{extractor.name!r} does not give.",
                subject=analysis.name,
                hint=f"Leave the analysis out, or use --extractor {kind}.",
            )


def _check_asks(name: str, needs: Set[str], adapter: Manifest) -> None:
    """Raise an error if an analysis asks a model that reads no text."""
    if IMAGES_ONLY in adapter.offers and needs & {_ANSWERS, _TEXT}:
        raise CompositionError(
            f"The analysis {name!r} asks the model questions, but the adapter {adapter.name!r} "
            "reads images only.",
            subject=name,
            hint="Leave the analysis out, or choose a model that reads text.",
        )


def _check_needs(analysis: Manifest, adapter: Manifest, samples: Sequence[Sample]) -> None:
    _check_asks(analysis.name, analysis.needs, adapter)
    held = {
        "labels": any(sample.label is not None for sample in samples),
        "choices": any(sample.choices for sample in samples),
        "images": any(sample.images for sample in samples),
        _ANSWERS: _can_answer(adapter, samples),
        _TEXT: True,
        "model": True,
        **dict.fromkeys(_OF_COLUMNS, True),
    }
    if _ANSWERS in analysis.needs and not held[_ANSWERS]:
        raise MissingAnnotation(
            f"The analysis {analysis.name!r} needs answers. The adapter {adapter.name!r} only "
            "compares choices, but a sample has neither choices nor a label.",
            subject=analysis.name,
            hint="Give the data a column of choices, or labels, or leave the analysis out.",
        )
    for need in sorted(analysis.needs):
        if need in held and not held[need]:
            raise MissingAnnotation(
                f"The analysis {analysis.name!r} needs {need}, but no sample has any.",
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
    _check_asks(manifest.name, analysis.needs(), adapter)
    for need in sorted(analysis.needs() - adapter.offers - {_ANSWERS, _TEXT}):
        raise CompositionError(
            f"With these options, the analysis {manifest.name!r} needs {need!r}, which the "
            f"adapter {adapter.name!r} does not offer.",
            subject=manifest.name,
            hint="Choose other options for the analysis, or another adapter.",
        )


def _check_edited(manifest: Manifest, analysis: Analysis, adapter: Manifest) -> None:
    """Raise an error if an analysis asks a model that edits cannot reach while it answers."""
    if _ANSWERS in manifest.needs | analysis.needs() and _only_compares(adapter):
        raise CompositionError(
            f"The analysis {manifest.name!r} needs answers. The adapter {adapter.name!r} compares "
            "choices with the image outside of its passes, where edits cannot be applied.",
            subject=manifest.name,
            hint="Leave the edits or the analysis out, or choose a model that writes text.",
        )


def _only_compares(adapter: Manifest) -> bool:
    return "choice-scores" in adapter.offers and "generate" not in adapter.offers


def _can_answer(adapter: Manifest, samples: Sequence[Sample]) -> bool:
    """Whether every question can be answered: by generating text, or by comparing choices."""
    if not _only_compares(adapter):
        return True
    return all(sample.choices or sample.label is not None for sample in samples)
