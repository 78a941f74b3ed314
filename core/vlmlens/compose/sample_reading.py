"""Reading the samples of a run, with a text that stands in where images come without prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vlmlens.compose.applicability import Asked
from vlmlens.compose.given import Given, given_samples
from vlmlens.errors import DataError, SpecError
from vlmlens.manifest import IMAGES_ONLY, Manifest
from vlmlens.runs.run import Run, is_run
from vlmlens.sample_table import SampleTable
from vlmlens.samples import Sample, asked, check_ids
from vlmlens.spec.model import DEMO_DATA, RunSpec

if TYPE_CHECKING:
    from vlmlens.abc.dataset import Dataset
    from vlmlens.registry import Registry

Read = tuple[Asked, SampleTable, Sequence[str]]
"""Options of analyses that the data suggests, the samples, and what was guessed."""

_STAND_IN = "image"
_OF_IMAGES = ("vision.", "projector")
"""Columns that no text reaches, in a family with two towers."""


def samples_for(
    spec: RunSpec, adapter: Manifest, registry: Registry, data: Given | None, trust: bool
) -> tuple[RunSpec, Read, DataError | None]:
    """The samples of a run; if they come without a prompt, with the one that the adapter suggests.

    Args:
        spec: What the user asked for.
        adapter: The adapter's manifest.
        registry: The installed plugins.
        data: Samples in memory, instead of those that the spec names.
        trust: See `compose`.

    Returns:
        The spec, with the suggested prompt where it is used; what was read; and, where it is used,
        the error that there would be without it, for `stood_in`.

    Raises:
        DataError: Samples cannot be read.
    """
    if IMAGES_ONLY in adapter.offers:
        return spec, _unasked(spec, registry, data, trust), None
    try:
        return spec, read_samples(spec, registry, data, trust=trust), None
    except DataError as error:
        prompt = adapter.suggests.get("prompt")
        if spec.prompt or not prompt:
            raise
        other, reason = spec.model_copy(update={"prompt": list(prompt)}), error
    try:
        return other, read_samples(other, registry, data, trust=trust), reason
    except DataError:
        raise reason from None


def _unasked(spec: RunSpec, registry: Registry, data: Given | None, trust: bool) -> Read:
    """The samples for a model that reads no text; those of images alone have the prompt ""."""
    try:
        return read_samples(spec, registry, data, trust=trust)
    except DataError as error:
        if spec.prompt:
            raise
        reason = error
    other = spec.model_copy(update={"prompt": [_STAND_IN]})
    try:
        suggests, samples, notes = read_samples(other, registry, data, trust=trust)
    except DataError:
        raise reason from None
    return suggests, SampleTable(replace(sample, prompt="") for sample in samples), notes


def stood_in(spec: RunSpec, columns: Sequence[str], reason: DataError | None) -> list[str]:
    """The note that a text stands in for prompts, if one does (see `samples_for`).

    Raises:
        DataError: A column depends on the prompt; or there are none, and the model is asked.
    """
    if reason is None:
        return []
    if not columns or not all(name.startswith(_OF_IMAGES) for name in columns):
        also = "Or take columns that no text reaches: --sites 'vision.block.*/image.mean'."
        raise DataError(
            reason.message, subject=reason.subject, hint=f"{reason.hint} {also}".strip()
        ) from reason
    return [f"The images come without a prompt: the text {spec.prompt[0]!r} stands in for one."]


def read_samples(
    spec: RunSpec, registry: Registry, data: Given | None = None, *, trust: bool = False
) -> Read:
    """The samples of a spec, with unique ids.

    Args:
        spec: What the user asked for. Its data may be the folder of a run: then that run's samples.
        registry: The installed plugins.
        data: Samples in memory, instead of those that the spec names.
        trust: See `compose`.

    Returns:
        Options of analyses that the data suggests, the samples, and what was guessed.
    """
    suggests, samples, notes = _read(spec, registry, data, trust)
    if spec.limit is not None and spec.limit < len(samples):
        samples = samples[: spec.limit]
    rules = spec.image_rules
    if rules.changed():
        samples = SampleTable(
            replace(sample, rules=replace(rules, size=sample.rules.size)) for sample in samples
        )
    table = SampleTable.of(samples)
    check_ids(table.ids)
    return suggests, table, notes


def _read(
    spec: RunSpec, registry: Registry, data: Given | None, trust: bool
) -> tuple[Asked, Sequence[Sample], Sequence[str]]:
    if data is not None:
        return {}, *given_samples(data, spec, registry)
    named = data_of(spec)
    if is_run(named):
        run = Run(Path(named).expanduser(), registry=registry, trust=trust)
        return run.info.get("suggested", {}), SampleTable(asked(run.samples, spec.prompt)), ()
    manifest, source = registry.dataset_for(named)
    options = registry.options(manifest, spec.options.dataset)
    dataset: Dataset = registry.load(manifest)(source, options)
    samples = dataset.samples(spec.prompt)
    suggests = (
        manifest.suggests.get("analysis", {}) if dataset.suggests is None else dataset.suggests
    )
    return suggests, samples, dataset.notes


def data_of(spec: RunSpec) -> str:
    """The data of a spec; the demo has its own.

    Raises:
        SpecError: None is named.
    """
    if spec.data is not None:
        return spec.data
    if spec.adapter == "demo":
        return DEMO_DATA
    raise SpecError(
        f"No data was named for the adapter {spec.adapter!r}.",
        subject="data",
        hint="Give --data: a folder of images, a .json, .csv or .parquet file, or demo:scenes.",
    )
