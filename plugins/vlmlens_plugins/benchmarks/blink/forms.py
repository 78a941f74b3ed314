"""The forms of BLINK: hub columns and VLMEvalKit's table, as samples with the bare question."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vlmlens._files import expanded
from vlmlens.samples import Attribute, Sample
from vlmlens_plugins.benchmarks.blink.tasks import TASKS, task_named, task_of_id
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
from vlmlens_plugins.benchmarks.sources import ImageRoot, Source
from vlmlens_plugins.data._table_files import Row

TITLE = "BLINK"
FORMS = {
    "hub columns": "idx, question, choices, answer, prompt, image_1, ...",
    "VLMEvalKit's table": "index, question, A, B, ..., answer, image, category",
}
HUB, VLMEVALKIT = FORMS
TASK, PROMPT = "sub_task", "official_prompt"
"""Attributes: the task, and the prompt that the set has for the question."""

_HUB_COLUMNS = ("idx", "question", "choices", "answer")
_KIT_COLUMNS = ("index", "question", "answer", "image", "A", "B")
_MOST_IMAGES = 4
_HIDDEN = ("", "hidden", "?", "nan")
_OF_TASK = re.compile(rf"(?P<place>.+?):(?P<task>{'|'.join(TASKS)})(?P<split>:.+)?")


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a row asks, in whatever form it is written."""

    id: str
    options: tuple[str, ...]
    task: str
    known: Mapping[str, Attribute]


def parted(source: str) -> tuple[str, str | None]:
    """A source without the task that it may name, and the task.

    >>> parted("org/name:Relative_Depth:val"), parted("org/name:val")
    (('org/name:val', 'Relative_Depth'), ('org/name:val', None))
    """
    found = None if expanded(source).exists() else _OF_TASK.fullmatch(source)
    if found is None:
        return source, None
    return found["place"] + (found["split"] or ""), found["task"]


def form_of(source: Source) -> str:
    """The form of a table, by its columns.

    Raises:
        DataError: It is none of BLINK's.
    """
    if source.has(*_HUB_COLUMNS):
        return HUB
    if source.has(*_KIT_COLUMNS):
        return VLMEVALKIT
    raise wrong_form(TITLE, source.name, source.columns, FORMS)


def samples_of(parts: Iterable[Part], root: ImageRoot) -> Iterator[Sample]:
    """The questions of all parts.

    Args:
        parts: Of one form.
        root: Where names of images start.

    Raises:
        DataError: A cell is malformed.
    """
    for part in parts:
        source = part.rows
        kit = form_of(source) == VLMEVALKIT
        pictures = kit_pictures(source, root) if kit else hub_pictures(root, _MOST_IMAGES)
        for row in source.rows:
            asked = _kit(row, source) if kit else _hub(row, source, part.name)
            yield _sample(asked, tuple(pictures(row).values()), row, source)


def _sample(asked: _Asked, images: tuple[str, ...], row: Row, source: Source) -> Sample:
    letters = letters_for(asked.options, row, source)
    if len(letters) < 2:
        raise missing(row, "choices", "two options or more", source)
    right = _letter(row.cells.get("answer"))
    if right is not None and right not in letters:
        raise missing(row, "answer", f"one of the letters {', '.join(letters)}", source)
    known = {TASK: asked.task, OPTIONS: listed(asked.options), **asked.known}
    return Sample(
        asked.id,
        text_in(row, "question", source),
        images,
        label=right,
        choices=letters,
        task=asked.task,
        attributes={name: value for name, value in known.items() if value not in (None, "")},
    )


def _hub(row: Row, source: Source, part: str) -> _Asked:
    cells = row.cells
    name = text_in(row, "idx", source)
    split, of_id = task_of_id(name) or (None, None)
    given = _text(cells.get("sub_task"))
    return _Asked(
        name,
        options_in(row, source),
        part or of_id or task_named(given) or given or "no task",
        {
            "split": split,
            PROMPT: _text(cells.get("prompt")),
            "explanation": _text(cells.get("explanation")),
        },
    )


def _kit(row: Row, source: Source) -> _Asked:
    cells = row.cells
    given = _text(cells.get("category"))
    split = _text(cells.get("split"))
    name = text_in(row, "index", source)
    return _Asked(
        name,
        options_in_columns(row, source),
        task_named(given) or given or "no task",
        {"split": "" if split == "none" else split, "hint": _text(cells.get("hint"))},
    )


def _letter(given: Any) -> str | None:
    """The right letter of a cell such as "(B)"; None where it is hidden."""
    text = _text(given).strip("() \t\n")
    return None if text.lower() in _HIDDEN else text.upper()


def _text(given: Any) -> str:
    return given.strip() if isinstance(given, str) else ""
