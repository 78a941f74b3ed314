"""Scenes in front of a background that leans to a colour: the main object's own, or any.

Where the background has the main object's colour, a model can answer the colour question without
looking at the object. Where the two are independent, the answers tell which of them it reads.

Example:
    >>> from vlmlens_plugins.demo.scenes import make_scene
    >>> scene = make_scene(0)
    >>> [tinted(scene, tint).background.tint for tint in ("answer", "independent")]
    ['red', 'purple']
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Final, Literal, TypeAlias

from vlmlens_plugins.demo.scenes import COLORS, Scene

TINTS_VERSION: Final = 1
"""Raised whenever the same scene would get another background."""

Tint: TypeAlias = Literal["independent", "answer"]


def tinted(scene: Scene, tint: Tint) -> Scene:
    """The scene with a tinted background, and nothing else changed.

    Args:
        scene: A scene.
        tint: "answer" takes the main object's colour. "independent" draws one of `COLORS`, each
            with the same probability, from a random stream of its own.
    """
    color = scene.main.color if tint == "answer" else _drawn(scene)
    return replace(scene, background=replace(scene.background, tint=color))


def _drawn(scene: Scene) -> str:
    rng = random.Random(f"tint/{scene.seed}/{scene.split}/{scene.index}")  # noqa: S311
    return rng.choice(tuple(COLORS))
