"""Task: a question about pictures with marked places, whose answer is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from PIL import Image

from vlmlens.samples import Attribute

Pictures: TypeAlias = tuple[Image.Image, ...]
Box: TypeAlias = tuple[int, int, int, int]

SIZE: Final = 128
"""Side of a picture in pixels."""
REFERENCE: Final = "white"
"""The mark of what the candidates are compared with."""


@dataclass(frozen=True, slots=True)
class Point:
    """A pixel of one of a task's pictures.

    Attributes:
        image: Number of the picture, from 0.
        x: Column in pixels; `y`: row in pixels. The point is the middle of that pixel.
    """

    image: int
    x: int
    y: int

    @property
    def pixel(self) -> Box:
        """Its pixel as a box, (left, top, right, bottom)."""
        return self.x, self.y, self.x + 1, self.y + 1


@dataclass(frozen=True, slots=True)
class Task:
    """A question about pictures with marked places.

    Attributes:
        kind: One of `KINDS`.
        index: Its number.
        seed: The seed of the whole data set.
        prompt: What the model is asked.
        choices: The possible answers: the colours of the marks.
        label: The right one.
        points: What the marks are at, by their colour; none where whole pictures are compared.
        areas: The marked part of a picture by its colour, as (number of the picture, box).
        facts: What else is known; flat.
        pictures: Draws them, always alike: RGB, `side` pixels a side.
        side: Side of every picture in pixels.
    """

    kind: str
    index: int
    seed: int
    prompt: str
    choices: tuple[str, ...]
    label: str
    points: Mapping[str, Point]
    areas: Mapping[str, tuple[int, Box]]
    facts: Mapping[str, Attribute]
    pictures: Callable[[], Pictures] = field(repr=False, compare=False)
    side: int = SIZE

    @property
    def id(self) -> str:
        """A stable name, such as ``depth-00007``."""
        return f"{self.kind}-{self.index:05d}"
