"""The forms of AMBER: the authors' files, VLMEvalKit's table, rows of the hub; all as `Item`s."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmlens.errors import DataError, DataNotFound, ManifestError
from vlmlens_plugins.benchmarks.amber.metrics import CAPTION
from vlmlens_plugins.benchmarks.forms import HeldImages, wrong_form
from vlmlens_plugins.benchmarks.sources import Source, file_source
from vlmlens_plugins.data._table_files import Row

TITLE = "AMBER"
ANNOTATIONS = "annotations.json"
FORMS = {
    "official files": "a folder data/ with annotations.json, query/, relation.json and "
    "safe_words.txt, or one file of query/",
    "VLMEvalKit table": "index, question, answer, category, image",
    "hub columns": "image, truth, hallu, task_type, question_id",
}
QUESTION = "Describe this image."
_TASKS = {
    "generative": CAPTION,
    "discriminative-hallucination": "existence",
    "discriminative-attribute-state": "attribute/state",
    "discriminative-attribute-number": "attribute/number",
    "discriminative-attribute-action": "attribute/action",
    "discriminative-relation": "relation",
    "relation": "relation",
}
_TYPES = ("type", "task_type", "category")
_QUESTIONS = ("query", "question", "text")
_IDS = ("id", "question_id", "index")


@dataclass(frozen=True, slots=True)
class Item:
    """A caption or a question.

    Args:
        id: The set's own.
        type: As the authors name it.
        task: "generative", "existence", "attribute/state", ..., "relation".
        question: The prompt.
        image: The cell.
        group: What names the picture; None: its cell does.
        answer: "yes" or "no"; None of a caption.
        truth: What is there, of a caption.
        hallu: What models tend to make up, of a caption.
        place: "FILE, line 3".
    """

    id: str
    type: str
    task: str
    question: str
    image: Any
    group: str | None
    answer: str | None
    truth: tuple[str, ...]
    hallu: tuple[str, ...]
    place: str


def data_folder(place: Path) -> Path | None:
    """The folder with the authors' annotations: the one given, its data/, or that of a file."""
    if place.is_file() and place.suffix != ".json":
        return None
    bases = (place, place / "data") if place.is_dir() else (place.parent, place.parent.parent)
    return next((base for base in bases if (base / ANNOTATIONS).is_file()), None)


def official(place: Path, data: Path) -> Iterator[Item]:
    """The items of the authors' files, joined by id.

    Raises:
        DataError: A file is not AMBER's, or a question has no annotation.
    """
    annotations = file_source(data / ANNOTATIONS)
    _expect(annotations, "id", "type", "truth")
    known = {str(row.cells["id"]): row.cells for row in annotations.rows}
    for file in _query_files(place, data):
        source = file_source(file)
        _expect(source, "id", "image", "query")
        for row in source.rows:
            about = known.get(str(row.cells["id"]))
            if about is None:
                raise ManifestError(
                    f"{file}, {row.place}: the question {row.cells['id']!r} has no annotation.",
                    subject=f"{file}, {row.place}",
                    hint=f"Questions and {ANNOTATIONS} must be of the same release.",
                )
            yield _item({**about, **row.cells}, f"{file}, {row.place}")


def rows(source: Source) -> tuple[str, Iterator[Item]]:
    """The form of a table, and its items.

    Raises:
        DataError: Its columns are in none of AMBER's forms.
    """
    if source.has("index", "question", "answer", "category", "image"):
        held = HeldImages(source)
        return "VLMEvalKit table", (
            _item({**row.cells, "image": held.cell(row)}, _place(source, row))
            for row in source.rows
        )
    if source.has("image", "truth") and (source.has("hallu") or _named(source.columns, _TYPES)):
        return "hub columns", (_item(row.cells, _place(source, row)) for row in source.rows)
    raise wrong_form(TITLE, source.name, source.columns, FORMS)


def _query_files(place: Path, data: Path) -> list[Path]:
    """The file given, else the one with all questions, else those of both parts."""
    if place.is_file() and place.name != ANNOTATIONS:
        return [place]
    whole = data / "query" / "query_all.json"
    parts = [whole.with_name(f"query_{part}.json") for part in ("generative", "discriminative")]
    found = [whole] if whole.is_file() else [part for part in parts if part.is_file()]
    if not found:
        raise DataNotFound(
            f"{str(data)!r} has {ANNOTATIONS}, but no query/query_all.json.",
            subject=str(data),
            hint="Take the folder data/ whole, as the authors publish it.",
        )
    return found


def _expect(source: Source, *columns: str) -> None:
    if not source.has(*columns):
        raise wrong_form(TITLE, source.name, source.columns, {"official files": ", ".join(columns)})


def _item(cells: Mapping[str, Any], place: str) -> Item:
    kind = str(cells.get(_named(cells, _TYPES) or "", "generative"))
    task = _TASKS.get(kind)
    if task is None:
        raise _wrong(place, "the type", kind, f"one of {', '.join(_TASKS)}")
    caption = task == CAPTION
    truth = cells.get("truth", cells.get("answer"))
    number = cells.get(_named(cells, _IDS) or "")
    if number is None or not str(number).strip():
        raise _wrong(place, "the id", number, "a number")
    return Item(
        id=str(number),
        type=kind,
        task=task,
        question=str(cells.get(_named(cells, _QUESTIONS) or "") or QUESTION),
        image=cells.get("image"),
        group=str(cells["image_path"]) if cells.get("image_path") else None,
        answer=None if caption else _answer(truth, place),
        truth=_words(truth, "truth", place) if caption else (),
        hallu=_words(cells.get("hallu"), "hallu", place) if caption else (),
        place=place,
    )


def _named(columns: Collection[str], names: Sequence[str]) -> str | None:
    return next((name for name in names if name in columns), None)


def _place(source: Source, row: Row) -> str:
    return f"{source.name}, {row.place}"


def _words(value: Any, column: str, place: str) -> tuple[str, ...]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = None
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return tuple(value)
    raise _wrong(place, f"{column} of a caption", value, "a list of words")


def _answer(value: Any, place: str) -> str:
    one = value[0] if isinstance(value, list) and len(value) == 1 else value
    said = str(one).strip().lower()
    if said not in ("yes", "no"):
        raise _wrong(place, "the answer", value, "yes or no")
    return said


def _wrong(place: str, what: str, value: Any, expected: str) -> DataError:
    return ManifestError(
        f"{place}: {what} is {str(value)[:60]!r}, where {expected} is expected.",
        subject=place,
        hint="Take the files as the authors publish them.",
    )
