"""Which features are shown: the best for each label, strong ones, a dense one, random ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest

import numpy as np
import numpy.typing as npt
from scipy.sparse import csc_array

from vlmlens.errors import SpecError
from vlmlens_plugins.analysis._separating import sparse_areas
from vlmlens_plugins.analysis._statistics import generator
from vlmlens_plugins.analysis.sae.pages.units import Units
from vlmlens_plugins.analysis.sae.peaks import Peaks

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
_AT_ONCE = 4096
_STRONG, _DENSE, _RANDOM = 12, 24, 12
"""Parts of the pages that are not for labels: a twelfth for strong features, and so on."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """A feature that is shown.

    Args:
        number: Its number.
        why: Why it is shown.
    """

    number: int
    why: str


def asked_for(numbers: Sequence[int], features: int) -> list[Chosen]:
    """Features that the user names.

    Raises:
        SpecError: There is no such feature.
    """
    for number in numbers:
        if not 0 <= number < features:
            raise SpecError(
                f"There is no feature {number}: the SAE has {features}.",
                subject=number,
                hint=f"They are numbered 0 to {features - 1}.",
            )
    return [Chosen(number, "asked for") for number in dict.fromkeys(numbers)]


def chosen(learn: Peaks, units: Sequence[Units], most: int, seed: int) -> list[Chosen]:
    """Features by what they do in the samples that are learnt from, never by how they look.

    Args:
        learn: What the features do in samples that nothing is tested on.
        units: Those samples with their labels.
        most: How many features.
        seed: Of the random ones.
    """
    alive = learn.fired > 0
    if not most or not alive.any():
        return []
    found: dict[int, str] = {}
    for number, why in _best(learn, units, alive)[: 4 * most]:
        if number in found:
            found[number] += f"; {why}"
        elif len(found) < most - sum(most // share for share in (_STRONG, _DENSE, _RANDOM)):
            found[number] = why
    strong = np.where(alive, learn.total, -np.inf)
    for order, share, why in (
        (np.argsort(-strong, kind="stable"), _STRONG, "strongest: the largest sum of codes"),
        (np.argsort(-learn.fired, kind="stable"), _DENSE, "densest: fires in the most rows"),
    ):
        left = [int(i) for i in order if alive[i] and int(i) not in found]
        found |= dict.fromkeys(left[: most // share], why)
    left = [int(i) for i in np.flatnonzero(alive) if int(i) not in found]
    drawn = generator(seed, "sae", "pages").permutation(left)[: most - len(found)]
    found |= dict.fromkeys(map(int, drawn), "drawn at random from the features that fire")
    return [Chosen(number, why) for number, why in found.items()]


def _best(learn: Peaks, units: Sequence[Units], alive: Bools) -> list[tuple[int, str]]:
    """The best feature for each label, target by target in turns, the best labels first."""
    by_target = []
    largest = learn.largest.tocsc()
    for one in units:
        area, number = _areas(one, largest, alive)
        order = sorted(range(len(one.names)), key=lambda i: -area[i])
        why = f"best for {one.target.name}: %s in the learning samples (AUC %.2f)"
        by_target.append([(int(number[i]), why % (one.names[i], area[i])) for i in order])
    turns = chain.from_iterable(zip_longest(*by_target))
    return [each for each in turns if each is not None]


def _areas(one: Units, largest: csc_array, alive: Bools) -> tuple[Floats, Ints]:
    """`[labels]`: the largest area that a feature has for each label, and which feature it is."""
    area, number = np.full(len(one.names), -1.0), np.zeros(len(one.names), np.int64)
    for start in range(0, largest.shape[1], _AT_ONCE):
        part = one.values(largest[:, start : start + _AT_ONCE].tocsr())
        areas = sparse_areas(part, one.labels, one.names)
        areas[:, ~alive[start : start + _AT_ONCE]] = -1.0
        better = areas.max(1) > area
        area = np.where(better, areas.max(1), area)
        number = np.where(better, areas.argmax(1) + start, number)
    return area, number
