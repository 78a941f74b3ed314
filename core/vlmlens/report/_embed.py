"""Data for the page's script: JSON blocks that nothing in them can end, and shared words."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from vlmlens._clean import clean
from vlmlens.report._markup import Markup, tag

_ESCAPES = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


def data_block(data: Any, name: str) -> Markup:
    r"""A block of data. The browser never runs it; the page's script finds it by its class.

    >>> data_block(["</script>"], "words")
    '<script type="application/json" class="words">["\\u003c/script\\u003e"]</script>'
    """
    made = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return tag("script", Markup(made.translate(_ESCAPES)), type="application/json", class_=name)


class Words:
    """Texts that are embedded once and named by number."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, text: object) -> int:
        """The number of a text, made safe to show."""
        return self._numbers.setdefault(clean(text), len(self._numbers))

    def numbers(self, texts: Iterable[object]) -> list[int]:
        """The numbers of several."""
        return [self.number(text) for text in texts]

    def listed(self) -> list[str]:
        """All texts by number."""
        return list(self._numbers)


def rounded(value: float | None, digits: int = 4) -> float | None:
    """A number with as many significant digits as a page needs.

    >>> rounded(0.123456), rounded(None)
    (0.1235, None)
    """
    return None if value is None else float(f"{value:.{digits}g}")
