"""How answers of VQA are made alike: punctuation, numbers in words, articles, contractions.

The rules are those of the evaluation that belongs to VQA (arXiv 1612.00837); both its peculiarities
that change answers are kept: one comma within a number removes every mark, and of dots, which go
unless a digit follows, at most 32 are removed.
"""

from __future__ import annotations

import re
from functools import lru_cache

_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_COMMAS_IN_NUMBER = re.compile(r"\d,+\d")
_DOT = re.compile(r"\.(?!\d)")
_MOST_DOTS = 32
_ARTICLES = frozenset({"a", "an", "the"})
_COUNTED = "zero one two three four five six seven eight nine ten"
_NUMBERS = {word: str(number) for number, word in enumerate(_COUNTED.split())} | {"none": "0"}

_SHORTENED = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't
haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've
might've mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've
shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll
someone's something'd something'd've something'll that's there'd there'd've there're there's they'd
they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've
when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't
would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""


def _without_one(word: str) -> list[str]:
    """The word without one of its apostrophes, for each of them."""
    places = [i for i, sign in enumerate(word) if sign == "'"]
    found = [word[:i] + word[i + 1 :] for i in places]
    return found if len(places) != 1 else found[:1]


_CONTRACTIONS = {short: word for word in _SHORTENED.split() for short in _without_one(word)} | {
    "somebody'd": "somebodyd"
}
"""Contractions by how they are written without one apostrophe."""


@lru_cache(1 << 16)
def alike(text: str, *, commas: bool = False) -> str:
    """An answer as it is compared.

    Args:
        text: The answer, on one line.
        commas: Whether several commas within a number count as one, as in lmms-eval.

    >>> alike("The two dogs."), alike("1,000"), alike("dont know!")
    ('2 dogs', '1000', "don't know")
    """
    words = [_NUMBERS.get(word, word) for word in _unmarked(text, commas).lower().split()]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def plain(text: str) -> str:
    """An answer on one line, without blanks around it."""
    return text.replace("\n", " ").replace("\t", " ").strip()


def _unmarked(text: str, commas: bool) -> str:
    """Without marks: one beside a blank goes, another becomes a blank."""
    out = text
    pattern = _COMMAS_IN_NUMBER if commas else _COMMA_IN_NUMBER
    comma = pattern.search(text) is not None
    for mark in _MARKS:
        if mark in text:
            gone = comma or f"{mark} " in text or f" {mark}" in text
            out = out.replace(mark, "" if gone else " ")
    return _DOT.sub("", out, count=_MOST_DOTS)
