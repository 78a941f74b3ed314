"""Presence questions about demo scenes in POPE's design, worded as the demo model was taught.

Y. Li et al. (2023, arXiv 2305.10355): each picture is asked for three kinds of objects that are
there and for three that are not; in three splits, which differ in the latter only.

Example:
    >>> scenes = pictured(3)
    >>> polled = polls(scenes)
    >>> len(polled), {len(questions) for _, _, questions in polled}
    (9, {6})
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from itertools import count, islice
from typing import Final, TypeAlias

from vlmlens_plugins.demo.questions import Question, kinds, presence_of
from vlmlens_plugins.demo.scenes import Scene, make_scene

SPLITS: Final = ("random", "popular", "adversarial")
EACH: Final = 3
"""So many objects that are there, and as many that are not, per picture and split."""
Kind: TypeAlias = tuple[str, str]


def pictured(number: int, *, seed: int = 0) -> list[Scene]:
    """The first held-out scenes with at least three kinds of objects."""
    scenes = (make_scene(index, split="heldout", seed=seed) for index in count())
    return list(islice((scene for scene in scenes if len(_here(scene)) >= EACH), number))


def polls(scenes: Sequence[Scene]) -> list[tuple[str, Scene, tuple[Question, ...]]]:
    """Split, scene and its questions; the positives of a scene are the same in all splits.

    What is asked for in vain: any kind (random); the kinds that most of the scenes have (popular);
    kinds whose colour and shape both are in the picture, at different objects, then those of which
    one is (adversarial). POPE takes kinds that often occur together; here none do.
    """
    often = Counter(kind for scene in scenes for kind in _here(scene))
    made = []
    for split in SPLITS:
        for scene in scenes:
            there = _random(scene, "there").sample(_here(scene), EACH)
            rng = _random(scene, split)
            absent = _absent(scene, split, often, rng)[:EACH]
            asked = [(kind, "yes") for kind in there] + [(kind, "no") for kind in absent]
            rng.shuffle(asked)
            made.append((split, scene, tuple(presence_of(*kind, label) for kind, label in asked)))
    return made


def _absent(scene: Scene, split: str, often: Counter[Kind], rng: random.Random) -> list[Kind]:
    """Kinds that are not in the scene, the most misleading first."""
    absent = [kind for kind in kinds() if not scene.contains(*kind)]
    rng.shuffle(absent)
    if split == "popular":
        return sorted(absent, key=lambda kind: -often[kind])
    if split == "adversarial":
        colors, shapes = ({kind[i] for kind in _here(scene)} for i in (0, 1))
        return sorted(absent, key=lambda kind: -((kind[0] in colors) + (kind[1] in shapes)))
    return absent


def _here(scene: Scene) -> list[Kind]:
    return sorted({(item.color, item.shape) for item in scene.objects})


def _random(scene: Scene, purpose: str) -> random.Random:
    return random.Random(f"pope/{purpose}/{scene.seed}/{scene.split}/{scene.index}")  # noqa: S311
