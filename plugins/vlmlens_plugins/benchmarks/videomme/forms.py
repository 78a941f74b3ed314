"""The forms of Video-MME: hub columns, VLMEvalKit's table, the authors' file of answers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmlens._files import expanded
from vlmlens.errors import DataNotFound
from vlmlens_plugins.benchmarks.forms import (
    entries,
    is_hub_folder,
    missing,
    text_in,
    wrong_form,
)
from vlmlens_plugins.benchmarks.sources import Source, file_source, source_of
from vlmlens_plugins.data import _cells
from vlmlens_plugins.data._hf_loading import split_source
from vlmlens_plugins.data._table_files import Row

TITLE = "Video-MME"
FORMS = {
    "hub columns": "videoID, question_id, question, options, answer, duration, domain, ...",
    "VLMEvalKit's table": "video, video_path, question, candidates, answer, duration, ...",
    "the authors' file of answers": "video_id, duration, domain, sub_category, questions",
}
HUB, VLMEVALKIT, AUTHORS = FORMS
_COLUMNS = {
    HUB: ("videoID", "question_id", "question", "options", "answer", "duration"),
    VLMEVALKIT: ("video", "question", "candidates", "answer", "duration"),
    AUTHORS: ("video_id", "duration", "questions"),
}
_TABLES = ("videomme/test-*.parquet", "test-*.parquet", "*.parquet", "Video-MME.tsv", "*.tsv")
_LETTERED = re.compile(r"\s*\(?([A-Z])[.):]")
_SAVED = ("dataset_dict.json", "state.json")


@dataclass(frozen=True, slots=True)
class Question:
    """One question about one video.

    Args:
        id: Its own.
        videos: Names that the file of the video may have, the most usual first.
        text: The question.
        options: With their letters: "A. red".
        letters: Of the options.
        answer: The letter of the right one; None where it is not known.
        known: Duration, domain, sub-category and task type, as far as they are given.
    """

    id: str
    videos: tuple[str, ...]
    text: str
    options: tuple[str, ...]
    letters: tuple[str, ...]
    answer: str | None
    known: Mapping[str, str]


def table_of(source: str, subset: str | None, revision: str | None) -> Source:
    """The rows of a source: a table, a folder with one, or `ORG/NAME[:SPLIT]`.

    Raises:
        DataError: There is no such thing, or nothing of Video-MME in it.
    """
    path = expanded(split_source(source)[0])
    if path.is_dir() and not any((path / name).is_file() for name in _SAVED):
        for pattern in _TABLES:
            found = sorted(path.glob(pattern))
            if len(found) > 1:
                raise DataNotFound(
                    f"{source!r} has several tables: {', '.join(each.name for each in found)}.",
                    subject=source,
                    hint=f"Choose one: --data videomme:{found[0]}",
                )
            if found:
                return file_source(found[0])
        if not is_hub_folder(path):
            raise wrong_form(TITLE, source, entries(path), FORMS)
    return source_of(source, subset, revision)


def folder_of(source: str) -> Path | None:
    """The folder of the questions; None where they are from the hub."""
    path = expanded(split_source(source)[0])
    if path.is_dir():
        return path
    if path.is_file():
        return path.parent.parent if path.parent.name == "videomme" else path.parent
    return None


def form_of(table: Source) -> str:
    """The form of a table, by its columns.

    Raises:
        DataError: It is none of Video-MME's.
    """
    for form, columns in _COLUMNS.items():
        if table.has(*columns):
            return form
    raise wrong_form(TITLE, table.name, table.columns, FORMS)


def questions_in(table: Source) -> Iterator[Question]:
    """The questions of a table, in its order.

    Raises:
        DataError: A cell is missing or malformed; names the row.
    """
    form = form_of(table)
    for row in table.rows:
        if form == AUTHORS:
            yield from _of_video(row, table)
        else:
            yield _one(row, table, form)


def _one(row: Row, table: Source, form: str) -> Question:
    hub = form == HUB
    video = text_in(row, "videoID" if hub else "video", table)
    name = text_in(row, "question_id" if "question_id" in table.columns else "index", table)
    named = Path(str(row.cells.get("video_path") or "")).stem
    own = tuple(dict.fromkeys(filter(None, (video, named, _plain(row.cells.get("video_id"))))))
    return _question(name, own, row, table, "options" if hub else "candidates")


def _of_video(row: Row, table: Source) -> Iterator[Question]:
    """The questions of one entry of the authors' file."""
    given = row.cells.get("questions")
    asked = json.loads(given) if isinstance(given, str) and given.startswith("[") else given
    if not isinstance(asked, list) or not all(isinstance(each, dict) for each in asked):
        raise missing(row, "questions", "a list of questions", table)
    own = tuple(filter(None, (_plain(row.cells.get("videoID")), text_in(row, "video_id", table))))
    for each in asked:
        cells = {name: cell for name, cell in row.cells.items() if name != "questions"} | each
        inner = Row(row.number, row.place, cells)
        name = text_in(inner, "question_id", table)
        yield _question(name, own, inner, table, "options")


def _question(name: str, videos: tuple[str, ...], row: Row, table: Source, column: str) -> Question:
    options = _options(row, table, column)
    letters = tuple(option[0] for option in options)
    answer = _plain(row.cells.get("answer"))
    if answer and answer not in letters:
        raise missing(row, "answer", f"one of the letters {', '.join(letters)}", table)
    kinds = ("duration", "domain", "sub_category", "task_type")
    known = {kind: text for kind in kinds if (text := _plain(row.cells.get(kind)))}
    text = text_in(row, "question", table)
    return Question(name, videos, text, options, letters, answer or None, known)


def _options(row: Row, table: Source, column: str) -> tuple[str, ...]:
    """The options with their letters; those without get theirs by position."""
    given: Any = row.cells.get(column)
    try:
        listed = _cells.items_of(given) if isinstance(given, str) else list(given or ())
    except (_cells.CellError, TypeError) as error:
        raise missing(row, column, "a list of options", table) from error
    texts = [str(text).strip() for text in listed if text is not None]
    marks = [found[1] if (found := _LETTERED.match(text)) else "" for text in texts]
    wanted = [chr(ord("A") + i) for i in range(len(texts))]
    if marks != wanted:
        if any(marks) or len(texts) > len("ABCDEFGHIJKLMNOPQRSTUVWXYZ"):
            raise missing(row, column, "options that begin with A., B., ...", table)
        texts = [f"{letter}. {text}" for letter, text in zip(wanted, texts, strict=True)]
    if len(texts) < 2:
        raise missing(row, column, "two or more options", table)
    return tuple(text.lstrip("(") for text in texts)


def _plain(given: Any) -> str:
    return "" if given is None else str(given).strip()
