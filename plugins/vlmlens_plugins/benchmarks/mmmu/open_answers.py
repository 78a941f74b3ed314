"""Answers of open questions, as the authors of MMMU compare them.

A text is cut to what follows words such as "is" or "answer", in each of its lines. What is left,
and the numbers in it, are compared with the right answers: text if it holds one, numbers if they
are equal to two decimals. The authors' script also means to cut at sentences; it looks for a
capital after the text has been put in lower case, so that it cuts at lines only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

_BEFORE = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
_SIGNS = frozenset(":,.!?;'")
_THOUSANDS = re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b")
_POWERS = re.compile(r"-?(?<!\d)\d+(?:\.\d+)?[eE][+-]?\d+")
_PLAIN = re.compile(r"-?(?:(?<!\d)\d+\.\d+|\.\d+|(?<!\d)\d+\b)(?![eE][+-]?\d+)(?![,\d])")
"""Upstream's numbers; a run of digits is tried from its first one only, which gives the same."""

Value = str | float


def open_credit(text: str, right: Sequence[str]) -> float:
    """1 if a text says one of the right answers, else 0."""
    wanted = [value for answer in right for value in values_of(answer)]
    texts = [value for value in wanted if isinstance(value, str)]
    for said in said_in(text):
        if said in wanted if isinstance(said, float) else any(each in said for each in texts):
            return 1.0
    return 0.0


def said_in(text: str) -> list[Value]:
    """What a text says, as texts and numbers, without repetition."""
    parts = list(_key_parts(text))
    numbers = [number for part in parts for number in numbers_in(part)]
    return list(dict.fromkeys(value for each in (*parts, *numbers) for value in values_of(each)))


def values_of(text: str) -> list[Value]:
    """A number to two decimals, or a text in lower case; a single sign needs a blank beside it.

    >>> values_of("1,234.567"), values_of("Cardioid"), values_of("C")
    ([1234.57], ['cardioid'], [' c', 'c '])
    """
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        lower = text.lower()
        return [f" {lower}", f"{lower} "] if len(lower) == 1 else [lower]


def _key_parts(text: str) -> Iterator[str]:
    """Per line, the shortest text after a word that announces an answer; the whole text without."""
    whole = text.strip().strip(".").lower()
    lines = whole.split("\n")
    found = False
    for number, line in enumerate(lines, start=1):
        before = (*_BEFORE, "=") if number == len(lines) else _BEFORE
        ends = [line.rsplit(word, 1)[-1].strip() for word in before if word in line]
        shortest = ""
        for end in ends:
            shortest = end if not shortest or len(end) < len(shortest) else shortest
        if shortest and shortest not in _SIGNS:
            found = True
            yield shortest
    if not found:
        yield whole


def numbers_in(text: str) -> list[str]:
    """The numbers in a text as they are written: with thousands, with powers, then plain ones."""
    return [each for pattern in (_THOUSANDS, _POWERS, _PLAIN) for each in pattern.findall(text)]
