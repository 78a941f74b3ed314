"""Samples that are given in memory: a list of them, a dataset, or a table such as a DataFrame."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from vlmlens.abc.dataset import Dataset
from vlmlens.errors import DataNotFound, SpecError
from vlmlens.manifest import PluginKind
from vlmlens.samples import Sample, with_prompts

if TYPE_CHECKING:
    import pandas

    from vlmlens.registry import Registry
    from vlmlens.spec.model import RunSpec

Given: TypeAlias = "Sample | Iterable[Sample | Mapping[str, Any]] | Dataset | pandas.DataFrame"
"""Samples, rows of a table (mappings, a DataFrame, a `datasets.Dataset`), or a dataset plugin."""

IN_MEMORY = "samples in memory"
"""Stands in a spec for data that has no path, until the run folder holds it."""


def given_samples(
    data: Given, spec: RunSpec, registry: Registry
) -> tuple[Sequence[Sample], Sequence[str]]:
    """The samples of what the user gave, and what was guessed about them.

    Args:
        data: Samples, a dataset or a table.
        spec: Its prompts are asked; its dataset options are those of a table.
        registry: The plugin `table` reads tables.

    Raises:
        DataError: There are none, or a row holds what is no sample.
        SpecError: It is something else.
    """
    if isinstance(data, Dataset):
        return data.samples(spec.prompt), data.notes
    if isinstance(data, Sample):
        data = [data]
    if isinstance(data, str | bytes | Mapping) or not isinstance(data, Iterable):
        raise _no_data(data)
    items = _rows(data)
    if not items:
        raise DataNotFound(
            "data holds no samples.", subject="data", hint="Give at least one Sample or row."
        )
    if all(isinstance(item, Sample) for item in items):
        return with_prompts(items, spec.prompt), ()
    if all(isinstance(item, Mapping) for item in items):
        manifest = registry.find(PluginKind.DATASET, "table")
        options = registry.options(manifest, spec.options.dataset)
        table: Dataset = registry.load(manifest).of_rows(items, options)
        return table.samples(spec.prompt), table.notes
    raise _no_data(next(item for item in items if not isinstance(item, Sample)))


def _rows(data: Any) -> list[Any]:
    """What it holds, one by one; of a DataFrame, its rows as mappings."""
    is_frame = hasattr(data, "to_dict") and hasattr(data, "columns")
    return data.to_dict("records") if is_frame else list(data)


def _no_data(found: object) -> SpecError:
    shown = repr(found)
    return SpecError(
        f"data holds {shown[:80]} of {type(found).__name__}, which is no sample.",
        subject="data",
        hint="Give a path, DATASET:SOURCE, a list of vlmlens.Sample, a Dataset, or a DataFrame "
        "with the columns of a table: image, prompt, label, ...",
    )
