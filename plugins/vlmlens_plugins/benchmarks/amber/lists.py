"""AMBER's word lists: relation.json (words and what counts as them), safe_words.txt."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from vlmlens.errors import DataNotFound, ManifestError
from vlmlens_plugins.benchmarks.sources import digest
from vlmlens_plugins.object_names import ObjectNames

LISTS = "word_lists"
"""The attribute that says where a caption's word lists are; see `keyed`."""
RELATION, SAFE = "relation.json", "safe_words.txt"


@dataclass(frozen=True)
class Lists:
    """The words that count as objects in captions.

    Args:
        related: By word, others that mean it too.
        safe: Words that are never counted as hallucinated.
    """

    related: Mapping[str, Sequence[str]]
    safe: frozenset[str]

    @cached_property
    def words(self) -> frozenset[str]:
        """All words that count as objects."""
        return frozenset({*self.related, *(one for more in self.related.values() for one in more)})

    @cached_property
    def names(self) -> ObjectNames:
        """Each word as a name of itself."""
        spelled = {one.lower(): one for one in sorted(self.words)}
        return ObjectNames({one: [] for one in spelled.values()})


def keyed(folder: Path) -> str:
    """How captions name the lists of a folder: "FOLDER#DIGESTS".

    Raises:
        DataNotFound: One of the two files is not there.
        ManifestError: `relation.json` is not AMBER's.
    """
    for name in (RELATION, SAFE):
        if not (folder / name).is_file():
            raise DataNotFound(
                f"AMBER's captions need {RELATION} and {SAFE}, but {str(folder)!r} has no {name}.",
                subject=str(folder),
                hint="Take both from the authors' folder data/, and name that folder with "
                "--set options.dataset.lists=FOLDER. Or leave the captions out with "
                "--set options.dataset.part=discriminative.",
            )
    _read(folder)
    return f"{folder}#{_digests(folder)}"


@lru_cache(maxsize=8)
def lists(key: str) -> Lists:
    """The lists of that name, by which captions are read.

    Raises:
        DataNotFound: They are not there any more, or others.
    """
    path, _, known = key.rpartition("#")
    folder = Path(path)
    there = all((folder / name).is_file() for name in (RELATION, SAFE))
    if not path or not there or _digests(folder) != known:
        raise DataNotFound(
            f"AMBER's word lists in {path!r} are not there any more, or were changed.",
            subject=path,
            hint=f"Bring back {RELATION} and {SAFE} (SHA-256 {known or 'unknown'}).",
        )
    return _read(folder)


def _digests(folder: Path) -> str:
    return "-".join(digest(folder / name) for name in (RELATION, SAFE))


def _read(folder: Path) -> Lists:
    path = folder / RELATION
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8-sig"))
        lines = (folder / SAFE).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError, RecursionError) as error:
        raise _wrong(path, str(error)) from error
    if not isinstance(found, dict) or not found:
        raise _wrong(path, "it is no object of words")
    for word, more in found.items():
        if not isinstance(more, list) or not all(isinstance(one, str) for one in more):
            raise _wrong(path, f"what means {word!r} is no list of words")
    return Lists(found, frozenset(filter(None, map(str.strip, lines))))


def _wrong(path: Path, what: str) -> ManifestError:
    return ManifestError(
        f"{path} is not AMBER's list of related words: {what}.",
        subject=str(path),
        hint='It holds {"grass": ["ground"], ...}. Take it from the authors\' folder data/.',
    )
