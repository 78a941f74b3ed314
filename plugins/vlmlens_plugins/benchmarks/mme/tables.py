"""MME in tables: the hub's columns, and VLMEvalKit's table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Final

from vlmlens_plugins.benchmarks.forms import HeldImages, missing, text_in, wrong_form
from vlmlens_plugins.benchmarks.mme.asked import TASKS, Asked, label_of, task_of
from vlmlens_plugins.benchmarks.sources import Source
from vlmlens_plugins.data._embedded import Stored
from vlmlens_plugins.data._table_files import Row

TITLE: Final = "MME"
FILES: Final = ("MME.tsv",)
_HUB = ("question_id", "image", "question", "answer", "category")
_TSV = ("index", "category", "image_path", "question", "answer", "image")
FORMS: Final = {
    "official files": "a folder for each task, such as existence/, with images and text files",
    "hub columns": ", ".join(_HUB),
    "VLMEvalKit table": "MME.tsv with " + ", ".join(_TSV),
}


def form_of(source: Source, given: str) -> tuple[str, Iterator[Asked]]:
    """Which form a table has, and its questions.

    Raises:
        DataError: None of them.
        ManifestError: A row is broken (while the questions are taken).
    """
    if source.has(*_TSV):
        return "VLMEvalKit table", _read(source, "image_path", HeldImages(source))
    if source.has(*_HUB):
        return "hub columns", _read(source, "question_id", None)
    raise wrong_form(TITLE, given, source.columns, FORMS)


def _read(source: Source, named: str, held: HeldImages | None) -> Iterator[Asked]:
    for row in source.rows:
        image = held.cell(row) if held else row.cells.get("image")
        if not isinstance(image, Stored):
            raise missing(row, "image", "an embedded image", source)
        yield _asked(row, source, named, image)


def _asked(row: Row, source: Source, named: str, image: Stored) -> Asked:
    task = task_of(text_in(row, "category", source))
    if task is None:
        raise missing(row, "category", "one of " + ", ".join(TASKS), source)
    label = label_of(text_in(row, "answer", source))
    if label is None:
        raise missing(row, "answer", "Yes or No", source)
    name = PurePosixPath(text_in(row, named, source)).name
    where = f"{source.name}, {row.place}"
    return Asked(task, name, text_in(row, "question", source), label, image, where)
