"""How CDH-Bench's authors read an answer: yes or no, a letter, a number, or words."""

from __future__ import annotations

import re
from typing import Final

from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks.reading import first_letter, first_yes_no

QA, CHOICE = "qa", "choice"
_YES = frozenset(("yes", "y", "true", "是", "对"))
_NO = frozenset(("no", "n", "false", "否", "不", "不是", "错"))
_YES_PARTS, _NO_PARTS = ("是", "对"), ("否", "不")
_THOUGHT: Final = "</think>"
_LETTERS: Final = tuple(
    re.compile(pattern)
    for pattern in (
        r"\A(?P<letter>[A-D])(?=[.)\s]|\Z)",
        r"(?:ANSWER|答案)(?:IS|是|为)?\s*(?P<letter>[A-D])",
        r"(?<=\s)(?P<letter>[A-D])(?=[.)\s]|\Z)",
        r"\b(?P<letter>[A-D])\b",
    )
)
_NUMBER = re.compile(r"\d+")


def official(text: str, sample: Sample) -> str | None:
    """What a text says by the authors' rule, which depends on the kind of the right answer.

    Only what follows the last `</think>` counts. Words: all letters and digits, in lower case.

    >>> asked = Sample("1", "", label="no", task="counting/qa")
    >>> official("Not a cat: no.", asked), official("不是的", asked), official("isn't", asked)
    ('no', 'yes', None)
    """
    said = text.rpartition(_THOUGHT)[2].strip()
    kind = kind_of(sample)
    if kind == CHOICE:
        return _letter(said)
    if kind == "number":
        found = _NUMBER.search(said)
        return _number(found.group()) if found else None
    words = normalized(said)
    return _yes_no(words) if kind == "yes/no" else words or None


def strict(text: str, sample: Sample) -> str | None:
    """What a text says where nothing is guessed: the first word, an option's letter, all of it."""
    kind = kind_of(sample)
    if kind == CHOICE:
        return first_letter(text, sample)
    if kind == "yes/no":
        return first_yes_no(text, sample)
    words = normalized(text)
    if kind == "number":
        return _number(words) if words.isdecimal() else None
    return words or None


def contains(said: str | None, sample: Sample) -> float:
    """1 if what was said is the label; of free words, also if it contains them."""
    if said is None:
        return 0.0
    if kind_of(sample) == "words":
        return float(normalized(str(sample.label)) in said)
    return equals(said, sample)


def equals(said: str | None, sample: Sample) -> float:
    """1 if what was said is the label, apart from case and marks."""
    return float(said is not None and normalized(said) == normalized(str(sample.label)))


def kind_of(sample: Sample) -> str:
    """Of which kind the right answer is: choice, yes/no, number or words."""
    if (sample.task or "").endswith(f"/{CHOICE}"):
        return CHOICE
    label = str(sample.label).strip()
    if normalized(label) in ("yes", "no"):
        return "yes/no"
    return "number" if label.isdecimal() else "words"


def normalized(text: str) -> str:
    """Letters and digits in lower case, with single blanks between words.

    >>> normalized(" It's a  CAT.")
    'its a cat'
    """
    kept = (sign for sign in text.lower() if sign.isalnum() or sign.isspace())
    return " ".join("".join(kept).split())


def _number(digits: str) -> str:
    """A whole number as it is usually written; it may be longer than `int` takes."""
    return "".join(str(int(digit)) for digit in digits).lstrip("0") or "0"


def _letter(text: str) -> str | None:
    upper = text.upper()
    found = (pattern.search(upper) for pattern in _LETTERS)
    return next((match["letter"] for match in found if match), None)


def _yes_no(normal: str) -> str | None:
    words = normal.split()
    for said, known in (("yes", _YES), ("no", _NO)):
        if words and words[0] in known:
            return said
    for said, parts in (("yes", _YES_PARTS), ("no", _NO_PARTS)):
        if said in words or any(part in normal for part in parts):
            return said
    return None
