"""The forms of MMMU: hub columns and VLMEvalKit's table, as samples with the bare question."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vlmlens.errors import DataError
from vlmlens.samples import Attribute, Sample
from vlmlens_plugins.benchmarks.configurations import Part
from vlmlens_plugins.benchmarks.forms import missing, text_in, wrong_form
from vlmlens_plugins.benchmarks.lettered import (
    OPTIONS,
    hub_pictures,
    kit_pictures,
    letters_for,
    listed,
    options_in,
    options_in_columns,
)
from vlmlens_plugins.benchmarks.mmmu.asked import ANSWERS, DISCIPLINE, NUMBERS
from vlmlens_plugins.benchmarks.mmmu.hub import FORMS, TITLE
from vlmlens_plugins.benchmarks.mmmu.metrics import SUBJECT
from vlmlens_plugins.benchmarks.mmmu.subjects import DISCIPLINE_OF, subject_named, subject_of_id
from vlmlens_plugins.benchmarks.sources import ImageRoot, Source
from vlmlens_plugins.data import _cells
from vlmlens_plugins.data._table_files import Row

HUB, VLMEVALKIT = FORMS
_HUB_COLUMNS = ("id", "question", "options", "answer", "question_type")
_KIT_COLUMNS = ("index", "question", "answer", "image")
_MOST_IMAGES = 7
_UNKNOWN = ("", "?")
_KINDS = ("multiple-choice", "open", "short-answer")


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
    subjects: Sequence[Part], root: ImageRoot, official: Official | None
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
        pictures = kit_pictures(source, root) if kit else hub_pictures(root, _MOST_IMAGES)
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
    letters = letters_for(asked.options, row, source)
    answers = asked.answers
    if official is not None:
        answers = official.of(asked.id, f"{source.name}, {row.place}")
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
    options = options_in(row, source) if kind == "multiple-choice" else ()
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
    texts = options_in_columns(row, source)
    split = str(cells.get("split") or "")
    own = cells.get("id") or "/".join(filter(None, (split, text_in(row, "index", source))))
    given = str(cells.get("category") or "")
    return _Asked(
        str(own),
        text_in(row, "question", source),
        texts,
        _answers(cells.get("answer"), closed=bool(texts)),
        subject_named(given) or given,
        {"split": split, "hint": _told(cells.get("hint"))},
    )


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
