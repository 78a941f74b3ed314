"""Normalizing written answers: what counts as the same answer.

The rules follow the evaluation of VQA (S. Antol et al., "VQA: visual question answering", ICCV
2015): case, punctuation, articles and number words do not count. Beyond it, a sentence that names
exactly one of the known answers counts as that answer.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

_NUMBERS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen",
    "nineteen", "twenty",
)  # fmt: skip
_WORDS = {word: str(number) for number, word in enumerate(_NUMBERS)} | {"none": "0"}
_ARTICLES = {"a", "an", "the"}
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}\b)")
_APOSTROPHE = re.compile(r"['’`]")  # noqa: RUF001
_MARKS = re.compile(r"(?<!\d)[.,]|[.,](?!\d)|[^\w\s.,%-]|_|-(?!\d)|(?<=\w)-")


def normalized(text: str) -> str:
    """The text without case, punctuation and articles, number words as digits.

    >>> normalized("The  answer: Three cubes.")
    'answer 3 cubes'
    >>> normalized("1,000.5 %")
    '1000.5 %'
    """
    plain = _APOSTROPHE.sub("", unicodedata.normalize("NFKC", text).casefold())
    words = _MARKS.sub(" ", _THOUSANDS.sub("", plain)).split()
    kept = [word for word in words if word not in _ARTICLES] or words
    return " ".join(_WORDS.get(word, word) for word in kept)


class KnownAnswers:
    """Finds the known answer that a text gives.

    Args:
        answers: The right answers of a task's questions.

    >>> KnownAnswers(["red", "dark red", "blue"]).read("It is dark red, I think.")
    'dark red'
    """

    def __init__(self, answers: Iterable[str]) -> None:
        self._known = {normalized(answer) for answer in answers} - {""}
        self._yes_no = bool(self._known) and self._known <= {"yes", "no"}

    def read(self, text: str) -> str:
        """The normalized known answer that the text is or names; else the normalized text.

        A sentence that names several known answers names none, but for one that is part of
        another. Of a yes/no question the first word counts. A negation is not understood: "not
        red" names "red".
        """
        plain = normalized(text)
        if plain in self._known:
            return plain
        if self._yes_no:
            first = plain.split(" ", 1)[0]
            return first if first in {"yes", "no"} else plain
        padded = f" {plain} "
        named = [answer for answer in self._known if f" {answer} " in padded]
        longest = [a for a in named if not any(a != b and f" {a} " in f" {b} " for b in named)]
        return longest[0] if len(longest) == 1 else plain
