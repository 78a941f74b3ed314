"""Text from data made fit to show: control characters, numbers, file names, widths, cuts."""

from __future__ import annotations

import math
import re
import unicodedata
from typing import Any

from vlmlens._clean import clean
from vlmlens.results import Cell

_NOT_NAME = re.compile(r"[^A-Za-z0-9_-]+")
_MAX_NAME = 80
_FORMULA = frozenset("=+-@\uff1d\uff0b\uff0d\uff20")
"""What formulas begin with; East Asian spreadsheets take the wide forms, too."""
_BLANKS = frozenset("\t\r\n")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def one_line(text: object) -> str:
    r"""`clean` text on one line; line breaks and tabs become visible escapes.

    >>> one_line("a\nb")
    'a\\nb'
    """
    return clean(text).replace("\n", "\\n").replace("\t", "\\t")


def no_formula(text: str) -> str:
    """Text that a spreadsheet does not take for a formula: after an apostrophe, if it begins so.

    What is a number stays as it is.

    >>> [no_formula(text) for text in ("=1+1", "@x", "-1.5e3", "red = 1")]
    ["'=1+1", "'@x", '-1.5e3', 'red = 1']
    """
    begins = text[:1] in _BLANKS or text.lstrip()[:1] in _FORMULA
    return f"'{text}" if text and begins and not _NUMBER.fullmatch(text) else text


def scalar(value: Any) -> Any:
    """A numpy scalar as its Python value; everything else as it is."""
    item = getattr(value, "item", None)
    return item() if callable(item) and getattr(value, "ndim", None) == 0 else value


def finite(value: Any) -> float | None:
    """The value as a float; None where it is missing, NaN or infinite."""
    if value is None:
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def show(value: Cell) -> str:
    """A table cell for people; empty if there is no value.

    >>> [show(value) for value in (0.91234, 1e-5, 12, 250.0, None, True, "a")]
    ['0.912', '1.0e-05', '12', '250', '', 'yes', 'a']
    """
    value = scalar(value)
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return _show_float(value)
    return one_line(value)


def _show_float(value: float) -> str:
    if not math.isfinite(value):
        return "" if math.isnan(value) else ("∞" if value > 0 else "-∞")
    if value == int(value) and abs(value) < 1e6:
        return f"{value:.0f}" if value else "0"
    if 1e-3 <= abs(value) < 1e4:
        return f"{value:.3f}" if abs(value) < 100 else f"{value:.1f}"
    return f"{value:.1e}"


def slug(name: str) -> str:
    """A part of a file name: letters, digits, hyphens and underscores, never empty.

    >>> slug("../../etc/passwd"), slug("layer accuracy"), slug("")
    ('etc-passwd', 'layer-accuracy', 'unnamed')
    """
    return _NOT_NAME.sub("-", name).strip("-")[:_MAX_NAME].strip("-") or "unnamed"


def width(text: str, size: float, *, mono: bool = False) -> float:
    """About how wide the text is at a font size, in the same unit; wide characters count double."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    unit = 0.605 if mono else 0.54
    return size * (unit * (len(text) - wide) + 1.05 * wide)


def cut(text: str, length: int) -> str:
    """At most `length` characters; an ellipsis says that something was cut."""
    return text if len(text) <= length else text[: max(length - 1, 1)] + "…"


def plural(count: int, noun: str) -> str:
    """A count with its noun.

    >>> plural(1, "row"), plural(1200, "row")
    ('1 row', '1,200 rows')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
