"""A question of MME, as every form has it."""

from __future__ import annotations

from typing import Final, NamedTuple

SUFFIX: Final = " Please answer yes or no."
"""How the questions end in all files."""
ENDING: Final = "ending"
"""Attribute of a sample whose question has another ending in its file."""
PERCEPTION: Final = (
    "existence",
    "count",
    "position",
    "color",
    "posters",
    "celebrity",
    "scene",
    "landmark",
    "artwork",
    "OCR",
)
COGNITION: Final = (
    "commonsense_reasoning",
    "numerical_calculation",
    "text_translation",
    "code_reasoning",
)
TASKS: Final = (*PERCEPTION, *COGNITION)


class Asked(NamedTuple):
    """One question.

    Args:
        task: One of `TASKS`.
        name: Of the image in its task: "0020.png".
        question: With its ending, as it is written.
        label: yes or no.
        image: An image cell or a path.
        place: Where it stands, for messages.
    """

    task: str
    name: str
    question: str
    label: str
    image: object
    place: str


def task_of(name: str) -> str | None:
    """The task that a name means, in whatever case; None: there is none.

    >>> task_of("ocr"), task_of("Color"), task_of("colour")
    ('OCR', 'color', None)
    """
    return next((task for task in TASKS if task.lower() == name.strip().lower()), None)


def label_of(text: object) -> str | None:
    """Yes or no, of a label in whatever case and with or without a dot; None: neither."""
    said = text.strip().rstrip(".").lower() if isinstance(text, str) else ""
    return said if said in ("yes", "no") else None
