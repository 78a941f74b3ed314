"""Relaxed accuracy, as ChartQA's authors, lmms-eval and VLMEvalKit compute it, and strictly.

Relaxed (arXiv 2203.10244, section 5.1, after PlotQA): numbers within 5 % of the right one are
right, anything else must be equal.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from typing import Final

from vlmlens.samples import Sample

TOLERANCE: Final = 0.05
_YEAR = re.compile(r"(1[5-9]|20)\d\d")
_WRITTEN = re.compile(
    r"(?P<sign>[-+]?)\s*[$€£¥]?\s*"
    r"(?P<digits>\d{1,3}(,\d{3})+(\.\d+)?|\d+(\.\d*)?|\.\d+)\s*(?P<percent>%?)"
)
_LIST = re.compile(r"\s*,\s*|\s+and\s+", re.IGNORECASE)


def stripped(text: str, sample: Sample) -> str | None:
    """The text without blanks around it; None where there is nothing else."""
    del sample
    return text.strip() or None


def whole(text: str, sample: Sample) -> str | None:
    """The text as it is; None where it is empty."""
    del sample
    return text or None


def without_dot(text: str, sample: Sample) -> str | None:
    """The text without blanks around it and without a dot at its end; None: nothing is left."""
    del sample
    return _plain(text) or None


def relaxed(said: str | None, sample: Sample) -> float:
    """1 if what was said is relaxedly the label: both are numbers within 5 %, or equal."""
    return float(said is not None and is_relaxed(said, str(sample.label)))


def any_of_list(said: str | None, sample: Sample) -> float:
    """VLMEvalKit's: where the label is the text of a list, one hit is enough."""
    return float(said is not None and any(is_relaxed(said, each) for each in listed(sample.label)))


def strictly(said: str | None, sample: Sample) -> float:
    """1 if what was said is the label, where years are no quantities.

    Numbers within 5 % are right, except where the label may be a year (1500 to 2099): then they
    must be equal. Commas of thousands and signs of currencies are read. `2%` is 2 or 0.02,
    whichever the label is. All items of a list must be there, in any order. Other text is equal
    apart from case, blanks and a dot at the end.
    """
    if said is None:
        return 0.0
    labels = listed(sample.label)
    if len(labels) == 1:
        return float(_is_strictly(said, labels[0]))
    parts = _LIST.split(said.strip("[]() "))
    return float(len(parts) == len(labels) and _matched(parts, labels))


def is_relaxed(said: str, label: str) -> bool:
    """Whether two texts are numbers, the first within 5 % of the second, or equal.

    A percent sign divides by 100; a label of 0 is compared as text.

    >>> is_relaxed("10.4", "10"), is_relaxed("2%", "2"), is_relaxed("0.0", "0")
    (True, False, False)
    """
    found, right = number(said), number(label)
    if found is not None and right:
        return abs(found - right) / abs(right) <= TOLERANCE
    return said.lower() == label.lower()


def number(text: str) -> float | None:
    """The number that a text is, as Python reads it; one with % is divided by 100."""
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None


def is_year(label: object) -> bool:
    """Whether a label may be a year: a whole number from 1500 to 2099, of four digits."""
    return _YEAR.fullmatch(str(label).strip()) is not None


def listed(label: object) -> list[str]:
    """The items of a label that is the text of a list, else the label.

    >>> listed("[2014, 2016]"), listed("[A]"), listed("14")
    (['2014', '2016'], ['[A]'], ['14'])
    """
    text = str(label)
    if text.lstrip().startswith("["):
        try:
            found = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return [text]
        if isinstance(found, list) and found:
            return [str(each) for each in found]
    return [text]


def _is_strictly(said: str, label: str) -> bool:
    found, right = _values(said), _values(label)
    if not found or not right:
        return _words(said) == _words(label)
    if is_year(label):
        return found[0] == right[0]
    return any(_near(a, b) for a, b in _pairs(found, right))


def _pairs(found: Sequence[float], right: Sequence[float]) -> list[tuple[float, float]]:
    """What to compare: percent with percent, else any reading of one with that of the other."""
    if len(found) == len(right):
        return [(found[0], right[0])]
    return [(a, b) for a in found for b in right]


def _near(found: float, right: float) -> bool:
    return found == right or (right != 0 and abs(found - right) / abs(right) <= TOLERANCE)


def _values(text: str) -> list[float]:
    """The number that a text writes; with a percent sign, also a hundredth of it; []: none."""
    match = _WRITTEN.fullmatch(_plain(text))
    if match is None:
        return []
    value = float(match["sign"] + match["digits"].replace(",", ""))
    return [value, value / 100] if match["percent"] else [value]


def _plain(text: str) -> str:
    text = text.strip()
    return text[:-1].rstrip() if text.endswith(".") and not text.endswith("..") else text


def _words(text: str) -> str:
    return " ".join(_plain(text).lower().split())


def _matched(parts: Sequence[str], labels: Sequence[str]) -> bool:
    left = list(labels)
    for part in parts:
        hit = next((each for each in left if _is_strictly(part, each)), None)
        if hit is None:
            return False
        left.remove(hit)
    return True
