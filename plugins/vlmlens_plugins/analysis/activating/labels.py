"""Whether a coordinate separates labels: areas under the curve, beside shuffled labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from vlmlens.samples import Sample
from vlmlens.statistics import holm
from vlmlens_plugins.analysis._separating import (
    ALPHA,
    Floats,
    Target,
    draws_for,
    separated,
)
from vlmlens_plugins.analysis._statistics import generator
from vlmlens_plugins.analysis.activating.coordinates import Measured


@dataclass(frozen=True, slots=True)
class Separation:
    """How well a coordinate separates one label from the others.

    Args:
        measured: The coordinate.
        target: What is separated.
        label: The label that it separates best; "" if it could not be tested.
        auc: The chance that a unit with the label has a higher value than one without it.
        areas: The area of each label.
        shuffled: The mean, over shuffled labels, of the area of the best label, at least 0.5.
        p: One-sided p-value of the best label among shuffled ones.
        corrected: After Holm's method for all coordinates and targets.
        least: The smallest p-value that so few units can give.
        units: Independent units: a group with one label counts once.
        learnt: Whether it was left out because the direction was learnt from these samples.
    """

    measured: Measured
    target: Target
    label: str = ""
    auc: float = math.nan
    areas: tuple[tuple[str, float], ...] = ()
    shuffled: float = math.nan
    p: float = 1.0
    corrected: float = 1.0
    least: float = 1.0
    units: int = 0
    learnt: bool = False

    @property
    def high(self) -> bool:
        """Whether the label has the high values."""
        return self.auc >= 0.5

    @property
    def area(self) -> float:
        """The area, whichever side is high."""
        return max(self.auc, 1 - self.auc)

    @property
    def significant(self) -> bool:
        """Whether shuffled labels do not explain it."""
        return self.corrected < ALPHA


def separations(
    measured: Sequence[Measured],
    samples: Sequence[Sample],
    targets: Sequence[Target],
    permutations: int,
    seed: int,
) -> list[Separation]:
    """Every coordinate with every target; p-values are corrected for all of them."""
    tests = len(measured) * len(targets)
    draws = draws_for(tests, permutations)
    found = [
        _separation(one, samples, target, draws, seed) for one in measured for target in targets
    ]
    tested = [one for one in found if one.label]
    corrected = holm([one.p for one in tested])
    by_place = dict(zip(map(id, tested), corrected, strict=True))
    return [
        _with(one, float(by_place[id(one)]), len(tested)) if id(one) in by_place else one
        for one in found
    ]


def _separation(
    one: Measured, samples: Sequence[Sample], target: Target, draws: int, seed: int
) -> Separation:
    values, labels, learnt = _units(one, samples, target)
    rng = generator(seed, "activating", one.coordinate.text, target.name)
    found = separated(values, labels, draws, rng)
    if found is None:
        return Separation(one, target, learnt=learnt)
    return Separation(
        one,
        target,
        found.label,
        found.auc,
        found.areas,
        found.shuffled,
        found.p,
        least=found.least,
        units=found.units,
        learnt=learnt,
    )


def _units(
    one: Measured, samples: Sequence[Sample], target: Target
) -> tuple[Floats, list[str], bool]:
    """Values and labels of units, and whether samples were left out as learnt from."""
    along, learnt = one.coordinate.along, False
    found: dict[tuple[str, str], list[float]] = {}
    for sample, value, label in zip(samples, one.values, target.labels, strict=True):
        if label is None or not np.isfinite(value):
            continue
        if along is not None and along.learnt_from(sample):
            learnt = True
            continue
        found.setdefault((sample.split_group, label), []).append(float(value))
    values = np.array([np.mean(each) for each in found.values()])
    return values, [label for _, label in found], learnt


def _with(one: Separation, corrected: float, tests: int) -> Separation:
    return replace(one, corrected=corrected, least=min(1.0, one.least * tests))
