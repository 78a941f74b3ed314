"""Which option a text chooses, as VLMEvalKit reads it without a judge."""

from __future__ import annotations

import re
from collections.abc import Mapping

_BLANKED = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_LAST = 5
_SAID = re.compile(r"(?i)(?:correct\s+)?answer\s+is\s+\**([A-D])\**")
_REFUSED = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_FAILED = "Failed to obtain answer via API"


def kit_option(text: str, options: Mapping[str, str]) -> str | None:
    """The letter of the option that a text chooses; None where VLMEvalKit would ask a judge.

    One letter of an option stands alone among the last words; or the text says "answer is X", of
    A to D; or it holds the text of one option, and is at most twice as long as all of them.
    A refusal chooses nothing.

    Args:
        text: The answer.
        options: Texts by letter.
    """
    if _FAILED in text:
        return _by_text(text, options)
    if any(said in text for said in _REFUSED):
        return None
    words = text.translate(_BLANKED).split()
    alone = [letter for letter in options if letter in words]
    if len(alone) == 1 and words.index(alone[0]) > len(words) - _LAST:
        return alone[0]
    if not alone and "Z" in words:
        return None
    said = _SAID.search(text)
    if said and said[1].upper() in options:
        return said[1].upper()
    return _by_text(text, options)


def _by_text(text: str, options: Mapping[str, str]) -> str | None:
    lower = text.lower()
    if len(lower) > 2 * sum(map(len, options.values())):
        return None
    found = [letter for letter, option in options.items() if option.lower() in lower]
    return found[0] if len(found) == 1 else None
