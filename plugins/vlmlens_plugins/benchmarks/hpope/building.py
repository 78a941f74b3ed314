"""The questions about one picture: objects first, then attributes of objects that are there."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vlmlens_plugins.benchmarks.hpope.card import IMAGE, LEVELS
from vlmlens_plugins.benchmarks.hpope.negatives import Negatives
from vlmlens_plugins.benchmarks.hpope.pictures import Picture

OBJECT, ATTRIBUTE = LEVELS


@dataclass(frozen=True, slots=True)
class Question:
    """One question.

    Args:
        text: As the model is asked.
        label: "yes" or "no".
        level: "object" or "attribute".
        object: The object asked for.
        attribute: The attribute asked for; "" of an object question.
        kind: The attribute's type: "color".
    """

    text: str
    label: str
    level: str
    object: str
    attribute: str = ""
    kind: str = ""


def questions(
    picture: Picture, negatives: Negatives, setting: str, *, most: int, seed: int
) -> list[Question]:
    """The questions about a picture in one setting, half of each level yes, in no telling order.

    The objects and attributes that are there are the same in every setting.

    Args:
        picture: The picture.
        negatives: Chooses what is not there.
        setting: One of `SETTINGS`; image-adversarial has no object questions.
        most: At most so many objects that are there, and so many that are not.
        seed: Of all choices.
    """
    there = random.Random(f"hpope/{seed}/{picture.name}")  # noqa: S311
    rng = random.Random(f"hpope/{seed}/{picture.name}/{setting}")  # noqa: S311
    kinds = sorted(picture.kinds)
    chosen = there.sample(kinds, min(most, len(kinds)))
    wanted = [(kind, there.random()) for kind in chosen]
    made = [] if setting == IMAGE else _objects(picture, negatives, setting, chosen, rng)
    for kind, place in wanted:
        made += _attributes(picture, negatives, setting, kind, place, rng)
    rng.shuffle(made)
    return made


def _objects(
    picture: Picture,
    negatives: Negatives,
    setting: str,
    chosen: Sequence[str],
    rng: random.Random,
) -> list[Question]:
    absent = negatives.objects(picture, setting, rng)[: len(chosen)]
    asked = [(kind, "yes") for kind in chosen[: len(absent)]] + [(kind, "no") for kind in absent]
    return [Question(is_there(kind), label, OBJECT, kind) for kind, label in asked]


def _attributes(
    picture: Picture,
    negatives: Negatives,
    setting: str,
    kind: str,
    place: float,
    rng: random.Random,
) -> Iterator[Question]:
    """Two questions about an object: an attribute that it has, and one that it has not.

    None about a kind of which there are several, since it is not clear which one is meant.
    """
    thing = picture.single.get(kind)
    if thing is None or not thing.attributes:
        return
    which, true = thing.attributes[int(place * len(thing.attributes))]
    false = negatives.attribute(picture, thing, which, setting, rng)
    if false is None:
        return
    for value, label in ((true, "yes"), (false, "no")):
        yield Question(has_it(kind, value), label, ATTRIBUTE, kind, value, which)


def is_there(kind: str) -> str:
    """The question for an object.

    >>> is_there("umbrella")
    'Is there an umbrella in the image?'
    """
    return f"Is there {'an' if kind[0] in 'aeiou' else 'a'} {kind} in the image?"


def has_it(kind: str, attribute: str) -> str:
    """The question for an attribute.

    >>> has_it("umbrella", "green")
    'Is the umbrella green in the image?'
    """
    return f"Is the {kind} {attribute} in the image?"
