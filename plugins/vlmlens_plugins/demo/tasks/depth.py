"""Depth: two points on objects in haze are marked; which of them is nearer?

An object twice as far away looks half as large and is paler, and a nearer object hides what is
behind it. Objects hover anywhere, so the place of a point tells nothing; and they are of different
sizes, so that the one that looks larger is the farther one in about one task of ten.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from vlmlens.samples import Attribute
from vlmlens_plugins.demo.scenes import SHAPES
from vlmlens_plugins.demo.tasks import marks
from vlmlens_plugins.demo.tasks.task import SIZE, Pictures, Point, Task
from vlmlens_plugins.demo.tasks.things import Thing, background, covers, drawn, tinged

KEY: Final = 1
PROMPT: Final = "Which square is nearer, red or blue?"
NEAREST: Final = 1.0
FARTHEST: Final = 2.4
RATIO: Final = 1.4
"""The farther of the two points is at least so many times as far away as the nearer one."""

_SIDE: Final = 46
_LARGER: Final = 1.5
_HAZE: Final = 0.75
_APART: Final = 2 * marks.HALF + 2
_EDGE: Final = 22
_COLORS: Final = ("green", "yellow", "purple", "cyan", "orange")
Spot = tuple[int, int]


def make(index: int, seed: int) -> Task:
    """Make one task."""
    rng = marks.stream(KEY, index, seed)
    label = marks.answer_of(KEY, index, seed, marks.TWO)
    near = float(rng.uniform(NEAREST, FARTHEST / RATIO))
    far = float(rng.uniform(near * RATIO, FARTHEST))
    depths = [near, far, float(rng.uniform(NEAREST, FARTHEST))]
    behind, mirrored = background(rng, 175, 225), bool(rng.integers(2))
    things, spots = _placed(rng, depths, mirrored)
    grain = int(rng.integers(2**31))
    ordered = [things[number] for number in np.argsort(depths, kind="stable")[::-1].tolist()]
    first = marks.TWO.index(label)
    of = dict(zip(marks.TWO, (first, 1 - first), strict=True))
    points = {color: Point(0, *spots[number]) for color, number in of.items()}
    facts: dict[str, Attribute] = {}
    for color, number in of.items():
        facts |= _facts(color, things[number], depths[number])

    def pictures() -> Pictures:
        return marks.mark((drawn(ordered, behind, grain, mirrored=mirrored),), points)

    return Task(
        kind="depth",
        index=index,
        seed=seed,
        prompt=PROMPT,
        choices=marks.TWO,
        label=label,
        points=points,
        areas=marks.squares(points),
        facts=facts | {"depth ratio": round(far / near, 3)},
        pictures=pictures,
    )


def _placed(
    rng: np.random.Generator, depths: Sequence[float], mirrored: bool
) -> tuple[list[Thing], list[Spot]]:
    """An object at each depth, and a point on each; the first two points are seen, and apart.

    A point must be free of every other object, in front or behind: so no place is more likely for
    the nearer one.
    """
    while True:
        made = [_thing(rng, depth) for depth in depths]
        things, spots = [thing for thing, _ in made], [spot for _, spot in made]
        (a, b), (c, d) = spots[:2]
        clear = all(
            covers(thing, spot, mirrored=mirrored) == (thing is own)
            for own, spot in zip(things[:2], spots[:2], strict=True)
            for thing in things
        )
        if clear and max(abs(a - c), abs(b - d)) >= _APART:
            return things, spots


def _thing(rng: np.random.Generator, depth: float) -> tuple[Thing, Spot]:
    """An object around a point; a large one may be cut off at the edges."""
    own = math.exp(rng.uniform(-1, 1) * math.log(_LARGER))
    size = round(_SIDE * own / depth)
    color = _COLORS[int(rng.integers(len(_COLORS)))]
    x, y = rng.integers(_EDGE, SIZE - _EDGE, 2).tolist()
    across, down = rng.uniform(0.38, 0.62, 2).tolist()
    thing = Thing(
        color=color,
        shape=SHAPES[int(rng.integers(len(SHAPES)))],
        x=x - int(across * size),
        y=y - int(down * size),
        size=size,
        rgb=tinged(rng, color),
        clear=math.exp(-_HAZE * (depth - NEAREST)),
    )
    return thing, (x, y)


def _facts(mark: str, thing: Thing, depth: float) -> dict[str, Attribute]:
    """What is known of the object at a mark."""
    return {
        f"depth of {mark}": round(depth, 3),
        f"size of {mark}": thing.size,
        f"color of {mark}": thing.color,
        f"shape of {mark}": thing.shape,
    }
