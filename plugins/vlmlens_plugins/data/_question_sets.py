"""Questions about CLEVR and COCO pictures, worded once, with right answers where these are known.

CLEVR: J. Johnson et al. (2017, arXiv 1612.06890), whose scene files list every object. COCO:
T.-Y. Lin et al. (2014, arXiv 1405.0312), whose instance files list what is outlined.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Question:
    """One question about one picture.

    Args:
        task: What it asks for; one question per task and picture, two of `presence`.
        prompt: As the model is asked.
        label: The right answer; None where it is not known.
        choices: The possible answers, where they are few.
        key: Tells apart questions of one task about one picture.
        object: The kind of object that it asks for, of `presence`.
    """

    task: str
    prompt: str
    label: str | None = None
    choices: tuple[str, ...] = ()
    key: str = ""
    object: str = ""


CLEVR_VALUES: Mapping[str, tuple[str, ...]] = {
    "color": ("gray", "red", "blue", "green", "brown", "purple", "cyan", "yellow"),
    "shape": ("cube", "sphere", "cylinder"),
    "material": ("rubber", "metal"),
    "number": tuple(str(n) for n in range(1, 11)),
}
_ORDER = ("size", "color", "material", "shape")
_PRESENCE = ("yes", "no")


def clevr(scene: Mapping[str, Any] | None, name: str) -> Iterator[Question]:
    """Color, shape and material of an object, and the number of objects.

    An object is asked for by its other attributes where they tell it from all others; a scene in
    which that holds for none has no such question.

    Args:
        scene: Its entry in the scene file; None where there is none: then the object that looks
            largest is asked for, without an answer.
        name: Of the picture: decides which object is asked for.
    """
    for task in ("color", "shape", "material"):
        if scene is None:
            yield Question(task, _worded(task, "largest object"), None, CLEVR_VALUES[task])
            continue
        found = _unique(scene["objects"], task)
        if found:
            chosen = random.Random(f"{task}/{name}").choice(found)  # noqa: S311
            described = " ".join(str(chosen[key]) for key in _ORDER if key != task)
            described += " object" if task == "shape" else ""
            yield Question(task, _worded(task, described), str(chosen[task]), CLEVR_VALUES[task])
    count = None if scene is None else str(len(scene["objects"]))
    prompt = "Number of objects in the picture:"
    yield Question("number", prompt, count, CLEVR_VALUES["number"])


@dataclass(frozen=True, slots=True)
class Outlined:
    """What is outlined in a picture of COCO.

    Args:
        counts: How many of each kind; kinds of which there is a crowd too are left out.
        crowds: Those kinds.
        largest: The kind of the largest single one.
    """

    counts: Mapping[str, int]
    crowds: frozenset[str]
    largest: str | None

    @property
    def kinds(self) -> list[str]:
        """All kinds of objects that are there."""
        return sorted({*self.counts, *self.crowds})


def coco(seen: Outlined | None, known: Sequence[str], name: str) -> Iterator[Question]:
    """The largest object, whether a kind of object is there, and how many there are.

    Args:
        seen: What is outlined; None where nothing is known of the picture: then no answers.
        known: All kinds.
        name: Of the picture: decides which kinds are asked for.
    """
    prompt = "Name of the largest object in the picture:"
    if seen is None:
        yield Question("object", prompt)
        yield Question("presence", _is_there("person"), None, _PRESENCE)
        yield Question("number", _how_many("person"))
        return
    if seen.largest is not None:
        yield Question("object", prompt, seen.largest)
    rng = random.Random(f"coco/{name}")  # noqa: S311
    here = seen.kinds
    for label, among in (("yes", here), ("no", sorted({*known} - {*here}))):
        if among:
            kind = rng.choice(among)
            yield Question("presence", _is_there(kind), label, _PRESENCE, label, kind)
    if seen.counts:
        kind = rng.choice(sorted(seen.counts))
        yield Question("number", _how_many(kind), str(seen.counts[kind]))


def _unique(objects: Sequence[Mapping[str, Any]], task: str) -> list[Mapping[str, Any]]:
    """Objects that no other equals in everything but one attribute."""

    def rest(each: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(str(each[key]) for key in _ORDER if key != task)

    count = Counter(rest(each) for each in objects)
    return [each for each in objects if count[rest(each)] == 1]


def _worded(task: str, described: str) -> str:
    return f"{task.capitalize()} of the {described}:"


def _is_there(kind: str) -> str:
    article = "an" if kind[0] in "aeiou" else "a"
    return f"Is there {article} {kind} in the picture? Answer yes or no:"


def _how_many(kind: str) -> str:
    return f"How many of this kind are in the picture: {kind}? Answer with a number:"
