"""Labels that stand for a choice: its letter, or its position."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

CountFrom = Literal["auto", "0", "1"]
_LETTER = re.compile(r"[(\[]?([A-Za-z])[)\].:]?")
_PREFIX = re.compile(r"\s*[(\[]?([A-Z])[)\].:]\s*\S")

Answered = tuple[str, Sequence[str]]
"""A label and the choices it belongs to."""


class Answers:
    """How the labels of a table name one of their choices.

    A label is the text of a choice, if that is so in every row. Else all are letters, or all are
    positions, from 0 or from 1: what fits every row. If a label would be the text of one choice
    and mean another, labels are texts.

    Args:
        rows: Labels with their choices, of all rows that have both.
        count_from: Where positions start; "auto": at 1 if a position equals the number of choices
            and none is 0, else at 0.
    """

    def __init__(self, rows: Sequence[Answered], count_from: CountFrom = "auto") -> None:
        self._first = 0
        self.kind: Literal["text", "letter", "position"] = "text"
        if all(label in choices for label, choices in rows):
            return
        if all(_by_letter(label, choices) is not None for label, choices in rows):
            self.kind = "letter"
        elif all(_is_number(label) for label, _ in rows):
            self.kind = "position"
            self._first = _first(rows) if count_from == "auto" else int(count_from)
        if count_from == "auto" and self._contradicted(rows):
            self.kind = "text"

    def chosen(self, label: str, choices: Sequence[str]) -> str:
        """The choice that a label means; the label itself where it means none."""
        if self.kind == "letter":
            found = _by_letter(label, choices)
            return label if found is None else choices[found]
        if self.kind == "position" and _is_number(label):
            at = int(label) - self._first
            return choices[at] if 0 <= at < len(choices) else label
        return label

    def _contradicted(self, rows: Sequence[Answered]) -> bool:
        """Whether a label is the text of one choice and means another."""
        return any(
            label in choices and self.chosen(label, choices) != label for label, choices in rows
        )

    @property
    def note(self) -> str | None:
        """How labels were read, in words; None where they are texts of choices."""
        if self.kind == "letter":
            return "are letters of the choices"
        if self.kind == "position":
            other = 1 - self._first
            return (
                f"are read as positions of the choices, from {self._first} "
                f"(from {other}: --set options.dataset.count_from={other})"
            )
        return None


def _by_letter(label: str, choices: Sequence[str]) -> int | None:
    """Which choice a letter means: the one that begins with it (`B. blue`), else by position."""
    match = _LETTER.fullmatch(label.strip())
    if not match:
        return None
    letter = match[1].upper()
    prefixes = [found[1] if (found := _PREFIX.match(choice)) else "" for choice in choices]
    if all(prefixes):
        return prefixes.index(letter) if prefixes.count(letter) == 1 else None
    at = ord(letter) - ord("A")
    return at if at < len(choices) else None


def _is_number(label: str) -> bool:
    return label.isascii() and label.isdigit() and len(label) < 4


def _first(rows: Sequence[Answered]) -> int:
    numbers = {int(label) for label, _ in rows}
    beyond = any(int(label) == len(choices) for label, choices in rows)
    return int(beyond and 0 not in numbers)
