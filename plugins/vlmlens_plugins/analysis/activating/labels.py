"""Whether a coordinate separates labels: areas under the curve, beside shuffled labels."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from vlmlens.samples import Sample
from vlmlens.statistics import holm
from vlmlens_plugins.analysis._statistics import generator, permutation_p
from vlmlens_plugins.analysis._tasks import rows_by_task
from vlmlens_plugins.analysis.activating.coordinates import Measured

Floats = npt.NDArray[np.float64]
_LEAST = 3
_MOST_LABELS = 20
_AT_ONCE = 256
_ALPHA = 0.05
_FIRST, _CLEAR = 999, 50
"""After so many draws, those are enough that show so many areas as large as the label's."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a coordinate may separate.

    Args:
        name: A task whose labels are meant, or an attribute.
        labels: Per sample, the label; None where it has none or is not meant.
    """

    name: str
    labels: tuple[str | None, ...]


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
        return self.corrected < _ALPHA


def targets_of(samples: Sequence[Sample], by: Sequence[str]) -> list[Target]:
    """Labels in each task, and attributes over all samples; those with two values at least."""
    found: list[Target] = []
    for name in by:
        if name == "label":
            tasks = rows_by_task(samples)
            for task, rows in tasks.items():
                own = set(rows)
                labels = [s.label if i in own else None for i, s in enumerate(samples)]
                found.append(Target(task, tuple(labels)))
        else:
            given = [sample.attributes.get(name) for sample in samples]
            labels = [None if value is None else str(value) for value in given]
            taken = name in {each.name for each in found}
            found.append(Target(f"{name} (attribute)" if taken else name, tuple(labels)))
    return [each for each in found if len(_usual(each.labels)) > 1]


def separations(
    measured: Sequence[Measured],
    samples: Sequence[Sample],
    targets: Sequence[Target],
    permutations: int,
    seed: int,
) -> list[Separation]:
    """Every coordinate with every target; p-values are corrected for all of them."""
    tests = len(measured) * len(targets)
    draws = max(permutations, math.ceil(2 * tests / _ALPHA))
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


def areas(values: Floats, labels: Sequence[str], names: Sequence[str]) -> Floats:
    """float64 `[names]`: for each label, the area under the curve of it against all others.

    Ties count half (Mann-Whitney).

    >>> areas(np.array([1.0, 2.0, 3.0, 3.0]), ["a", "a", "b", "b"], ["a", "b"]).tolist()
    [0.0, 1.0]
    """
    ranks = _ranks(values)
    held = np.array([[label == name for label in labels] for name in names], np.float64)
    return _areas(held @ ranks, held.sum(1), len(values))


def _separation(
    one: Measured, samples: Sequence[Sample], target: Target, draws: int, seed: int
) -> Separation:
    values, labels, learnt = _units(one, samples, target)
    names = _usual(labels)
    if len(names) < 2:
        return Separation(one, target, learnt=learnt)
    kept = [i for i, label in enumerate(labels) if label in set(names)]
    values, labels = values[kept], [labels[i] for i in kept]
    found = areas(values, labels, names)
    best = int(np.argmax(np.abs(found - 0.5) + 1e-9 * (found > 0.5)))
    rng = generator(seed, "activating", one.coordinate.text, target.name)
    far = float(np.abs(found - 0.5).max())
    numbered = [names.index(label) for label in labels]
    null = _shuffled(values, numbered, len(names), min(draws, _FIRST), rng)
    if np.count_nonzero(null >= far) < _CLEAR and draws > _FIRST:
        more = _shuffled(values, numbered, len(names), draws - _FIRST, rng)
        null = np.concatenate([null, more])
    return Separation(
        one,
        target,
        names[best],
        float(found[best]),
        tuple(zip(names, found.tolist(), strict=True)),
        float(null.mean()) + 0.5,
        permutation_p(far, null),
        least=_least(Counter(labels), draws),
        units=len(values),
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


def _usual(labels: Sequence[str | None]) -> list[str]:
    """The most frequent labels, none of them rare."""
    counts = Counter(label for label in labels if label is not None)
    return sorted(name for name, times in counts.most_common(_MOST_LABELS) if times >= _LEAST)


def _shuffled(
    values: Floats, labels: Sequence[int], names: int, draws: int, rng: np.random.Generator
) -> Floats:
    """float64 `[draws]`: how far the best area is from one half, under shuffled labels."""
    order = np.argsort(labels, kind="stable")
    counts = np.bincount(np.asarray(labels), minlength=names)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    ranks, found = _ranks(values)[order], []
    for start in range(0, draws, _AT_ONCE):
        rows = min(_AT_ONCE, draws - start)
        moved = rng.permuted(np.tile(ranks, (rows, 1)), axis=1)
        sums = np.add.reduceat(moved, starts, axis=1)
        found.append(np.abs(_areas(sums, counts, len(values)) - 0.5).max(1))
    return np.concatenate(found)


def _areas(sums: Floats, counts: npt.NDArray[np.generic], total: int) -> Floats:
    inside = counts.astype(np.float64)
    area: Floats = (sums - inside * (inside + 1) / 2) / (inside * (total - inside))
    return area


def _ranks(values: Floats) -> Floats:
    """Ranks from 1; equal values share the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: Floats = (ends - (counts - 1) / 2)[place]
    return ranks


def _least(counts: Counter[str], draws: int) -> float:
    """The smallest p-value that the numbers of units allow: all of a label on one side."""
    total = sum(counts.values())
    fewest = max(math.comb(total, times) for times in counts.values())
    return max(2 / fewest, 1 / (1 + draws))


def _with(one: Separation, corrected: float, tests: int) -> Separation:
    return replace(one, corrected=corrected, least=min(1.0, one.least * tests))
