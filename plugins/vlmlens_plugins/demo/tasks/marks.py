"""Marks: the squares and frames whose colours are the answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from PIL import Image, ImageDraw

from vlmlens_plugins.demo.scenes import COLORS, RGB
from vlmlens_plugins.demo.tasks.task import REFERENCE, SIZE, Box, Pictures, Point

TWO: Final = ("red", "blue")
FOUR: Final = ("red", "green", "blue", "yellow")
UNMARKED: Final = tuple(name for name in COLORS if name not in FOUR)
"""Colours of objects: no mark has them."""
HALF: Final = 17
"""Half the side of a square, in pixels: its line runs through the patches around the point's own,
where these are 16 pixels wide."""

_WIDTH: Final = 3
_FRAME: Final = 6
_INKS: Final[Mapping[str, RGB]] = {
    **{name: COLORS[name] for name in FOUR},
    REFERENCE: (255, 255, 255),
}


def square(point: Point) -> Box:
    """The square around a point, (left, top, right, bottom), inside the picture."""
    left, top = max(point.x - HALF, 0), max(point.y - HALF, 0)
    return left, top, min(point.x + HALF + 1, SIZE), min(point.y + HALF + 1, SIZE)


def squares(points: Mapping[str, Point]) -> dict[str, tuple[int, Box]]:
    """The square of each point, as (number of the picture, box)."""
    return {color: (point.image, square(point)) for color, point in points.items()}


def mark(pictures: Pictures, points: Mapping[str, Point]) -> Pictures:
    """Draw the square around each point, and give the pictures back."""
    for color, point in points.items():
        left, top, right, bottom = square(point)
        box = (left, top, right - 1, bottom - 1)
        pen = ImageDraw.Draw(pictures[point.image])
        pen.rectangle(box, outline=_INKS[color], width=_WIDTH)
    return pictures


def frame(canvas: Image.Image, color: str) -> None:
    """Draw a frame along the edges of a picture."""
    box = (0, 0, SIZE - 1, SIZE - 1)
    ImageDraw.Draw(canvas).rectangle(box, outline=_INKS[color], width=_FRAME)


def framed() -> Box:
    """What a frame leaves of a picture."""
    return _FRAME, _FRAME, SIZE - _FRAME, SIZE - _FRAME


def answer_of(kind: int, index: int, seed: int, choices: tuple[str, ...]) -> str:
    """The right answer of a task: each once per block of as many tasks as there are choices."""
    block, place = divmod(index, len(choices))
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(4, kind, block, 1)))
    return choices[int(rng.permutation(len(choices))[place])]


def right_first(rng: np.random.Generator, label: str) -> list[str]:
    """The four colours in random order behind the right one."""
    others = [color for color in FOUR if color != label]
    return [label, *rng.permutation(others).tolist()]


def stream(kind: int, index: int, seed: int) -> np.random.Generator:
    """Where everything else of a task is drawn from; it does not depend on the answer."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(4, kind, index, 0)))
