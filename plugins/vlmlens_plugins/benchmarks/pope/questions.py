"""POPE's questions: one row of any form, and the object that it asks for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from vlmlens.errors import DataError
from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks.sources import ImageRoot
from vlmlens_plugins.data._embedded import Stored
from vlmlens_plugins.data._table_files import Row

YES_NO = ("yes", "no")
_OBJECT = re.compile(r"is there (?:an?|the|any|some) (.+?)(?: in (?:the|this) ima(?:n)?ge)? ?\?")


class Asked(NamedTuple):
    """One question.

    Args:
        number: Its id within its source and split.
        image: The cell with the image or its name.
        group: What images are told apart by; "" where the cell itself does.
        question: Without a suffix.
        label: "yes" or "no".
        split: "random", "popular", "adversarial"; "" where it is not known.
        source: "coco", "aokvqa", "gqa"; "" where it is not known.
        place: For messages.
        known: Further attributes.
    """

    number: str
    image: Any
    group: str
    question: str
    label: str
    split: str
    source: str
    place: str
    known: dict[str, str]


def object_of(question: str) -> str:
    """The object that a question asks for, in lower case; "" if it is worded in another way.

    >>> object_of("Is there an umbrella in the imange?"), object_of("Is there a red cube?")
    ('umbrella', 'red cube')
    """
    found = _OBJECT.match(" ".join(question.lower().split()))
    return found.group(1) if found else ""


def same_question(question: str) -> str:
    """A question as it is compared with that of another edition: without suffix and misprint."""
    bare = question.partition("?")[0].lower().replace("imange", "image")
    return " ".join(bare.split())


def bare(question: str) -> str:
    """A question up to its first question mark; unchanged without one."""
    before, mark, _ = question.partition("?")
    return (before + mark).strip() if mark else question.strip()


def label_of(value: Any, where: str) -> str:
    """The label "yes" or "no".

    Raises:
        DataError: It is something else.
    """
    label = str(value).strip().lower()
    if label not in YES_NO:
        raise DataError(
            f"{where}: the label is {str(value)[:40]!r}, expected yes or no.",
            subject=where,
            hint="Correct the file, or read it as a table (--data table:FILE).",
        )
    return label


def text_of(row: Row, column: str, where: str) -> str:
    """The text of a cell.

    Raises:
        DataError: It is none, or blank.
    """
    value = row.cells.get(column)
    if not isinstance(value, str) or not value.strip():
        raise DataError(
            f"{where}: {column} is {str(value)[:40]!r}, expected a text.",
            subject=where,
            hint="Correct the file.",
        )
    return value


def number_of(row: Row, column: str, where: str) -> str:
    """The text of an id: a number or a text.

    Raises:
        DataError: There is none.
    """
    value = row.cells.get(column)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = (
        str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
    )
    if not text:
        raise DataError(
            f"{where}: {column} is {str(value)[:40]!r}, expected a number or a text.",
            subject=where,
            hint="Correct the file.",
        )
    return text


def sample_of(asked: Asked, root: ImageRoot, *, several: bool) -> Sample:
    """The sample of a question; its prompt is the bare question.

    Args:
        asked: The question.
        root: Where images are.
        several: Whether there are several sources, so that ids and tasks name them.

    Raises:
        DataError: Its image is no image and no name.
    """
    parts = [asked.source if several else "", asked.split]
    task = "/".join(filter(None, parts))
    image = root.path(named(asked.image), asked.place)
    group = asked.group or Path(image).name
    return Sample(
        id=f"{task}/{asked.number}" if task else asked.number,
        prompt=asked.question,
        images=(image,),
        label=asked.label,
        choices=YES_NO,
        group=group.removesuffix(".jpg"),
        task=task or None,
        attributes={
            "object": object_of(asked.question),
            "split": asked.split,
            "source": asked.source,
            **asked.known,
        },
    )


def named(cell: Any) -> Any:
    """A name of an image with a suffix: the hub's and GQA's have none."""
    if isinstance(cell, Stored | bool) or not isinstance(cell, str | int):
        return cell
    name = str(cell).strip()
    return name if not name or Path(name).suffix else f"{name}.jpg"
