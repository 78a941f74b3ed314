"""How toolkits read yes and no, where several sets share their rule."""

from __future__ import annotations

import re

from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks.reading import first_yes_no

_MARKS = frozenset(';/[]"{}()=+\\_-><@`,?!')
_NUMBER = re.compile(r"\d,\d")
_DOT = re.compile(r"(?<!\d)\.(?!\d)")
_MOST_DOTS = 32
"""VLMEvalKit hands over a flag where the number of replacements belongs, and its value is 32."""
_WORD = re.compile(r"[^\W_]+(?:'\w+)?")


def vlmevalkit_yes_no(text: str, sample: Sample) -> str | None:
    """VLMEvalKit's rule without a judge: exactly one of the words yes and no occurs.

    A mark that stands beside a blank, or beside any comma within a number, vanishes; another parts
    words. Where both or neither word occurs, VLMEvalKit asks a judge: then this gives None.

    >>> asked = Sample("1", "")
    >>> [vlmevalkit_yes_no(text, asked) for text in ("Yes.", "NO", "Yes, no other.", "Not sure")]
    ['yes', 'no', None, None]
    """
    del sample
    words = _words(text.lower())
    return _only(words)


def said_yes_no(text: str, sample: Sample) -> str | None:
    """The first word where it is yes or no, else the only one of both that occurs; else None.

    It stands in for a judge that reads whether an answer affirms or denies.

    >>> asked = Sample("1", "")
    >>> said_yes_no("Yes, there is no other.", asked), said_yes_no("The answer is no.", asked)
    ('yes', 'no')
    """
    first = first_yes_no(text, sample)
    return first or _only({word.lower() for word in _WORD.findall(text)})


def _only(words: set[str]) -> str | None:
    found = words & {"yes", "no"}
    return found.pop() if len(found) == 1 else None


def _words(text: str) -> set[str]:
    number = bool(_NUMBER.search(text))
    parted = {
        ord(mark): "" if number or f" {mark}" in text or f"{mark} " in text else " "
        for mark in _MARKS
    }
    return set(_DOT.sub("", text.translate(parted), count=_MOST_DOTS).split())
