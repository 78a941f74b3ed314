"""Questions whether an object is there: two sides, and two halves to choose and to report on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from vlmlens.errors import MissingAnnotation
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._statistics import generator
from vlmlens_plugins.analysis._sweeps import Item

OBJECT = "object"
"""The attribute that names the object a question asks for."""

_OTHER = {"yes": "no", "Yes": "No", "YES": "NO"}
_OTHER |= {no: yes for yes, no in _OTHER.items()}
_LEAST = 2


@dataclass(frozen=True, slots=True)
class Halves:
    """Questions in two halves. No group stands in both.

    Args:
        choose: Questions on which the edit is chosen, with ("yes", "no") as in the data.
        report: Questions on which it is reported.
        untouched: Questions of other kinds on the pictures of `report`, with (the right answer,),
            and the object that is removed meanwhile.
        shown: Samples from which directions are learnt, one per picture, of the first half.
        objects: All objects.
    """

    choose: Sequence[Item]
    report: Sequence[Item]
    untouched: Sequence[tuple[Item, str]]
    shown: Sequence[Sample]
    objects: Sequence[str]


def object_of(sample: Sample) -> str:
    """The object that a sample asks for, with a yes or no as its label; "" if it asks for none."""
    value = sample.attributes.get(OBJECT)
    known = str(sample.label).strip() in _OTHER
    return " ".join(value.split()) if known and isinstance(value, str) else ""


def is_there(sample: Sample) -> bool:
    """Whether the object that a sample asks for is there."""
    return str(sample.label).strip().lower() == "yes"


def has(sample: Sample, name: str) -> bool | None:
    """Whether an object is in a sample's picture; None: it is not known."""
    if object_of(sample) == name:
        return is_there(sample)
    listed = sample.attributes.get("objects")
    if not isinstance(listed, str):
        return None
    try:
        found = json.loads(listed)
    except (ValueError, RecursionError):
        return None
    return name in found if isinstance(found, list) else None


def halves(samples: Sequence[Sample], most: int, seed: int) -> Halves:
    """The questions in two halves; groups with an absent object are divided by themselves.

    Args:
        samples: All samples of the run.
        most: The most questions of each side in each half.
        seed: Of the division.

    Raises:
        MissingAnnotation: There are too few such questions on one side.
    """
    asked = [sample for sample in samples if object_of(sample)]
    absent = {sample.split_group for sample in asked if not is_there(sample)}
    others = {sample.split_group for sample in asked} - absent
    rng, first = generator(seed, "removal", "halves"), set()
    for names in (sorted(absent), sorted(others)):
        order = rng.permutation(len(names))
        first |= {names[i] for i in order[: (len(names) + 1) // 2]}
    parts = []
    for in_first in (True, False):
        members = [s for s in asked if (s.split_group in first) == in_first]
        sides = [[s for s in members if is_there(s) == side][:most] for side in (True, False)]
        if min(map(len, sides)) < _LEAST:
            raise MissingAnnotation(
                "Removal needs questions whether an object is there, with the right answers yes "
                f"and no: at least {_LEAST} of each in each half of the groups. One half has "
                f"{len(sides[0])} with yes and {len(sides[1])} with no.",
                subject=OBJECT,
                hint=f"Give such samples an attribute {OBJECT} with the object's name ("
                "demo:scenes and questions:coco have it), or give more samples.",
            )
        parts.append([_item(sample) for side in sides for sample in side])
    objects = sorted({object_of(item.target) for part in parts for item in part})
    by_group = {sample.split_group: sample for sample in samples if sample.split_group in first}
    about = {item.group: object_of(item.target) for item in parts[1]}
    untouched = [
        (Item(s, (str(s.label),), group=s.split_group, task=s.task or ""), about[s.split_group])
        for s in samples
        if s.split_group in about and s.label is not None and not object_of(s)
    ]
    return Halves(parts[0], parts[1], untouched[: 2 * most], list(by_group.values()), objects)


def _item(sample: Sample) -> Item:
    label = str(sample.label)
    plain = label.strip()
    other = next((one for one in sample.choices if one.strip() == _OTHER[plain]), _OTHER[plain])
    answers = (label, other) if is_there(sample) else (other, label)
    return Item(sample, answers, group=sample.split_group, task=sample.task or "")
