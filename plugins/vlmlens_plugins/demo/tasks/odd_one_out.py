"""The odd one out: three of four marked objects are of one kind; which is not?

The odd one has another colour, another shape, or another surface: striped where the others are
plain, or the other way round.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final

import numpy as np

from vlmlens_plugins.demo.scenes import SHAPES, SURFACES
from vlmlens_plugins.demo.tasks import marks
from vlmlens_plugins.demo.tasks.task import Pictures, Point, Task
from vlmlens_plugins.demo.tasks.things import Thing, background, drawn, quartered, tinged

KEY: Final = 3
PROMPT: Final = "Which square marks the odd object, red, green, blue or yellow?"
DIFFERENCES: Final = ("color", "shape", "surface")
SIZES: Final = (34, 46)

_INK: Final = (46, 40, 44)


def make(index: int, seed: int) -> Task:
    """Make one task."""
    rng = marks.stream(KEY, index, seed)
    label = marks.answer_of(KEY, index, seed, marks.FOUR)
    differs = DIFFERENCES[int(rng.integers(len(DIFFERENCES)))]
    usual = _kind(rng)
    odd = {**usual, differs: _other(rng, differs, usual[differs])}
    sizes = rng.integers(SIZES[0], SIZES[1] + 1, 4).tolist()
    places = quartered(rng, sizes)
    things = [
        _thing(rng, odd if number == 0 else usual, size, place)
        for number, (size, place) in enumerate(zip(sizes, places, strict=True))
    ]
    found = {
        color: Point(0, *thing.at(*rng.uniform(0.42, 0.58, 2)))
        for color, thing in zip(marks.right_first(rng, label), things, strict=True)
    }
    points = {color: found[color] for color in marks.FOUR}
    behind, mirrored = background(rng, 150, 200), bool(rng.integers(2))
    grain = int(rng.integers(2**31))

    def pictures() -> Pictures:
        return marks.mark((drawn(things, behind, grain, mirrored=mirrored),), points)

    return Task(
        kind="odd-one-out",
        index=index,
        seed=seed,
        prompt=PROMPT,
        choices=marks.FOUR,
        label=label,
        points=points,
        areas=marks.squares(points),
        facts={"differs": differs, **usual, "odd": odd[differs]},
        pictures=pictures,
    )


def _kind(rng: np.random.Generator) -> dict[str, str]:
    return {
        "color": _one(rng, marks.UNMARKED),
        "shape": _one(rng, SHAPES),
        "surface": _one(rng, SURFACES),
    }


def _other(rng: np.random.Generator, name: str, usual: str) -> str:
    values = {"color": marks.UNMARKED, "shape": SHAPES, "surface": SURFACES}[name]
    return _one(rng, tuple(value for value in values if value != usual))


def _one(rng: np.random.Generator, values: tuple[str, ...]) -> str:
    return values[int(rng.integers(len(values)))]


def _thing(
    rng: np.random.Generator, kind: dict[str, str], size: int, place: tuple[int, int]
) -> Thing:
    stripes = (_INK, float(rng.uniform(0, math.pi)), float(rng.uniform(0, 2 * math.pi)))
    color, shape = kind["color"], kind["shape"]
    thing = Thing(color, shape, *place, size, tinged(rng, color))
    return replace(thing, stripes=stripes) if kind["surface"] == "striped" else thing
