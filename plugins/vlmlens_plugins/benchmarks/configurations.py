"""The rows of a set on the hub or in a folder, where each part may be a configuration."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from vlmlens._files import expanded
from vlmlens.errors import DataNotFound
from vlmlens_plugins.benchmarks.forms import entries, is_hub_folder, wrong_form
from vlmlens_plugins.benchmarks.sources import Source, is_hub_name, source_of
from vlmlens_plugins.data._hf_loading import split_source


@dataclass(frozen=True, slots=True)
class Part:
    """The rows of one configuration.

    Args:
        name: The part that the configuration is of; "" where rows of several lie together.
        rows: Its rows.
    """

    name: str
    rows: Source


def parts_in(
    title: str,
    known: Collection[str],
    forms: Mapping[str, str],
    source: str,
    subset: str | None,
    revision: str | None,
) -> Iterator[Part]:
    """The rows of a source, part by part where it has a configuration for each.

    Args:
        title: The set's name, for messages.
        known: The set's parts.
        forms: For the error: what each form has.
        source: A table, a folder, or `ORG/NAME[:SPLIT]`.
        subset: The only configuration to read; None: all that are known.
        revision: Branch, tag or commit on the hub.

    Raises:
        DataError: There is no such thing, or nothing of the set in it.
    """
    chosen = [subset] if subset else _configurations(title, known, forms, source, revision)
    if not chosen:
        yield Part("", source_of(source, None, revision))
    for name in chosen:
        yield Part(name if name in known else "", source_of(source, name, revision))


def _configurations(
    title: str,
    known: Collection[str],
    forms: Mapping[str, str],
    source: str,
    revision: str | None,
) -> Sequence[str]:
    """The parts that are configurations of a source; none of a file or of one configuration."""
    place, _ = split_source(source)
    path = expanded(place)
    if path.is_file() or not (path.exists() or is_hub_name(source)):
        return []
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        return []
    if path.is_dir() and not is_hub_folder(path):
        raise wrong_form(title, source, entries(path), forms)
    names = _names(str(path) if path.exists() else place, revision, source)
    return [name for name in names if name in known]


def _names(place: str, revision: str | None, source: str) -> list[str]:
    try:
        from datasets import get_dataset_config_names
    except ImportError:
        return []  # `source_of` says what is missing
    from vlmlens.hf.network import hub_or_cache

    trouble = ""
    try:
        with nullcontext("") if expanded(place).exists() else hub_or_cache() as trouble:
            return list(get_dataset_config_names(place, revision=revision))
    except Exception as error:  # the package raises whatever its readers raise
        complaint = trouble or (str(error) or type(error).__name__).strip().splitlines()[0]
        raise DataNotFound(
            f"The dataset {source!r} cannot be loaded ({complaint.rstrip('.')}).",
            subject=source,
            hint="Check the name. Without a network, give a folder or a file.",
        ) from error
