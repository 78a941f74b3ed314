"""Which features are tried out: the best for labels, alone, and all for a task together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest

import numpy as np
import numpy.typing as npt

from vlmlens._display import count
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._separating import sparse_areas, targets_of
from vlmlens_plugins.analysis.sae.pages.units import Units, units_of
from vlmlens_plugins.analysis.sae.peaks import Peaks

LEAST_AREA = 0.7
_MOST_PER_LABEL = 5


@dataclass(frozen=True, slots=True)
class Aim:
    """Features that are changed together, and what they may stand for.

    Args:
        features: Their numbers.
        target: The task, or the attribute, whose label they separate; "": not known.
        label: The label; "" for features of several labels.
    """

    features: tuple[int, ...]
    target: str = ""
    label: str = ""

    @property
    def name(self) -> str:
        """In words: `feature 12`, or `14 features for color`."""
        if len(self.features) == 1:
            return f"feature {self.features[0]}"
        about = f" for {self.target}" if self.target else ""
        return f"{count(len(self.features), 'feature')}{about}"

    @property
    def about(self) -> str:
        """What they may stand for: `color: red`."""
        return ": ".join(filter(None, (self.target, self.label)))


def aims(
    learn: Peaks,
    samples: Sequence[Sample],
    alike: Mapping[int, Sequence[int]],
    by: Sequence[str],
    most: int,
    features: Sequence[int] | None = None,
) -> list[Aim]:
    """Features by what they do in the samples that are learnt from.

    The best features for labels come task by task in turns, those first that separate their label
    best. The last aim is a set: of the target whose labels are separated best, the 5 best features
    for each label (those with an area under the curve of at least 0.7).

    Args:
        learn: What features do in samples on which nothing is measured.
        samples: All samples of the run.
        alike: See `Split.alike`.
        by: Labels or attributes, see `targets_of`.
        most: How many single features.
        features: Features to take instead.
    """
    units = units_of(learn, samples, alike, targets_of(samples, by))
    areas = {one.target.name: _areas(learn, one) for one in units}
    if features is not None:
        return [_known(int(number), units, areas) for number in dict.fromkeys(features)]
    if not most or not areas:
        return []
    turns = chain.from_iterable(zip_longest(*(_best(one, areas[one.target.name]) for one in units)))
    singles: dict[int, Aim] = {}
    for aim in filter(None, turns):
        singles.setdefault(aim.features[0], aim)
    found = list(singles.values())[:most]
    return [*found, *_together(areas)] if found else []


def _areas(learn: Peaks, units: Units) -> npt.NDArray[np.float64]:
    """float64 `[labels, features]`; 0 for features that never fire."""
    found = sparse_areas(units.values(learn), units.labels, units.names)
    found[:, learn.fired == 0] = 0.0
    return found


def _best(units: Units, areas: npt.NDArray[np.float64]) -> list[Aim]:
    order = np.argsort(-areas.max(1), kind="stable")
    return [
        Aim((int(areas[i].argmax()),), units.target.name, units.names[i])
        for i in order
        if areas[i].max() >= LEAST_AREA
    ]


def _known(
    number: int, units: Sequence[Units], areas: Mapping[str, npt.NDArray[np.float64]]
) -> Aim:
    """A feature with the label that it separates best."""
    pairs = [
        (float(areas[one.target.name][i, number]), one.target.name, label)
        for one in units
        for i, label in enumerate(one.names)
    ]
    area, target, label = max(pairs, default=(0.0, "", ""))
    return Aim((number,), target, label) if area >= LEAST_AREA else Aim((number,))


def _together(areas: Mapping[str, npt.NDArray[np.float64]]) -> list[Aim]:
    """All features of the target whose labels are separated best."""
    target = max(areas, key=lambda name: float(areas[name].max(1).mean()))
    found: dict[int, None] = {}
    for own in areas[target]:
        best = np.argsort(-own, kind="stable")[:_MOST_PER_LABEL]
        found |= {int(i): None for i in best if own[i] >= LEAST_AREA}
    return [Aim(tuple(sorted(found)), target)] if len(found) > 1 else []
