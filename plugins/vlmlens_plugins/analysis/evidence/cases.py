"""The samples that are asked about: their answers, key regions, and whose image is exchanged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from vlmlens.samples import Sample
from vlmlens_plugins.analysis._altered import Area, Canvas
from vlmlens_plugins.analysis._key_regions import Names
from vlmlens_plugins.analysis._statistics import generator
from vlmlens_plugins.analysis._tasks import ALL
from vlmlens_plugins.analysis.evidence.places import Places, places

Drawn = TypeVar("Drawn")


@dataclass(frozen=True, slots=True)
class Known:
    """A sample with the answer that is followed.

    Args:
        sample: The sample.
        label: Its right answer, or what the model answers.
        key: The names of its key regions; none where it has none.
    """

    sample: Sample
    label: str
    key: Names

    @property
    def task(self) -> str:
        """The task's name."""
        return self.sample.task or ALL

    @property
    def about(self) -> tuple[str, str, int]:
        """Task, prompt and number of images: equal ones ask the same question."""
        return self.task, self.sample.prompt, len(self.sample.images)


@dataclass(frozen=True, slots=True)
class Case:
    """A sample that is asked about under all conditions.

    Args:
        known: The sample.
        answers: Its choices; without any, its label and that of `different`.
        same: A sample with the same question and the same answer, whose image it is shown.
        different: One with the same question and another answer.
        background: The one from which its background is taken; `different` where there is one,
            else one of the task, with another answer if there are such.
        wrong: The number of the answer that wrong hints name: that of `different`, else another
            choice; None where there is none.
        places: Where regions of equal area are, see `regions.places`.
    """

    known: Known
    answers: tuple[str, ...]
    same: Known | None
    different: Known | None
    background: Known | None
    wrong: int | None
    places: Places

    @property
    def label(self) -> int:
        """The number of the right answer."""
        return self.answers.index(self.known.label)

    @property
    def other(self) -> int | None:
        """The number of the answer to the exchanged image; None where it is not known."""
        return None if self.different is None else self.answers.index(self.different.label)


def cases_of(
    chosen: Sequence[Known], pool: Sequence[Known], *, count: int, seed: int
) -> list[Case]:
    """The cases of some samples.

    Images are exchanged with other chosen samples, where there are any that suit: these are asked
    about anyway.

    Args:
        chosen: The samples.
        pool: All samples whose images may be exchanged with theirs.
        count: How many random regions.
        seed: Of all draws.
    """
    near, far = _Donors(chosen), _Donors(pool)
    return [_case(known, near, far, count, generator(seed, "evidence", known.sample.id))
            for known in chosen]  # fmt: skip


class _Donors:
    """Samples whose images others are shown, by question and by task."""

    def __init__(self, pool: Sequence[Known]) -> None:
        self._asking: dict[tuple[str, str, int], list[Known]] = {}
        self._of_task: dict[tuple[str | int, ...], list[Known]] = {}
        for known in pool:
            self._asking.setdefault(known.about, []).append(known)
            self._of_task.setdefault(known.about[::2], []).append(known)

    def same(self, known: Known) -> list[Known]:
        """Those with the same question and answer."""
        return [one for one in self._alike(known) if one.label == known.label]

    def different(self, known: Known) -> list[Known]:
        """Those with the same question and another answer, one of its choices."""
        choices = known.sample.choices
        others = [one for one in self._alike(known) if one.label != known.label]
        return [one for one in others if one.label in choices] if choices else others

    def any(self, known: Known) -> list[Known]:
        """Those of the same task."""
        return _elsewhere(known, self._of_task.get(known.about[::2], ()))

    def unlike(self, known: Known) -> list[Known]:
        """Those of the same task with another answer."""
        return [one for one in self.any(known) if one.label != known.label]

    def _alike(self, known: Known) -> list[Known]:
        return _elsewhere(known, self._asking.get(known.about, ()))


def _elsewhere(known: Known, those: Sequence[Known]) -> list[Known]:
    group = known.sample.split_group
    return [one for one in those if one.sample.split_group != group]


def bounds(known: Known) -> Area:
    """The boxes around a sample's key regions, which hold for its images without its names."""
    found = []
    for name in known.key:
        for image, inside in enumerate(Canvas(known.sample).inside(Area(regions=(name,)))):
            if inside.any():
                rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
                left, top, right, bottom = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
                found.append((image, float(left), float(top), float(right), float(bottom)))
    return Area(boxes=tuple(found))


def _case(known: Known, near: _Donors, far: _Donors, count: int, rng: np.random.Generator) -> Case:
    same = _drawn(near.same(known) or far.same(known), rng)
    different = _drawn(near.different(known) or far.different(known), rng)
    unlike = near.unlike(known) or far.unlike(known)
    background = different or _drawn(unlike or near.any(known) or far.any(known), rng)
    moved = Places()
    if known.key:
        moved = places(Canvas(known.sample).inside(Area(regions=known.key)), count, rng)
    pair = (known.label,) if different is None else (known.label, different.label)
    answers = known.sample.choices or pair
    wrong = [i for i, answer in enumerate(answers) if answer != known.label]
    named = answers.index(different.label) if different else _drawn(wrong, rng)
    return Case(known, answers, same, different, background, named, moved)


def _drawn(those: Sequence[Drawn], rng: np.random.Generator) -> Drawn | None:
    at = rng.random()  # drawn in any case, so that later draws do not depend on this one
    return those[math.floor(at * len(those))] if those else None
