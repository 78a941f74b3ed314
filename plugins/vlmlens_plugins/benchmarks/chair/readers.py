"""Readers: which objects of the table a text names, by the rules of vlmlens and of other code."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

from vlmlens.errors import DataError
from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks import _nltk
from vlmlens_plugins.benchmarks.chair.tables import Table, key_of, table
from vlmlens_plugins.benchmarks.chair.words import joined, objects_among, singular, tokens
from vlmlens_plugins.benchmarks.text_lists import texts_of

OBJECTS, INSTANCES, REFERENCES = "objects", "instances", "references"
"""Attributes: JSON lists of what is there, of the kinds that are outlined, of the captions."""

_WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")
_TOILET = re.compile(r"\btoilets?\b", re.IGNORECASE)
_SEAT = re.compile(r"seats?", re.IGNORECASE)
_POS = {"J": "a", "V": "v", "R": "r"}

Named = tuple[tuple[str, ...], int]
"""The objects that a text names, in order, repeated ones too; and its length in words."""


@dataclass(frozen=True)
class Reader:
    """How texts are read: the model's, and the reference captions, which say what is there.

    Args:
        read: From a text and a table to what it names.
    """

    read: Callable[[str, Table], Named]

    def named(self, text: str, sample: Sample) -> Named:
        """What a text about a sample names."""
        return _named(self.read, text, key_of(sample))

    def there(self, sample: Sample) -> frozenset[str]:
        """The objects that are there: those outlined, and those that a reference caption names.

        Where a sample has no reference captions, they are those that its attribute `objects` lists.

        Raises:
            DataError: The sample does not say what is there.
        """
        about, key = sample.attributes, key_of(sample)
        if about.get(REFERENCES) is None:
            return _known(key, str(about.get(OBJECTS)), sample.id)
        found = set(_known(key, str(about.get(INSTANCES)), sample.id))
        for caption in texts_in(str(about[REFERENCES]), sample.id):
            found.update(_named(self.read, caption, key)[0])
        return frozenset(found)

    def wrong(self, text: str, sample: Sample) -> list[str]:
        """The objects that a text names and that are not there, repeated ones too."""
        there, names = self.there(sample), table(key_of(sample)).names
        return [one for one in self.named(text, sample)[0] if not names.is_true(one, there)]


def texts_in(value: str, where: str) -> list[str]:
    """The texts of a JSON list in an attribute.

    Raises:
        DataError: It is none.
    """
    found = texts_of(value)
    if found is None:
        raise DataError(
            f"Sample {where!r} does not say what is there: {value[:60]!r}.",
            subject=where,
            hint=f'CHAIR needs the attribute {OBJECTS}, a JSON list such as ["dog", "cup"].',
        )
    return found


@lru_cache(maxsize=65_536)
def _named(read: Callable[[str, Table], Named], text: str, key: str) -> Named:
    return read(text, table(key))


@lru_cache(maxsize=65_536)
def _known(key: str, value: str, where: str) -> frozenset[str]:
    names = table(key).names
    return frozenset(filter(None, map(names.object_of, texts_in(value, where))))


def _strict(text: str, known: Table) -> Named:
    found = known.names.mentions(text)
    if _TOILET.search(text):
        found = [one for one in found if not _SEAT.fullmatch(one.words)]
    return tuple(one.object for one in found), len(_WORD.findall(text))


def _original(text: str, known: Table) -> Named:
    words = joined([singular(word) for word in tokens(text.lower())], known.joined)
    return tuple(objects_among(words, known.objects)), len(words)


def _lemmatized(text: str, known: Table) -> Named:
    """As copies of the code do: by WordNet's lemma of each token, by its part of speech."""
    words = joined(list(_lemmas(_nltk.tagged(text.lower()))), known.joined)
    return tuple(objects_among(words, known.objects)), len(words)


def _lemmas(tagged: Iterable[tuple[str, str]]) -> Iterable[str]:
    for word, tag in tagged:
        yield _nltk.lemma(word, _POS.get(tag[:1], "n"))


STRICT, ORIGINAL, LEMMATIZED = Reader(_strict), Reader(_original), Reader(_lemmatized)
