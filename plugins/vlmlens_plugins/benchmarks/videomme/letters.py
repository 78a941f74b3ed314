"""Which option a text chooses, as the toolkits read answers to Video-MME."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from vlmlens.samples import Sample

_LETTER = re.compile(r"[ABCD]")
_AUTHORS_CUT = (
    "The best answer is",
    "The correct answer is",
    "The answer is",
    "The answer",
)
_KIT_CUT = (*_AUTHORS_CUT, "Answer:", "Option:")
"""Four more stand in VLMEvalKit's list, but run together, so that they match nothing."""

_NOUNS = (
    "answer",
    "correct answer",
    "best answer",
    "correct option",
    "best option",
    "choice",
    "correct choice",
)
_PHRASES = (
    *(f"{article}{noun} is" for noun in _NOUNS for article in ("the ", "")),
    *("i choose", "i select", "i pick", "my answer is", "my choice is"),
    *("옵션", "정답은", "답은", "답:", "答案是", "答案为", "选", "答えは"),
)
_SIGNS = ",.!?;:'\""
_START, _END, _PHRASE, _MARKED, _ANYWHERE = 10, 9, 7, 6, 0
_MARKS = ("({})", "{}.", "{}:", "{})", "{} ")
"""How a letter may be marked, the surest first."""


def authors_letter(text: str, sample: Sample) -> str | None:
    """The first of the capitals A to D, after some beginnings of sentences are cut.

    >>> asked = Sample("1", "")
    >>> authors_letter("The best answer is C.", asked), authors_letter("Best answer: C", asked)
    ('C', 'B')
    """
    del sample
    return _first_capital(text, _AUTHORS_CUT)


def kit_letter(text: str, sample: Sample) -> str | None:
    """VLMEvalKit's rule: like the authors', with two more beginnings; no judge."""
    del sample
    return _first_capital(text, _KIT_CUT)


def _first_capital(text: str, cut: Sequence[str]) -> str | None:
    text = text.strip()
    for beginning in cut:
        text = text.replace(beginning, "")
    found = _LETTER.search(text)
    return found[0] if found else None


def lmms_letter(text: str, sample: Sample) -> str | None:
    """lmms-eval's rule: of all marks of letters the surest kind, and of these the last one.

    A letter at the start is surest, then one at the end, one behind a phrase such as "answer is",
    `(A)`, `A.`, `A:`, `A)`, `A `, and at last any capital.

    >>> asked = Sample("1", "")
    >>> lmms_letter("The answer is (C).", asked), lmms_letter("Best answer: C", asked)
    ('C', 'C')
    """
    del sample
    if not text.strip():
        return None
    text = text.strip()
    for sign in _SIGNS:
        text = text.strip(sign)
    padded = f" {text} "
    found = list(_candidates(padded, text.strip()))
    if not found:
        found = [(_ANYWHERE, padded.rfind(x), x) for x in "ABCD" if x in padded]
    return max(found, key=lambda each: each[:2])[2] if found else None


def _candidates(padded: str, bare: str) -> Iterator[tuple[int, int, str]]:
    """(how sure, where, letter)."""
    for rank, mark in enumerate(_MARKS):
        for letter in "ABCD":
            if (at := padded.rfind(mark.format(letter))) >= 0:
                yield _MARKED - rank, at, letter
    lower = padded.lower()
    for phrase in _PHRASES:
        if (begin := lower.find(phrase)) >= 0:
            for letter in "ABCD":
                if (at := padded.find(letter, begin + len(phrase))) >= 0:
                    yield _PHRASE, at, letter
    for letter in "ABCD":
        if bare.startswith(letter) and not bare[1:2].isalpha():
            yield _START, 0, letter
        if bare.endswith(letter) and not bare[-2:-1].isalpha():
            yield _END, len(padded), letter
