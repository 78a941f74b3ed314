"""Names of objects in texts: a table of synonyms, and how they are found.

A table is a text file with a line for each object: `object: synonym, synonym`. A line without a
colon lists names of which the first is the object, as in the `synonyms.txt` of Rohrbach et al.'s
own code. `red cube < cube: crimson cube` says that a red cube is a kind of cube. What follows a #
is a comment. A JSON file holds an object of names and lists of synonyms.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from vlmlens.errors import DataError, DataNotFound
from vlmlens_plugins.object_names._coco import COCO, KINDS, OTHERS

_HINT = 'Write lines `object: synonym, synonym`, or JSON: {"object": ["synonym"]}.'
_COLORS = ("red", "green", "blue", "yellow", "purple", "cyan", "orange", "gray")
_SHAPES = ("cube", "sphere", "cone")
_SIBILANT = re.compile(r"(s|x|z|ch|sh)$")
_BETWEEN = r"[\s\-_]+"
_WORD = re.compile(r"[^\W_]+")
_END = r"(?![^\W_])"


@dataclass(frozen=True, slots=True)
class Mention:
    """An object that is named in a text.

    Args:
        object: The object's name in the table.
        words: The words in the text.
    """

    object: str
    words: str


@dataclass(frozen=True)
class ObjectNames:
    """Objects by the words that name them.

    Args:
        synonyms: By object, everything else that it is called.
        kinds: By object, the object of which it is a kind, where there is one.
        others: Names of what is no object of the table, though its words say so: "train track" is
            no train.
    """

    synonyms: Mapping[str, Sequence[str]]
    kinds: Mapping[str, str] = field(default_factory=dict)
    others: Sequence[str] = ()

    def mentions(self, text: str) -> list[Mention]:
        """The objects that a text names, in order.

        Case does not count, names begin and end at the borders of words, and of several names at
        one place the longest counts. A name stands for its plural, too, see `plurals`.
        """
        found: list[Mention] = []
        end = 0
        lower = _lower(text)
        for word in _WORD.finditer(lower):
            pattern = self._starting.get(word[0])
            if pattern is not None and word.start() >= end:
                match = pattern.match(lower, word.start())
                if match is not None:
                    end = match.end()
                    name = self._forms[_plain(match[0])]
                    if name:
                        found.append(Mention(name, text[match.start() : end]))
        return found

    def object_of(self, name: str) -> str | None:
        """The object that a name means; None if the table does not have it."""
        return self._forms.get(_plain(name)) or None

    def is_true(self, said: str, there: Collection[str]) -> bool:
        """Whether an object is there: itself, or one that is a kind of it."""
        kinds = self.kinds
        return said in there or (bool(kinds) and any(kinds.get(one) == said for one in there))

    def is_named(self, there: str, said: Collection[str]) -> bool:
        """Whether an object that is there is named: itself, or what it is a kind of."""
        return there in said or self.kinds.get(there) in said

    @cached_property
    def _forms(self) -> dict[str, str]:
        """The object of each name, in singular and plural; "" of the names of no object."""
        found: dict[str, str] = {}
        names = [(one, name) for name, more in self.synonyms.items() for one in (name, *more)]
        names += [(one, "") for one in self.others]
        for one, name in names:
            known = found.setdefault(_plain(one), name)
            if known != name:
                raise _wrong(f"{one!r} is a name of both {known!r} and {name!r}", one)
        for one, name in names:
            for form in plurals(_plain(one)):
                found.setdefault(form, name)
        return found

    @cached_property
    def _starting(self) -> dict[str, re.Pattern[str]]:
        """By their first word, all names that begin with it, the longest first."""
        found: dict[str, list[str]] = {}
        for form in sorted(self._forms, key=lambda form: (-len(form), form)):
            first = _WORD.match(form)
            if first is None:
                raise _wrong(f"{form!r} does not begin with a letter or a digit", form)
            found.setdefault(first[0], []).append(_BETWEEN.join(map(re.escape, form.split())))
        return {first: re.compile(f"(?:{'|'.join(forms)}){_END}") for first, forms in found.items()}


def _lower(text: str) -> str:
    """In lower case, character by character, so that places stay what they are."""
    if text.isascii():
        return text.lower()
    return "".join(one.lower() if len(one.lower()) == 1 else one for one in text)


def plurals(name: str) -> Iterator[str]:
    """What the plural of an English name may be, by rule; others belong in the table.

    >>> list(plurals("hot dog")), list(plurals("wine glass")), list(plurals("cherry"))
    (['hot dogs'], ['wine glasses'], ['cherries'])
    >>> list(plurals("knife")), list(plurals("woman")), list(plurals("potato"))
    (['knifes', 'knives'], ['women'], ['potatos', 'potatoes'])
    """
    if name.endswith("man"):
        yield f"{name[:-3]}men"
    elif _SIBILANT.search(name):
        yield f"{name}es"
    elif re.search(r"[^aeiou]y$", name):
        yield f"{name[:-1]}ies"
    else:
        yield f"{name}s"
        if name.endswith("o"):
            yield f"{name}es"
        if name.endswith(("f", "fe")):
            yield f"{name.removesuffix('e')[:-1]}ves"


def demo_names() -> ObjectNames:
    """The objects of the demo's scenes: shapes, and each shape in each color."""
    colored = {f"{color} {shape}": shape for color in _COLORS for shape in _SHAPES}
    gray = {name: [name.replace("gray", "grey")] for name in colored if name.startswith("gray")}
    return ObjectNames({name: gray.get(name, []) for name in (*_SHAPES, *colored)}, colored)


def names_in(path: str | None) -> ObjectNames:
    """The table in a file; None: that of the demo; "coco": that of COCO's 80 kinds."""
    if path == COCO:
        return coco_names()
    return demo_names() if path is None else read_names(path)


def coco_names() -> ObjectNames:
    """The 80 kinds of objects of COCO, by the names that `_coco` lists."""
    return ObjectNames({name: list(more) for name, more in KINDS.items()}, others=OTHERS)


def read_names(path: str) -> ObjectNames:
    """The table in a file.

    Raises:
        DataNotFound: There is no such file.
        DataError: It holds no table, or a name of two objects.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise DataNotFound(
            f"There is no table of object names {path!r}.",
            subject=path,
            hint=f"{_HINT} Without it, the names of the demo's objects are used; {COCO} stands for "
            "those of COCO's.",
        )
    try:
        text = file.read_text(encoding="utf-8-sig")
        rows = list(_of_json(text) if text.lstrip().startswith("{") else _of_lines(text))
    except (OSError, UnicodeError, RecursionError) as error:
        raise _wrong(f"it cannot be read: {error}", path) from error
    if not rows:
        raise _wrong("it names no object", path)
    synonyms: dict[str, list[str]] = {}
    kinds: dict[str, str] = {}
    for name, kind, more in rows:
        synonyms.setdefault(name, []).extend(more)
        if kind:
            kinds[name] = kind
    for name, kind in kinds.items():
        if kind not in synonyms:
            raise _wrong(f"{name!r} is a kind of {kind!r}, which it does not list", kind)
    found = ObjectNames(synonyms, kinds)
    found.mentions("a")
    return found


_Row = tuple[str, str, list[str]]


def _of_lines(text: str) -> Iterator[_Row]:
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].strip()
        if not words:
            continue
        head, colon, rest = words.partition(":")
        names = [one.strip() for one in (rest if colon else words).split(",")]
        if not colon:
            head, *names = names
        yield _row(head, [one for one in names if one], f"line {number}")


def _of_json(text: str) -> Iterator[_Row]:
    try:
        data: Any = json.loads(text)
    except ValueError as error:
        raise _wrong(f"it is no JSON: {error}", "JSON") from error
    for head, names in data.items():
        if not isinstance(names, list) or not all(isinstance(one, str) for one in names):
            raise _wrong(f"the synonyms of {head!r} are no list of texts", head)
        yield _row(head, [one for one in names if one.strip()], repr(head))


def _row(head: str, more: list[str], where: str) -> _Row:
    name, less, kind = (_plain(part) for part in head.partition("<"))
    if not name or (less and not kind):
        raise _wrong(f"{where} names no object", head)
    return name, kind, more


def _plain(name: str) -> str:
    """In lower case, with single spaces."""
    return " ".join(re.split(_BETWEEN, name.strip().lower()))


def _wrong(what: str, subject: str) -> DataError:
    return DataError(
        f"The table of object names cannot be used: {what}.", subject=subject, hint=_HINT
    )
