"""Texture: which of two pictures has the texture of the first?

Each texture is drawn anew: elsewhere, turned, of another scale. All three have the same two
colours, so colours do not tell.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from PIL import Image

from vlmlens_plugins.demo.scenes import RGB
from vlmlens_plugins.demo.tasks import marks
from vlmlens_plugins.demo.tasks.patterns import PATTERNS, fill
from vlmlens_plugins.demo.tasks.task import REFERENCE, Pictures, Task
from vlmlens_plugins.demo.tasks.things import tinged

KEY: Final = 4
PROMPT: Final = "Which frame has the texture of the white frame, red or blue?"

_INKS: Final = ("green", "yellow", "purple", "cyan", "orange", "gray")


def make(index: int, seed: int) -> Task:
    """Make one task."""
    rng = marks.stream(KEY, index, seed)
    label = marks.answer_of(KEY, index, seed, marks.TWO)
    same, other = rng.permutation(list(PATTERNS))[:2].tolist()
    wrong = next(color for color in marks.TWO if color != label)
    kinds = {REFERENCE: same, label: same, wrong: other}
    names = rng.permutation(_INKS)[:2].tolist()
    candidates = rng.permutation(marks.TWO).tolist()
    order = [REFERENCE, *candidates]
    seeds = dict(zip(order, rng.integers(2**31, size=3).tolist(), strict=True))
    inks = {color: (tinged(rng, names[0]), tinged(rng, names[1])) for color in order}

    def pictures() -> Pictures:
        return tuple(_picture(color, kinds[color], seeds[color], inks[color]) for color in order)

    return Task(
        kind="texture",
        index=index,
        seed=seed,
        prompt=PROMPT,
        choices=marks.TWO,
        label=label,
        points={},
        areas={color: (number, marks.framed()) for number, color in enumerate(order)},
        facts={
            "texture": same,
            "other texture": other,
            "colors": " and ".join(names),
            "first": candidates[0],
        },
        pictures=pictures,
    )


def _picture(color: str, kind: str, seed: int, inks: tuple[RGB, RGB]) -> Image.Image:
    canvas = fill(kind, np.random.default_rng(seed), inks)
    marks.frame(canvas, color)
    return canvas
