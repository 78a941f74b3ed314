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
_MOST_PER_LABEL, _NEARLY, _SETS = 5, 0.05, 2


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
    norms: npt.NDArray[np.float64],
    samples: Sequence[Sample],
    alike: Mapping[int, Sequence[int]],
    by: Sequence[str],
    most: int,
    features: Sequence[int] | None = None,
) -> list[Aim]:
    """Features by what they do in the samples that are learnt from.

    A label's feature is, of those that separate it about best (area under the curve at least 0.7,
    and at most 0.05 below the best), the one that writes most. Labels come task by task in turns,
    those first that are separated best. Then come sets: for each of the two tasks or attributes
    whose labels are separated best, the 5 best features for each label, without those that
    separate something else better.

    Args:
        learn: What features do in samples on which nothing is measured.
        norms: `[features]`: the lengths of their directions.
        samples: All samples of the run.
        alike: See `Split.alike`.
        by: Labels or attributes, see `targets_of`.
        most: How many single features.
        features: Features to take instead, the first ones; then there is no set.
    """
    units = units_of(learn, samples, alike, targets_of(samples, by))
    areas = {one.target.name: _areas(learn, one) for one in units}
    if features is not None:
        return [_known(int(number), units, areas) for number in dict.fromkeys(features)][:most]
    if not most or not areas:
        return []
    turns = chain.from_iterable(
        zip_longest(*(_best(one, areas[one.target.name], learn.total * norms) for one in units))
    )
    singles: dict[int, Aim] = {}
    for aim in filter(None, turns):
        singles.setdefault(aim.features[0], aim)
    found = list(singles.values())[:most]
    return [*found, *_together(areas)] if found else []


def _areas(learn: Peaks, units: Units) -> npt.NDArray[np.float64]:
    """float64 `[labels, features]`; 0 for features that never fire."""
    found = sparse_areas(units.values(learn.largest), units.labels, units.names)
    found[:, learn.fired == 0] = 0.0
    return found


def _best(
    units: Units, areas: npt.NDArray[np.float64], written: npt.NDArray[np.float64]
) -> list[Aim]:
    found = []
    for i in np.argsort(-areas.max(1), kind="stable"):
        near = areas[i] >= max(LEAST_AREA, float(areas[i].max()) - _NEARLY)
        if near.any():
            number = int(np.where(near, written, -1.0).argmax())
            found.append(Aim((number,), units.target.name, units.names[i]))
    return found


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
    """The features of each of the targets whose labels are separated best.

    Features that separate a label of another target better are not among them.
    """
    most = np.max([own.max(0) for own in areas.values()], axis=0)
    best = sorted(areas, key=lambda name: -float(areas[name].max(1).mean()))
    found = []
    for target in best:
        fitting = areas[target].max(0) == most
        chosen: dict[int, None] = {}
        for own in np.where(fitting, areas[target], 0.0):
            order = np.argsort(-own, kind="stable")[:_MOST_PER_LABEL]
            chosen |= {int(i): None for i in order if own[i] >= LEAST_AREA}
        if len(chosen) > 1:
            found.append(Aim(tuple(sorted(chosen)), target))
    return found[:_SETS]
