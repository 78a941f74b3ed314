"""Minimal pairs of scenes: one attribute of the main object is another, and nothing else.

The changed scene is a pure function of the scene and the attribute. Everything is drawn again
from the same numbers, so that the two pictures differ only inside the main object's box.

Example:
    >>> clean, corrupted = next(scene_pairs("color"))
    >>> clean.main.color, corrupted.main.color, clean.objects[1:] == corrupted.objects[1:]
    ('red', 'cyan', True)
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import count
from typing import Final, Literal, TypeAlias

from vlmlens_plugins.demo.questions import CHOICES, PROMPTS, Question
from vlmlens_plugins.demo.scenes import (
    COLORS,
    MIN_VISIBLE,
    RGB,
    Scene,
    SceneObject,
    make_scene,
    visible_fractions,
)

PAIRS_VERSION: Final = 1
"""Raised whenever the same scene would be changed in another way."""

Swap: TypeAlias = Literal["color", "shape", "surface"]


def scene_pairs(attribute: Swap, *, seed: int = 0) -> Iterator[tuple[Scene, Scene]]:
    """Held-out scenes in order, each with its changed scene; endless.

    Scenes that cannot be changed (see `swapped`) are passed over.
    """
    for index in count():
        scene = make_scene(index, split="heldout", seed=seed)
        changed = swapped(scene, attribute)
        if changed is not None:
            yield scene, changed


def swapped(scene: Scene, attribute: Swap) -> Scene | None:
    """The scene in which the main object has another colour, shape or surface.

    Returns:
        None where every other shape would hide too much of an object.
    """
    rng = random.Random(f"swap/{attribute}/{scene.seed}/{scene.split}/{scene.index}")  # noqa: S311
    now = getattr(scene.main, attribute)
    others = [value for value in CHOICES[attribute] if value != now]
    for value in rng.sample(others, len(others)):
        objects = (_with(scene.main, attribute, value), *scene.objects[1:])
        if min(visible_fractions(objects, mirrored=scene.mirrored)) >= MIN_VISIBLE:
            return replace(scene, objects=objects)
    return None


def swap_question(scene: Scene, attribute: Swap) -> Question:
    """The question about the attribute that a pair changes, with the scene's own answer."""
    label = getattr(scene.main, attribute)
    return Question(attribute, PROMPTS[attribute], CHOICES[attribute], label)


def regions(scene: Scene) -> Mapping[str, tuple[int, int, int, int]]:
    """The box of each object in pixels, (left, top, right, bottom): "main", "object 2", ..."""
    names = ["main", *(f"object {n}" for n in range(2, scene.number + 1))]
    boxes = [(item.x, item.y, item.x + item.size, item.bottom) for item in scene.objects]
    return dict(zip(names, boxes, strict=True))


def _with(item: SceneObject, attribute: Swap, value: str) -> SceneObject:
    if attribute == "color":
        return replace(item, color=value, rgb=_recolored(item, value))
    return replace(item, shape=value) if attribute == "shape" else replace(item, surface=value)


def _recolored(item: SceneObject, color: str) -> RGB:
    """Another colour as drawn, as far from its nominal one as the object's own is."""
    parts = zip(COLORS[color], item.rgb, COLORS[item.color], strict=True)
    red, green, blue = (min(max(new + drawn - old, 0), 255) for new, drawn, old in parts)
    return red, green, blue
