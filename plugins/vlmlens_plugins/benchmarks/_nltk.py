"""NLTK, where the rule of other code needs it: refused clearly where it or its data is missing."""

from __future__ import annotations

import re
from functools import lru_cache
from importlib import import_module
from typing import Any

from vlmlens.errors import MissingDependency

_RESOURCE = re.compile(r"Resource\s+(?:\x1b\[\d+m)?'?(\w+)")
_DATA = "punkt punkt_tab averaged_perceptron_tagger averaged_perceptron_tagger_eng wordnet"


def check() -> None:
    """Read a word, so that what is missing shows before any work.

    Raises:
        MissingDependency: NLTK or its data is not installed.
    """
    for word, _ in tagged("dogs"):
        lemma(word)


@lru_cache(maxsize=65_536)
def tagged(text: str) -> tuple[tuple[str, str], ...]:
    """The tokens of a text with their part of speech (Penn tags), as NLTK finds them.

    Raises:
        MissingDependency: NLTK or its data is not installed.
    """
    nltk = _nltk()
    try:
        return tuple((word, tag) for word, tag in nltk.pos_tag(nltk.word_tokenize(text)))
    except LookupError as error:
        raise _no_data(error) from error


@lru_cache(maxsize=65_536)
def lemma(word: str, pos: str = "n") -> str:
    """The lemma of a word in WordNet: of a noun, unless `pos` says otherwise (a, n, r, v).

    Raises:
        MissingDependency: NLTK or its data is not installed.
    """
    nltk = _nltk()
    try:
        return str(nltk.stem.WordNetLemmatizer().lemmatize(word, pos))
    except LookupError as error:
        raise _no_data(error) from error


def _nltk() -> Any:
    try:
        return import_module("nltk")
    except ImportError as error:
        raise MissingDependency(
            "This parser needs the package nltk, not installed in this environment.",
            subject="nltk",
            hint=f"pip install nltk, then python -m nltk.downloader {_DATA}. "
            "The parser strict needs neither.",
        ) from error


def _no_data(error: LookupError) -> MissingDependency:
    found = _RESOURCE.search(str(error))
    what = f" ({found[1]})" if found else ""
    return MissingDependency(
        f"This parser needs data of nltk that is not installed{what}.",
        subject="nltk",
        hint=f"python -m nltk.downloader {_DATA}. The parser strict needs none of it.",
    )
