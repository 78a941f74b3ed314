"""Rules that read answers strictly: the first word, or the first letter that is an option."""

from __future__ import annotations

import re

from vlmlens.samples import Sample

_WORD = re.compile(r"[^\W_]+(?:'\w+)?")


def first_yes_no(text: str, sample: Sample) -> str | None:
    """The first word, where it is yes or no in whatever case; else None.

    >>> first_yes_no("Yes, there is.", Sample("1", "")), first_yes_no("Not sure", Sample("1", ""))
    ('yes', None)
    """
    del sample
    word = _WORD.search(text)
    said = word.group().lower() if word else ""
    return said if said in ("yes", "no") else None


def first_letter(text: str, sample: Sample) -> str | None:
    """The option's letter that stands alone at the start: "B", "(B)", "B.", "B: a dog"; else None.

    The letters are the sample's choices. "A dog" is not read as A, since "A" is a word there.

    >>> asked = Sample("1", "", choices=("A", "B"))
    >>> [first_letter(text, asked) for text in ("B", "(a) red", "A dog", "Both", "C")]
    ['B', 'A', None, None, None]
    """
    found = re.match(r"\s*\(?([A-Za-z])(?:[).:,]|\s*$)", text)
    letter = found.group(1).upper() if found else ""
    return letter if letter in sample.choices else None
