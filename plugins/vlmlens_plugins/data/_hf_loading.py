"""From a source of the dataset `hf` to a table of the package `datasets`."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmlens._files import expanded
from vlmlens.errors import DataNotFound, MissingDependency, did_you_mean
from vlmlens_plugins.data._paths import existing

if TYPE_CHECKING:
    from datasets import Dataset as HubTable

_BUILDERS = {
    ".parquet": "parquet",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".csv": "csv",
    ".arrow": "arrow",
}
_WITH_SPLIT = re.compile(r"(?P<data>.+?):(?P<split>[\w.+-]+(?:\[[^\]]*\])?)")
_PATHLIKE = ("/", "./", "../", "~")


def split_source(source: str) -> tuple[str, str | None]:
    """The dataset and the split of `DATASET:SPLIT`; a path that exists is one as it is.

    >>> split_source("org/name:test[:9]"), split_source("org/name")
    (('org/name', 'test[:9]'), ('org/name', None))
    """
    if expanded(source).exists():
        return source, None
    match = _WITH_SPLIT.fullmatch(source)
    return (match["data"], match["split"]) if match else (source, None)


def load(
    source: str, path: str, split: str | None, subset: str | None, revision: str | None
) -> HubTable:
    """The rows of one split.

    Args:
        source: What the user gave, for messages.
        path: A path, or a dataset's id on the hub.
        split: Its split; None: the only one.
        subset: Its configuration.
        revision: Branch, tag or commit on the hub.

    Raises:
        DataNotFound: There is no such dataset, it cannot be read, or the split is not clear.
        MissingDependency: The package is not installed.
    """
    _check_installed()
    if path.startswith(_PATHLIKE):
        existing(path)
    place = expanded(path)
    trouble = ""
    try:
        if (place / "dataset_dict.json").is_file() or (place / "state.json").is_file():
            return _saved(source, place, split)
        with _hub(place) as trouble:
            return _loaded(source, *_builder(path, place), split, subset, revision)
    except DataNotFound:
        raise
    except Exception as error:  # the package raises whatever its readers raise
        complaint = trouble or (str(error) or type(error).__name__).strip().splitlines()[0]
        raise DataNotFound(
            f"The dataset {source!r} cannot be loaded ({complaint.rstrip('.')}).",
            subject=source,
            hint="Give a folder with the data files, or one of them."
            if place.exists()
            else "Check the name; a gated one needs `hf auth login`. Without a network, only what "
            "was loaded before or lies on disk is found.",
        ) from error


def _hub(place: Path) -> AbstractContextManager[str]:
    """Gives why only the cache is asked; empty if the hub is there, or is not needed."""
    if place.exists():
        return nullcontext("")
    from vlmlens.hf.network import hub_or_cache

    return hub_or_cache()


def _check_installed() -> None:
    try:
        import datasets  # noqa: F401 - whether it is there
    except ImportError as error:
        raise MissingDependency(
            "The dataset 'hf' needs the package datasets, not installed in this environment.",
            subject="datasets",
            hint="pip install 'vlmlens[hf-data]'.",
        ) from error


def _saved(source: str, place: Path, split: str | None) -> HubTable:
    """What `save_to_disk` wrote."""
    from datasets import DatasetDict, load_from_disk

    data: Any = load_from_disk(str(place))
    if isinstance(data, DatasetDict):
        return data[_chosen(source, split, list(data))]
    if split is not None and str(data.split) != split:
        known = [str(data.split)] if data.split else []
        raise _no_split(source, split, known)
    table: HubTable = data
    return table


def _loaded(
    source: str,
    builder: str,
    files: dict[str, Any],
    split: str | None,
    subset: str | None,
    revision: str | None,
) -> HubTable:
    from datasets import get_dataset_split_names, load_dataset

    arguments: dict[str, Any] = {**files, "revision": revision}
    plain = (split or "").partition("[")[0] or None
    names = get_dataset_split_names(builder, subset, **arguments)
    chosen = _chosen(source, plain, names)
    table: HubTable = load_dataset(
        builder, subset, split=split if split and plain == chosen else chosen, **arguments
    )
    return table


def _builder(path: str, place: Path) -> tuple[str, dict[str, Any]]:
    """The name by which `load_dataset` reads a path or a dataset of the hub, and its files."""
    if place.is_file():
        builder = _BUILDERS.get(place.suffix.lower())
        if builder is None:
            raise DataNotFound(
                f"{path!r} is not a data file.",
                subject=path,
                hint=f"Files end in {', '.join(sorted(_BUILDERS))}.",
            )
        return builder, {"data_files": str(place)}
    return (str(place) if place.exists() else path), {}


def _chosen(source: str, split: str | None, names: list[str]) -> str:
    if split is None and len(names) == 1:
        return names[0]
    if split is None:
        raise DataNotFound(
            f"{source} has several splits: {', '.join(names)}.",
            subject=source,
            hint=f"Name one behind it: {source}:{names[0]}" if names else "Name a split.",
        )
    if split not in names:
        raise _no_split(source, split, names)
    return split


def _no_split(source: str, split: str, names: list[str]) -> DataNotFound:
    listed = f"There are: {', '.join(names)}." if names else "It has no named splits."
    return DataNotFound(
        f"{source}: there is no split {split!r}.",
        subject=source,
        hint=did_you_mean(split, names) or listed,
    )
