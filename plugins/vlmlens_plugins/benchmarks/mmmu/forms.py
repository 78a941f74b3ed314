"""The forms of MMMU: hub columns and VLMEvalKit's table, as samples with the bare question."""

from __future__ import annotations

import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmlens._files import expanded
from vlmlens.errors import DataError
from vlmlens.samples import Attribute, Sample
from vlmlens_plugins.benchmarks.forms import missing, text_in, wrong_form
from vlmlens_plugins.benchmarks.mmmu.asked import ANSWERS, DISCIPLINE, NUMBERS, OPTIONS, listed
from vlmlens_plugins.benchmarks.mmmu.hub import FORMS, TITLE, Subject
from vlmlens_plugins.benchmarks.mmmu.metrics import SUBJECT
from vlmlens_plugins.benchmarks.mmmu.subjects import DISCIPLINE_OF, subject_named, subject_of_id
from vlmlens_plugins.benchmarks.sources import ImageRoot, Source
from vlmlens_plugins.data import _cells
from vlmlens_plugins.data._embedded import Stored
from vlmlens_plugins.data._hf_loading import split_source
from vlmlens_plugins.data._table_files import Row

HUB, VLMEVALKIT = FORMS
_HUB_COLUMNS = ("id", "question", "options", "answer", "question_type")
_KIT_COLUMNS = ("index", "question", "answer", "image")
_MOST_IMAGES = 7
_UNKNOWN = ("", "?")
_KINDS = ("multiple-choice", "open", "short-answer")

Pictures = Callable[[Row], Mapping[int, str]]
"""The paths of a row's images by their number, from 1."""


@dataclass(frozen=True, slots=True)
class Official:
    """The right answers of the authors' `answer_dict_val.json`, by id.

    Args:
        right: Several where the authors accept several.
    """

    right: Mapping[str, tuple[str, ...]]

    def of(self, name: str, where: str) -> tuple[str, ...]:
        """The right answers of a question.

        Raises:
            DataError: There are none.
        """
        if name not in self.right:
            raise DataError(
                f"{where}: the file of answers has none for {name!r}.",
                subject=name,
                hint="Give the questions of the split that the answers are of: "
                "answer_dict_val.json is for validation.",
            )
        return self.right[name]


def form_of(source: Source) -> str:
    """The form of a table, by its columns.

    Raises:
        DataError: It is none of MMMU's.
    """
    if source.has(*_HUB_COLUMNS):
        return HUB
    if source.has(*_KIT_COLUMNS) and source.has("A", "B"):
        return VLMEVALKIT
    raise wrong_form(TITLE, source.name, source.columns, FORMS)


def samples_of(
    subjects: Sequence[Subject], root: ImageRoot, official: Official | None
) -> Iterator[Sample]:
    """The questions of all subjects.

    Args:
        subjects: Of one form.
        root: Where names of images start.
        official: Right answers that replace those of the rows.

    Raises:
        DataError: A cell is malformed, or the official file has no answer for a question.
    """
    for subject in subjects:
        source = subject.rows
        kit = form_of(source) == VLMEVALKIT
        pictures = _kit_pictures(source, root) if kit else _hub_pictures(root)
        for row in source.rows:
            asked = _kit(row, source) if kit else _hub(row, source, subject.name)
            yield _sample(asked, pictures(row), row, source, official)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a row asks, in whatever form it is written."""

    id: str
    question: str
    options: tuple[str, ...]
    answers: tuple[str, ...]
    subject: str
    known: Mapping[str, Attribute]


def _sample(
    asked: _Asked, images: Mapping[int, str], row: Row, source: Source, official: Official | None
) -> Sample:
    letters = tuple(string.ascii_uppercase[: len(asked.options)])
    answers = asked.answers
    if official is not None:
        answers = official.of(asked.id, f"{source.name}, {row.place}")
    if len(letters) < len(asked.options):
        raise missing(row, "options", "at most 26 options", source)
    if letters and answers and answers[0] not in letters:
        raise missing(row, "answer", f"one of the letters {', '.join(letters)}", source)
    return Sample(
        asked.id,
        asked.question,
        tuple(images.values()),
        label=answers[0] if answers else None,
        choices=letters,
        task=asked.subject or None,
        attributes=_attributes(asked, list(images), answers),
    )


def _attributes(
    asked: _Asked, numbers: Sequence[int], answers: Sequence[str]
) -> dict[str, Attribute]:
    """What the sample carries beside its question; numbers of images where one is left out."""
    known: dict[str, Attribute] = {
        SUBJECT: asked.subject,
        DISCIPLINE: DISCIPLINE_OF.get(asked.subject),
        "question_type": "multiple-choice" if asked.options else "open",
    }
    if asked.options:
        known[OPTIONS] = listed(asked.options)
    elif len(answers) > 1:
        known[ANSWERS] = listed(answers)
    if list(numbers) != list(range(1, len(numbers) + 1)):
        known[NUMBERS] = listed(numbers)
    told = {name: value for name, value in asked.known.items() if value not in (None, "")}
    return known | told


def _hub(row: Row, source: Source, subject: str) -> _Asked:
    cells = row.cells
    name = text_in(row, "id", source)
    kind = cells.get("question_type")
    if kind not in _KINDS:
        raise missing(row, "question_type", f"one of {', '.join(_KINDS)}", source)
    options = _options(row, source) if kind == "multiple-choice" else ()
    if kind == "multiple-choice" and not options:
        raise missing(row, "options", "a list of options", source)
    return _Asked(
        name,
        text_in(row, "question", source),
        options,
        _answers(cells.get("answer"), closed=bool(options)),
        subject or subject_of_id(name) or "",
        {
            "split": name.split("_")[0] if subject_of_id(name) else None,
            "subfield": _told(cells.get("subfield")),
            "difficulty": _told(cells.get("topic_difficulty")),
            "image_type": _one_of(cells.get("img_type")),
        },
    )


def _kit(row: Row, source: Source) -> _Asked:
    cells = row.cells
    texts = [cells.get(letter) for letter in string.ascii_uppercase if letter in source.columns]
    while texts and texts[-1] in (None, ""):
        texts.pop()
    if any(text in (None, "") for text in texts):
        raise missing(row, "A", "options without a gap", source)
    split = str(cells.get("split") or "")
    own = cells.get("id") or "/".join(filter(None, (split, text_in(row, "index", source))))
    given = str(cells.get("category") or "")
    return _Asked(
        str(own),
        text_in(row, "question", source),
        tuple(str(text) for text in texts),
        _answers(cells.get("answer"), closed=bool(texts)),
        subject_named(given) or given,
        {"split": split, "hint": _told(cells.get("hint"))},
    )


def _options(row: Row, source: Source) -> tuple[str, ...]:
    """Options as a list, or as the text of one in Python."""
    given: Any = row.cells.get("options")
    try:
        if isinstance(given, str):
            given = _cells.items_of(given)
        return tuple("" if item is None else str(item) for item in given or ())
    except (_cells.CellError, TypeError) as error:
        raise missing(row, "options", "a list of options", source) from error


def _answers(given: Any, *, closed: bool) -> tuple[str, ...]:
    """The right answers of a cell: () of "?", several where it holds the text of a list."""
    if isinstance(given, str) and not closed and given.strip().startswith("["):
        try:
            return tuple(str(item) for item in _cells.items_of(given))
        except _cells.CellError:
            return (given.strip(),)
    if isinstance(given, list):
        return tuple(str(item) for item in given)
    text = "" if given is None else str(given).strip()
    return () if text in _UNKNOWN else (text,)


def _told(given: Any) -> str | None:
    """A cell that only tells more of a question: its text, if it is one."""
    return given.strip() or None if isinstance(given, str) else None


def _one_of(given: Any) -> str | None:
    """The kind of image: the only item, or all of them."""
    try:
        items = _cells.items_of(given) if isinstance(given, str) else given
    except _cells.CellError:
        return str(given)
    return ", ".join(map(str, items)) if isinstance(items, list) else None


def _hub_pictures(root: ImageRoot) -> Pictures:
    def pictures(row: Row) -> dict[int, str]:
        cells = {n: row.cells.get(f"image_{n}") for n in range(1, _MOST_IMAGES + 1)}
        return {n: root.path(cell, row.place) for n, cell in cells.items() if cell}

    return pictures


def _kit_pictures(source: Source, root: ImageRoot) -> Pictures:
    """Images in base64, a list of it, or the index of the row that has them."""
    own = {row.number: _own_images(row, source) for row in source.rows}
    held = {
        str(row.cells.get("index")): own[row.number]
        for row in source.rows
        if any(isinstance(image, Stored) for image in own[row.number])
    }

    def pictures(row: Row) -> dict[int, str]:
        images = own[row.number]
        named = held.get(str(images[0]), images) if len(images) == 1 else images
        return {n: root.path(image, row.place) for n, image in enumerate(named, start=1)}

    return pictures


def _own_images(row: Row, source: Source) -> Sequence[Any]:
    cell = row.cells.get("image")
    if not isinstance(cell, str) or isinstance(cell, Stored) or not cell.strip().startswith("["):
        return [] if cell in (None, "") else [cell]
    try:
        return _cells.images(cell, several=True)
    except _cells.CellError as error:
        raise missing(row, "image", "an image, or a list of images", source) from error


def default_root(source: str) -> Path:
    """The folder that names of images start from."""
    path = expanded(split_source(source)[0])
    return path if path.is_dir() else path.parent if path.is_file() else Path()
