"""AMBER's captions: which nouns are counted, and which of them are there.

The algorithm is that of the authors' `inference.py` (J. Wang et al. 2023, arXiv 2311.07397). Words
come from NLTK's tagger there, and words that spaCy's vectors call similar count as one: `official`
needs both. `strict` takes the words of the lists themselves, and compares by spelling alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import Any, NamedTuple

from vlmlens.errors import DataError, MissingDependency
from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks import _nltk
from vlmlens_plugins.benchmarks.amber.lists import LISTS, Lists, lists
from vlmlens_plugins.benchmarks.text_lists import texts_of

TRUTH, HALLU = "truth", "hallu"
"""Attributes of captions: JSON lists of what is there, and of what models tend to make up."""
_SIMILAR = 0.8
_MODEL = "en_core_web_lg"

Same = Callable[[str, str], bool]


class Judged(NamedTuple):
    """The counts of one caption: nouns, truths and listed hallucinations."""

    wrong: int
    kept: int
    covered: int
    truths: int
    hit: int
    listed: int


@dataclass(frozen=True)
class Reader:
    """How captions are read.

    Args:
        nouns: From a text and the lists to the words that count, in order, repeated ones too.
        same: Whether two words of unlike spelling mean the same.
    """

    nouns: Callable[[str, Lists], tuple[str, ...]]
    same: Same

    def said(self, text: str, sample: Sample) -> tuple[str, ...]:
        """The words of a caption that count."""
        return _said(self.nouns, text, _key(sample))

    def judged(self, text: str, sample: Sample) -> Judged:
        """The counts of a caption."""
        return self._of(self.said(text, sample), sample)

    def wrong(self, nouns: Sequence[str], sample: Sample) -> int:
        """How many of the words that count are not there."""
        return self._of(nouns, sample).wrong

    def _of(self, nouns: Sequence[str], sample: Sample) -> Judged:
        truth, hallu = words_in(sample, TRUTH), words_in(sample, HALLU)
        return judged(nouns, truth, hallu, lists(_key(sample)), self.same)


def judged(
    nouns: Sequence[str], truth: Sequence[str], hallu: Sequence[str], known: Lists, same: Same
) -> Judged:
    """The counts of nouns against what is there and what models tend to make up.

    A noun stands for the first word in a list that it equals, or is related to, related words
    first; a truth that is listed twice can so be covered once only, as in the authors' code.
    """
    there, made_up = _owners(truth, known), _owners(hallu, known)
    covered: set[int] = set()
    hit: set[int] = set()
    wrong = 0
    for noun in nouns:
        if noun in known.safe:
            continue
        owner = _equal(noun, there)
        if owner is not None:
            covered.add(owner)
            continue
        hit.update(
            one for one in (_equal(noun, made_up), _like(noun, made_up, same)) if one is not None
        )
        owner = _like(noun, there, same)
        if owner is None:
            wrong += 1
        else:
            covered.add(owner)
    return Judged(wrong, len(nouns), len(covered), len(truth), len(hit), len(hallu))


def words_in(sample: Sample, name: str) -> tuple[str, ...]:
    """The words of a JSON list in an attribute.

    Raises:
        DataError: It is none.
    """
    return _words_in(str(sample.attributes.get(name)), sample.id, name)


@lru_cache(maxsize=4096)
def _words_in(value: str, where: str, name: str) -> tuple[str, ...]:
    found = texts_of(value)
    if found is None:
        raise DataError(
            f"Sample {where!r}: its {name} is {value[:60]!r}, where a JSON list is expected.",
            subject=where,
            hint="Read AMBER's own files again: --data amber:data.",
        )
    return tuple(found)


def _owners(words: Sequence[str], known: Lists) -> list[tuple[str, int]]:
    related = [(one, i) for i, word in enumerate(words) for one in known.related.get(word, ())]
    return related + [(word, i) for i, word in enumerate(words)]


def _equal(noun: str, owners: Sequence[tuple[str, int]]) -> int | None:
    return next((i for word, i in owners if word == noun), None)


def _like(noun: str, owners: Sequence[tuple[str, int]], same: Same) -> int | None:
    return next((i for word, i in owners if same(noun, word)), None)


def _key(sample: Sample) -> str:
    return str(sample.attributes.get(LISTS) or "")


@lru_cache(maxsize=65_536)
def _said(nouns: Callable[[str, Lists], tuple[str, ...]], text: str, key: str) -> tuple[str, ...]:
    return nouns(text, lists(key))


def _listed(text: str, known: Lists) -> tuple[str, ...]:
    return tuple(one.object for one in known.names.mentions(text))


def _tagged(text: str, known: Lists) -> tuple[str, ...]:
    """The lemmas of what NLTK tags as a noun; its case stays, so that 'Sky' is not found."""
    nouns = (_nltk.lemma(word) for word, tag in _nltk.tagged(text) if tag.startswith("NN"))
    return tuple(one for one in nouns if one in known.words)


def _spelled(first: str, second: str) -> bool:
    del first, second  # the same spelling is looked for before
    return False


@lru_cache(maxsize=65_536)
def _similar(first: str, second: str) -> bool:
    """Whether spaCy's vectors of two words have a cosine above 0.8."""
    return bool(_document(first).similarity(_document(second)) > _SIMILAR)


@lru_cache(maxsize=4096)
def _document(word: str) -> Any:
    return _vectors()(word)


@lru_cache(maxsize=1)
def _vectors() -> Any:
    try:
        return import_module("spacy").load(_MODEL)
    except (ImportError, OSError) as error:
        raise MissingDependency(
            f"AMBER's own way to read captions needs spaCy with the vectors {_MODEL}, not "
            "installed in this environment.",
            subject="spacy",
            hint=f"pip install spacy, then python -m spacy download {_MODEL}. Other vectors give "
            "other scores. The parser strict needs none.",
        ) from error


def check(samples: Sequence[Sample]) -> None:
    """Whether captions among these samples can be read by `OFFICIAL`.

    Raises:
        MissingDependency: NLTK, spaCy or their data is not installed.
    """
    if any(sample.label is None for sample in samples):
        _nltk.check()
        _vectors()


STRICT, OFFICIAL = Reader(_listed, _spelled), Reader(_tagged, _similar)
