"""Depth: two points on objects in haze are marked; which of them is nearer?

An object twice as far away looks half as large and is paler, and a nearer object hides what is
behind it. Objects are of different sizes and hover anywhere: neither the place of a point nor the
size at which its object is seen tells the answer alone.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from vlmlens_plugins.demo.scenes import SHAPES
from vlmlens_plugins.demo.tasks import marks
from vlmlens_plugins.demo.tasks.task import SIZE, Pictures, Point, Task
from vlmlens_plugins.demo.tasks.things import Thing, background, drawn, seen, tinged

KEY: Final = 1
PROMPT: Final = "Which square is nearer, red or blue?"
NEAREST: Final = 1.0
FARTHEST: Final = 2.8
RATIO: Final = 1.45
"""The farther of the two points is at least so many times as far away as the nearer one."""

_OBJECTS: Final = 3
_SIDE: Final = 54
_LARGER: Final = 1.25
_HAZE: Final = 0.6
_APART: Final = 2 * marks.HALF + 2
_COLORS: Final = ("green", "yellow", "purple", "cyan", "orange")


def make(index: int, seed: int) -> Task:
    """Make one task."""
    rng = marks.stream(KEY, index, seed)
    label = marks.answer_of(KEY, index, seed, marks.TWO)
    while True:
        made = _tried(rng, index, seed, label)
        if made is not None:
            return made


def _tried(rng: np.random.Generator, index: int, seed: int, label: str) -> Task | None:
    """A task, or None where a marked point is hidden or the squares would overlap."""
    near, far = _depths(rng)
    other = float(rng.uniform(NEAREST, FARTHEST))
    depths = np.array([near, far, other][:_OBJECTS])
    behind, mirrored = background(rng, 175, 225), bool(rng.integers(2))
    things = [_thing(rng, depth) for depth in depths]
    spots = [thing.at(*rng.uniform(0.38, 0.62, 2)) for thing in things[:2]]
    order = np.argsort(-depths, kind="stable").tolist()
    ordered = [things[number] for number in order]
    grain = int(rng.integers(2**31))
    if any(
        seen(ordered, spots[number], mirrored=mirrored) != order.index(number) for number in (0, 1)
    ):
        return None
    if max(abs(a - b) for a, b in zip(*spots, strict=True)) < _APART:
        return None
    colors = (label, next(color for color in marks.TWO if color != label))
    points = {color: Point(0, *spot) for color, spot in zip(colors, spots, strict=True)}
    points = {color: points[color] for color in marks.TWO}

    def pictures() -> Pictures:
        canvas = drawn(ordered, behind, grain, mirrored=mirrored)
        for color, point in points.items():
            marks.mark(canvas, point, color)
        return (canvas,)

    of = dict(zip(colors, (0, 1), strict=True))
    facts = {
        f"{name} of {color}": value
        for color in marks.TWO
        for name, value in _facts(things[of[color]], float(depths[of[color]])).items()
    }
    return Task(
        "depth",
        index,
        seed,
        PROMPT,
        marks.TWO,
        label,
        points,
        {color: (0, marks.square(point)) for color, point in points.items()},
        facts | {"depth ratio": round(far / near, 3)},
        pictures,
    )


def _depths(rng: np.random.Generator) -> tuple[float, float]:
    near = float(rng.uniform(NEAREST, FARTHEST / RATIO))
    return near, float(rng.uniform(near * RATIO, FARTHEST))


def _thing(rng: np.random.Generator, depth: float) -> Thing:
    own = math.exp(rng.uniform(-1, 1) * math.log(_LARGER))
    size = round(_SIDE * own / depth)
    color = _COLORS[int(rng.integers(len(_COLORS)))]
    low, high = marks.HALF + 2 - size // 2, SIZE - marks.HALF - 2 - size // 2
    x, y = rng.integers(max(low, 1), min(high, SIZE - size - 1) + 1, 2).tolist()
    return Thing(
        color=color,
        shape=SHAPES[int(rng.integers(len(SHAPES)))],
        x=x,
        y=y,
        size=size,
        rgb=tinged(rng, color),
        clear=math.exp(-_HAZE * (depth - NEAREST)),
    )


def _facts(thing: Thing, depth: float) -> dict[str, str | int | float]:
    """What is known of the object at a point."""
    return {
        "depth": round(depth, 3),
        "size": thing.size,
        "color": thing.color,
        "shape": thing.shape,
    }
