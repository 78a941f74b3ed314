"""samples.jsonl: the samples of a run, a JSON object per line, read and written in pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from vlmlens._files import write_bytes
from vlmlens.runs.records import damaged, each_record
from vlmlens.runs.signing import signature
from vlmlens.sample_table import SampleTable, record_lines
from vlmlens.samples import Sample

FILE = "samples.jsonl"
_KEYS = ("id", "prompt", "images")
_PIECE = 1 << 20


def write_table(
    path: Path,
    samples: Iterable[Sample],
    keep: Callable[[Sample], Sample],
    name: Callable[[str], str],
) -> tuple[str | None, int]:
    """Write the samples.

    Args:
        path: The file.
        samples: The samples; a table knows the fingerprints of images that were read before.
        keep: Gives a sample whose images are all files.
        name: How the file calls an image.

    Returns:
        The signature of the file, and the number of distinct images.
    """
    table = SampleTable.of(samples)
    images: set[int] = set()

    def named(sample: Sample) -> dict[str, Any]:
        record = sample.to_dict()
        record["images"] = [name(str(image)) for image in sample.images]
        images.update(map(hash, record["images"]))
        return record

    write_bytes(path, record_lines(table, keep, named))
    with path.open("rb") as file:
        made = signature(FILE, iter(lambda: file.read(_PIECE), b""))
    return made, len(images)


def read_table(
    path: Path, make: Callable[[Mapping[str, Any]], Sample], count: int | None
) -> SampleTable:
    """The samples of a file; none if there is no file.

    Args:
        path: The file.
        make: Makes a sample of its object.
        count: The number of samples, if it is known.

    Raises:
        RunError: A line is damaged, or lines are missing.
    """
    if path.exists():
        try:
            with path.open("rb") as lines:
                table = SampleTable.of_lines(lines, make)
        except (ValueError, KeyError, TypeError, RecursionError, AttributeError) as error:
            _find_damage(path, count)
            raise damaged(path, str(error)) from error
        if count in (None, len(table)):
            return table
    _find_damage(path, count)
    return SampleTable()


def _find_damage(path: Path, count: int | None) -> None:
    """Raise the error that names the damaged line."""
    for _ in each_record(path, *_KEYS, count=count):
        pass
