"""SmolVLM2's processor without the package num2words.

transformers refuses to make the processor without it, and uses it to write how many frames a video
has ("sixteen frames"). Without the package, `number_word` writes the same.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vlmlens.errors import MissingDependency

MODULE = "transformers.models.smolvlm.processing_smolvlm"
_SMALL = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen",
    "nineteen",
)  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


@contextmanager
def number_words_lent() -> Iterator[None]:
    """Let the processor be made, and videos be announced, where the package is missing."""
    module: Any = importlib.import_module(MODULE)
    if module.num2words is not None:
        yield
        return
    module.num2words = number_word
    try:
        yield
    finally:
        module.num2words = None


def number_word(number: int) -> str:
    """A number in words.

    Raises:
        MissingDependency: It is not below 1,000.

    >>> number_word(16), number_word(64), number_word(305)
    ('sixteen', 'sixty-four', 'three hundred and five')
    """
    if not 0 <= number < 1000:
        raise MissingDependency(
            f"{number} frames are to be announced in words; only those below 1,000 are known.",
            subject="num2words",
            hint="pip install num2words, or take fewer frames: --set frames=64.",
        )
    hundreds, rest = divmod(number, 100)
    if not hundreds:
        return _below_hundred(rest)
    return f"{_SMALL[hundreds]} hundred" + (f" and {_below_hundred(rest)}" if rest else "")


def _below_hundred(number: int) -> str:
    if number < 20:
        return _SMALL[number]
    tens, ones = divmod(number, 10)
    return _TENS[tens - 2] + (f"-{_SMALL[ones]}" if ones else "")
