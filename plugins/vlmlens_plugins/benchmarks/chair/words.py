"""Words of a caption as the code of CHAIR takes them: tokens, their singulars, pairs of words.

The code of Rohrbach et al. parts texts with NLTK's tokenizer and forms singulars with the package
`pattern` (Python 2). Neither is needed here: what they do to names of objects follows a few rules,
which are written anew below, with their faults: "bus" becomes "bu", "wine glass" "wine glas".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

_PART = re.compile(r"(\.\.+|--+|[][(){}<>;@#$%&?!*\"`\u00ab\u00bb\u2018-\u201e\u2026]|[:,](?!\d))")
_STOP = re.compile(r"(?<=[^.])\.(?=[])}>\"'\u00bb\u201d\u2019]*$)")
_ENDING = re.compile(r"(?<=[^' ])('s|'m|'d|'ll|'re|'ve|n't|')$")
_IRREGULAR = {
    "children": "child", "people": "person", "men": "man", "geese": "goose", "oxen": "ox",
    "feet": "foot", "teeth": "tooth", "leaves": "leaf", "loaves": "loaf", "moves": "move",
    "axes": "axe", "kine": "cow",
}  # fmt: skip
_KEPT = ("scissors", "bison", "luggage", "species", "series", "news", "chassis")
_KEPT_IES = ("doggies", "collies", "cookies", "birdies", "laddies", "rookies", "hippies")
_ENDINGS: Sequence[tuple[re.Pattern[str], str]] = [
    (re.compile(old), new)
    for old, new in (
        (r"([ml])ice$", r"\1ouse"),
        (r"(shoe)s$", r"\1"),
        (r"(o|bus|x|ch|ss|sh)es$", r"\1"),
        (r"([^aeiouy]|qu)ies$", r"\1y"),
        (r"([aeo]l|[^d]ea|ar)ves$", r"\1f"),
        (r"([nlw]i)ves$", r"\1fe"),
        (r"([lr])ves$", r"\1f"),
        (r"([aeo]|si|ti|hi)ves$", r"\1ve"),
        (r"([^f])ves$", r"\1fe"),
        (r"s$", ""),
    )
]


def tokens(text: str) -> list[str]:
    """The tokens of a text, as NLTK's word tokenizer gives them for names of objects.

    Words with a hyphen or a slash stay whole. A stop at the end of a word is a token of its own,
    also after an abbreviation, of which NLTK's data keeps some.

    >>> tokens("A dog's bowl, two cats.")
    ['A', 'dog', "'s", 'bowl', ',', 'two', 'cats', '.']
    """
    found: list[str] = []
    for chunk in text.split():
        if chunk.isalnum():
            found.append(chunk)
            continue
        for part in _PART.split(_STOP.sub(" .", chunk)):
            for word in part.split():
                found += _ENDING.sub(r" \1", word).split()
    return found


@lru_cache(maxsize=65_536)
def singular(word: str) -> str:
    """The singular of a word in lower case, as the original code forms it.

    >>> [singular(word) for word in ("dogs", "knives", "women", "bus", "buses", "ties", "collies")]
    ['dog', 'knife', 'woman', 'bu', 'bus', 'ty', 'collies']
    """
    if word.endswith(_KEPT_IES) or any(kept.endswith(word) for kept in _KEPT):
        return word
    for plural, one in _IRREGULAR.items():
        if word.endswith(plural):
            return word.removesuffix(plural) + one
    for old, new in _ENDINGS:
        if old.search(word):
            return old.sub(new, word)
    return word


def joined(words: Sequence[str], pairs: Mapping[str, str]) -> list[str]:
    """The words, in which a pair that counts as one is replaced by what it counts as."""
    found: list[str] = []
    i = 0
    while i < len(words):
        pair = " ".join(words[i : i + 2])
        found.append(pairs.get(pair, words[i]))
        i += 2 if pair in pairs else 1
    return found


def objects_among(words: Sequence[str], objects: Mapping[str, str]) -> list[str]:
    """The objects that words name, in order, repeated ones too.

    Where a toilet is named, a seat is none of the chairs.
    """
    seats = "toilet" in words
    return [objects[one] for one in words if one in objects and not (seats and one == "seat")]
