"""Given captions of scenes, with hallucinated objects planted at a known rate.

The demo model writes single words, so its captions could not be scored. These name every object of
a scene once, and in some scenes also objects that are not there.

Example:
    >>> from vlmlens_plugins.demo.scenes import make_scene
    >>> found = captions([make_scene(0), make_scene(1)], rate=0.2, seed=0)
    >>> found[0].text, found[0].hallucinated
    ('The picture shows a green cube, a red cube and a gray cube.', ('gray cube',))
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from vlmlens_plugins.demo.scenes import COLORS, SHAPES, Scene

PROMPT: Final = "Please describe this image in detail."
"""The question of CHAIR."""
_OPENINGS: Final = ("There is {}.", "The picture shows {}.", "One can see {} here.")


@dataclass(frozen=True)
class Caption:
    """A text about a scene.

    Attributes:
        text: It names the scene's objects and the hallucinated ones, in a random order.
        hallucinated: The objects that it names and that are not there, such as ``red cube``.
        mentions: How many objects it names.
    """

    text: str
    hallucinated: tuple[str, ...]
    mentions: int


def captions(scenes: Sequence[Scene], *, rate: float, seed: int) -> list[Caption]:
    """A caption of each scene; together they hallucinate at a rate, to the nearest mention.

    Args:
        scenes: The scenes.
        rate: Hallucinated mentions / all mentions, from 0 to 0.5.
        seed: Of which scenes have them, and which objects they are.
    """
    true = sum(scene.number for scene in scenes)
    planted = round(rate * true / (1 - rate))
    order = list(range(len(scenes)))
    random.Random(f"captions/{seed}").shuffle(order)  # noqa: S311
    each, rest = divmod(planted, len(scenes))
    extra = frozenset(order[:rest])
    return [_caption(scene, each + (i in extra), seed) for i, scene in enumerate(scenes)]


def _caption(scene: Scene, wrong: int, seed: int) -> Caption:
    rng = random.Random(f"caption/{seed}/{scene.seed}/{scene.split}/{scene.index}")  # noqa: S311
    there = [f"{item.color} {item.shape}" for item in scene.objects]
    absent = [f"{color} {shape}" for color in COLORS for shape in SHAPES]
    made_up = tuple(rng.sample([name for name in absent if name not in there], wrong))
    named = [*there, *made_up]
    rng.shuffle(named)
    return Caption(rng.choice(_OPENINGS).format(_listed(named)), made_up, len(named))


def _listed(names: Sequence[str]) -> str:
    *most, last = [f"{'an' if name[0] in 'aeiou' else 'a'} {name}" for name in names]
    return f"{', '.join(most)} and {last}" if most else last
