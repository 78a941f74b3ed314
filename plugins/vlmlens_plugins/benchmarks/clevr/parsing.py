"""How answers to CLEVR's questions are read: exactly, strictly, or by a word among the choices."""

from __future__ import annotations

import re

from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks.clevr.questions import ANSWERS

_KNOWN = frozenset(ANSWERS)
_AROUND = " \t\r\n.,;:!?\"'()[]*`"
_WORD = re.compile(r"[a-z]+|\d+")


def exactly(text: str, sample: Sample) -> str | None:
    """The text, where it is one of the 28 answers as they are written."""
    del sample
    said = text.strip()
    return said if said in _KNOWN else None


def strictly(text: str, sample: Sample) -> str | None:
    """The text without case and marks around it, where it is one of the 28 answers.

    >>> strictly(" Cube.", Sample("1", "")), strictly("It is a cube", Sample("1", ""))
    ('cube', None)
    """
    del sample
    said = text.strip(_AROUND).lower()
    return said if said in _KNOWN else None


def among_choices(text: str, sample: Sample) -> str | None:
    """The only one of the question's choices that occurs as a word; None: none or several do.

    >>> asked = Sample("1", "", choices=("red", "blue"))
    >>> among_choices("The cube is red.", asked), among_choices("Red or blue", asked)
    ('red', None)
    """
    found = {*_WORD.findall(text.lower())} & {*(sample.choices or ANSWERS)}
    return found.pop() if len(found) == 1 else None
