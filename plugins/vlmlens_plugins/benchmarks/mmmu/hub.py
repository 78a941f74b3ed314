"""The rows of MMMU on the hub or in a folder, where each subject may be a configuration."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from vlmlens._files import expanded
from vlmlens.errors import DataNotFound
from vlmlens_plugins.benchmarks.forms import entries, is_hub_folder, wrong_form
from vlmlens_plugins.benchmarks.mmmu.subjects import SUBJECTS
from vlmlens_plugins.benchmarks.sources import Source, is_hub_name, source_of
from vlmlens_plugins.data._hf_loading import split_source

FORMS = {
    "hub columns": "id, question, options, answer, question_type, image_1, ...",
    "VLMEvalKit's table": "index, question, A, B, ..., answer, image, category",
}
TITLE = "MMMU"


@dataclass(frozen=True, slots=True)
class Subject:
    """The rows of one configuration.

    Args:
        name: The subject that the configuration is of; "" where rows of several lie together.
        rows: Its rows.
    """

    name: str
    rows: Source


def subjects_in(source: str, subset: str | None, revision: str | None) -> Iterator[Subject]:
    """The rows of a source, subject by subject where it has a configuration per subject.

    Args:
        source: A table, a folder, or `ORG/NAME[:SPLIT]`.
        subset: The only configuration to read; None: all subjects.
        revision: Branch, tag or commit on the hub.

    Raises:
        DataError: There is no such thing, or nothing of MMMU in it.
    """
    chosen = [subset] if subset else _configurations(source, revision)
    if not chosen:
        yield Subject("", source_of(source, None, revision))
    for name in chosen:
        yield Subject(name if name in SUBJECTS else "", source_of(source, name, revision))


def _configurations(source: str, revision: str | None) -> Sequence[str]:
    """The subjects that are configurations of a source; none of a file or of one configuration."""
    place, _ = split_source(source)
    path = expanded(place)
    if path.is_file() or not (path.exists() or is_hub_name(source)):
        return []
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        return []
    if path.is_dir() and not is_hub_folder(path):
        raise wrong_form(TITLE, source, entries(path), FORMS)
    return _names(str(path) if path.exists() else place, revision, source)


def _names(place: str, revision: str | None, source: str) -> list[str]:
    try:
        from datasets import get_dataset_config_names
    except ImportError:
        return []  # `source_of` says what is missing
    from vlmlens.hf.network import hub_or_cache

    trouble = ""
    try:
        with nullcontext("") if expanded(place).exists() else hub_or_cache() as trouble:
            names = get_dataset_config_names(place, revision=revision)
    except Exception as error:  # the package raises whatever its readers raise
        complaint = trouble or (str(error) or type(error).__name__).strip().splitlines()[0]
        raise DataNotFound(
            f"The dataset {source!r} cannot be loaded ({complaint.rstrip('.')}).",
            subject=source,
            hint="Check the name. Without a network, give a folder or a file.",
        ) from error
    return [name for name in names if name in SUBJECTS]
