"""The forms of POPE: official files and their copies, LLaVA's file, Hub columns, VLMEvalKit."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from vlmlens.errors import DataError, did_you_mean
from vlmlens_plugins.benchmarks.forms import HeldImages
from vlmlens_plugins.benchmarks.pope.card import SOURCES, SPLITS
from vlmlens_plugins.benchmarks.pope.questions import (
    Asked,
    bare,
    label_of,
    number_of,
    same_question,
    text_of,
)
from vlmlens_plugins.benchmarks.sources import Source
from vlmlens_plugins.data._table_files import Row

OFFICIAL, LLAVA, HUB, VLMEVALKIT = (
    "official files",
    "LLaVA's file",
    "hub columns",
    "VLMEvalKit's table",
)
_COLUMNS: Mapping[str, tuple[str, ...]] = {
    OFFICIAL: ("question_id", "image", "text", "label"),
    LLAVA: ("question_id", "image", "text", "category"),
    VLMEVALKIT: ("index", "image", "question", "answer", "category"),
    HUB: ("question_id", "question", "answer", "category"),
}
_EXTRA = ("level", "attribute", "setting")

Labels = Mapping[tuple[str, str, str], str]
"""Labels by split, image and question."""


def form_of(source: Source) -> str:
    """The form that a table is in, by its columns.

    Raises:
        DataError: In none.
    """
    for form, columns in _COLUMNS.items():
        if source.has(*columns):
            return form
    listed = "; ".join(f"{', '.join(columns)} ({form})" for form, columns in _COLUMNS.items())
    raise DataError(
        f"{source.name} has the columns {', '.join(source.columns) or '(none)'}, which is no form "
        "of POPE.",
        subject=source.name,
        hint=f"Forms: {listed}. Read other tables with --data table:FILE.",
    )


def named_in(name: str) -> tuple[str, str]:
    """The source and the split that a file's name says; "" for what it does not say.

    >>> named_in("coco_pope_popular.json"), named_in("mine.json")
    (('coco', 'popular'), ('', ''))
    """
    words = re.split(r"[^a-z]+", name.lower())
    source = next((each for each in SOURCES if each and each in words), "")
    return source, next((each for each in SPLITS if each in words), "")


def questions_in(source: Source, form: str, labels: Labels | None = None) -> Iterator[Asked]:
    """The questions of a table.

    Args:
        source: Its rows.
        form: What `form_of` says.
        labels: Of LLaVA's file, which has none.

    Raises:
        DataError: A cell is missing or malformed; names the row.
    """
    if form == LLAVA:
        return _llava(source, labels or {})
    return _READERS[form](source)


def _official(source: Source) -> Iterator[Asked]:
    where_from, split = named_in(Path(source.name).name)
    for row in source.rows:
        where = f"{source.name}, {row.place}"
        own = row.cells.get("category")
        yield Asked(
            number_of(row, "question_id", where),
            row.cells.get("image"),
            "",
            text_of(row, "text", where).strip(),
            label_of(row.cells.get("label"), where),
            split_of(own, where) if own and not split else split,
            where_from,
            where,
            _extra(row),
        )


def _llava(source: Source, labels: Labels) -> Iterator[Asked]:
    for row in source.rows:
        where = f"{source.name}, {row.place}"
        question = bare(text_of(row, "text", where))
        split, image = split_of(row.cells.get("category"), where), row.cells.get("image")
        label = labels.get((split, str(image), same_question(question)))
        if label is None:
            raise DataError(
                f"{where}: the official files have no label for this image and question.",
                subject=where,
                hint="LLaVA's file has no labels: lay the official files that belong to it (coco/, "
                "the edition with 2,910 random questions) beside it.",
            )
        number = number_of(row, "question_id", where)
        yield Asked(number, image, "", question, label, split, "coco", where, {})


def _hub(source: Source) -> Iterator[Asked]:
    for row in source.rows:
        where = f"{source.name}, {row.place}"
        named = row.cells.get("image_source")
        group = str(named).strip() if isinstance(named, str | int) else ""
        embedded = row.cells.get("image")
        yield Asked(
            number_of(row, "question_id", where),
            embedded if embedded is not None else named,
            group,
            text_of(row, "question", where).strip(),
            label_of(row.cells.get("answer"), where),
            split_of(row.cells.get("category"), where),
            "coco",
            where,
            _extra(row),
        )


def _vlmevalkit(source: Source) -> Iterator[Asked]:
    held = HeldImages(source)
    for row in source.rows:
        where = f"{source.name}, {row.place}"
        image, number = held.cell(row), number_of(row, "index", where)
        question = text_of(row, "question", where).strip()
        label = label_of(row.cells.get("answer"), where)
        named = text_of(row, "category", where).split(",")
        for own in dict.fromkeys(split_of(each, where) for each in named):
            yield Asked(number, image, "", question, label, own, "coco", where, {})


_READERS: Mapping[str, Callable[[Source], Iterator[Asked]]] = {
    OFFICIAL: _official,
    HUB: _hub,
    VLMEVALKIT: _vlmevalkit,
}


def split_of(value: Any, where: str) -> str:
    """The split that a cell names.

    Raises:
        DataError: None.
    """
    split = str(value).strip().lower()
    if split not in SPLITS:
        raise DataError(
            f"{where}: the category is {str(value)[:40]!r}.",
            subject=where,
            hint=did_you_mean(split, SPLITS) or f"POPE has {', '.join(SPLITS)}.",
        )
    return split


def _extra(row: Row) -> dict[str, str]:
    """What H-POPE's rows have beside POPE's."""
    cells = ((name, row.cells.get(name)) for name in _EXTRA)
    return {name: str(value) for name, value in cells if value not in (None, "")}
