"""Correspondence: a point in the first picture is marked; which of four in the second is the same?

Both pictures show the same four objects: two colours, each in two shapes. In the second they are
elsewhere, of other sizes, in another light. So neither colour, shape nor place alone tells the
answer.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from PIL import Image

from vlmlens_plugins.demo.scenes import SHAPES
from vlmlens_plugins.demo.tasks import marks
from vlmlens_plugins.demo.tasks.task import REFERENCE, Pictures, Point, Task
from vlmlens_plugins.demo.tasks.things import Thing, background, drawn, quartered, tinged

KEY: Final = 2
PROMPT: Final = "Which square marks the same object as the white one, red, green, blue or yellow?"
SIZES: Final = (34, 46)
GAINS: Final = (0.75, 1.2)

Kind = tuple[str, str]


def make(index: int, seed: int) -> Task:
    """Make one task."""
    rng = marks.stream(KEY, index, seed)
    label = marks.answer_of(KEY, index, seed, marks.FOUR)
    kinds = _kinds(rng)
    spot = (float(rng.uniform(0.35, 0.65)), float(rng.uniform(0.35, 0.65)))
    views = [_View(rng, kinds) for _ in range(2)]
    colors = marks.right_first(rng, label)
    points = {REFERENCE: views[0].point(0, 0, spot)}
    found = {color: views[1].point(number, 1, spot) for number, color in enumerate(colors)}
    points |= {color: found[color] for color in marks.FOUR}
    facts = {"color": kinds[0][0], "shape": kinds[0][1]}
    facts |= {
        f"object of {color}": " ".join(kind) for color, kind in zip(colors, kinds, strict=True)
    }

    def pictures() -> Pictures:
        return marks.mark(tuple(view.drawn() for view in views), points)

    return Task(
        kind="correspondence",
        index=index,
        seed=seed,
        prompt=PROMPT,
        choices=marks.FOUR,
        label=label,
        points=points,
        areas=marks.squares(points),
        facts=facts,
        pictures=pictures,
    )


def _kinds(rng: np.random.Generator) -> list[Kind]:
    """The four objects by colour and shape; the first is marked."""
    colors = rng.permutation(marks.UNMARKED)[:2].tolist()
    shapes = rng.permutation(SHAPES)[:2].tolist()
    return [(color, shape) for color in colors for shape in shapes]


class _View:
    """One of the two pictures."""

    def __init__(self, rng: np.random.Generator, kinds: list[Kind]) -> None:
        sizes = rng.integers(SIZES[0], SIZES[1] + 1, len(kinds)).tolist()
        self.behind = background(rng, 150, 200)
        self.mirrored = bool(rng.integers(2))
        self.gain = float(rng.uniform(*GAINS))
        self.grain = int(rng.integers(2**31))
        self.things = [
            Thing(color, shape, x, y, size, tinged(rng, color))
            for (color, shape), size, (x, y) in zip(
                kinds, sizes, quartered(rng, sizes), strict=True
            )
        ]

    def point(self, number: int, image: int, spot: tuple[float, float]) -> Point:
        """The same place of an object, whichever way it is turned."""
        across, down = spot
        return Point(image, *self.things[number].at(1 - across if self.mirrored else across, down))

    def drawn(self) -> Image.Image:
        """The picture without marks."""
        return drawn(self.things, self.behind, self.grain, mirrored=self.mirrored, gain=self.gain)
