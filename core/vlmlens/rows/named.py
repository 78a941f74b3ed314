"""Rows that people name: `question`, `word(red)`, `image.frame(3)`, `image.region(cube)`, ..."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

What = Literal["question", "option", "word", "region", "rest", "view", "patch", "frame", "video"]

FORMS = (
    r"question|video|(?:option|word|image\.(?:region|view|patch|frame))\([^()\[\]]*\)"
    r"|image\.rest(?:\([^()\[\]]*\))?"
)
"""A pattern of all forms; what stands in parentheses is read by `NamedRows.parse`."""

_FORM = re.compile(r"(?:image\.)?(?P<what>[a-z]+)(?:\((?P<given>.*)\))?", re.DOTALL)
_NAME = re.compile(r"[^(){}\[\],/=<>]+")
_RING = re.compile(r"ring ?= ?([0-9]{1,4})")
_COUNT = re.compile(r"[0-9]{1,9}")
_NUMBER = re.compile(r"-?[0-9]{1,9}")
_WITHOUT: tuple[What, ...] = ("question", "rest", "video")
_FRAMES = re.compile(r"(-?[0-9]{1,9})?:(-?[0-9]{1,9})?")
_WITH_NAME: tuple[What, ...] = ("option", "word", "region", "rest", "view")


@dataclass(frozen=True, slots=True)
class NamedRows:
    """Some rows by name.

    Args:
        what: Of what.
        name: Its name: of a word, an option, a region or a view; a range of frames, such as "2:5";
            "" where none is given.
        numbers: Number of a view or a frame; row and column of a patch.
        ring: How many rings of neighbouring patches belong to a region, too.
    """

    what: What
    name: str = ""
    numbers: tuple[int, ...] = ()
    ring: int = 0

    @classmethod
    def parse(cls, text: str) -> NamedRows | None:
        """Read one of the `FORMS`; None if what it is given makes no sense."""
        match = _FORM.fullmatch(text)
        if match is None:
            return None
        what, given = match["what"], match["given"]
        if given is None:
            return next((cls(each) for each in _WITHOUT if each == what), None)
        parts = [" ".join(part.split()) for part in given.split(",")]
        if what == "patch":
            valid = len(parts) == 2 and all(map(_COUNT.fullmatch, parts))
            return cls("patch", numbers=tuple(map(int, parts))) if valid else None
        if what in ("view", "frame") and _NUMBER.fullmatch(given.strip()):
            return cls("view" if what == "view" else "frame", numbers=(int(given),))
        if what == "frame":
            asked = given.replace(" ", "")
            return cls("frame", asked) if _FRAMES.fullmatch(asked) else None
        return cls._with_name(what, parts)

    @classmethod
    def _with_name(cls, what: str, parts: list[str]) -> NamedRows | None:
        ring = _RING.fullmatch(parts[-1]) if what in ("region", "rest") else None
        names, width = (parts[:-1], int(ring[1])) if ring else (parts, 0)
        if ring and not names and what == "rest":
            return cls("rest", ring=width)
        known = next((each for each in _WITH_NAME if each == what), None)
        if known is None or len(names) != 1 or not _NAME.fullmatch(names[0]):
            return None
        return cls(known, names[0], ring=width)

    @property
    def of_image(self) -> bool:
        """Whether they are image rows; else they are rows of the question."""
        return self.what not in ("question", "option", "word")

    @property
    def of_regions(self) -> bool:
        """Whether the sample's regions say which rows are meant."""
        return self.what in ("region", "rest")

    def frames(self, count: int) -> list[int]:
        """The numbers of the frames that are meant, of so many; none where there is none."""
        if self.what == "video":
            return list(range(count))
        if self.numbers:
            (number,) = self.numbers
            return [range(count)[number]] if -count <= number < count else []
        low, _, high = self.name.partition(":")
        return list(range(count))[int(low) if low else None : int(high) if high else None]

    def __str__(self) -> str:
        if self.what == "video":
            return "video"
        ring = [f"ring={self.ring}"] if self.ring else []
        given = [*map(str, self.numbers), *([self.name] if self.name else []), *ring]
        start = "image." if self.of_image else ""
        return f"{start}{self.what}" + (f"({', '.join(given)})" if given else "")
