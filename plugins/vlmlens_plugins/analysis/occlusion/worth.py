"""What the maps are worth: areas under curves, peaks in regions, intervals and tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vlmlens.statistics import holm
from vlmlens_plugins.analysis._maps.curves import Curves, area_under
from vlmlens_plugins.analysis._maps.pointing import Region
from vlmlens_plugins.analysis._statistics import (
    bootstrap_weights,
    generator,
    interval,
    permutation_p,
)
from vlmlens_plugins.analysis._sweeps.effects import sign_flip_p
from vlmlens_plugins.analysis.occlusion.measured import RANDOM, Measured

Floats = npt.NDArray[np.float64]
_DRAWN = 9999


@dataclass(frozen=True, slots=True)
class Faith:
    """How faithful a method is in a task.

    Args:
        deletion: float64 `[samples]`: area under the deletion curve.
        insertion: float64 `[samples]`: under the insertion curve.
        low: Lower end of the 95 % interval of the mean gap; `high` likewise.
        over: The mean gap less that of random orders.
        p: Two-sided, of `over` being 0; corrected by Holm for the tasks. NaN for random orders.
    """

    deletion: Floats
    insertion: Floats
    low: float
    high: float
    over: float
    p: float

    @property
    def gap(self) -> float:
        """The mean of insertion less deletion."""
        return float((self.insertion - self.deletion).mean())


@dataclass(frozen=True, slots=True)
class Peaks:
    """Where the peaks of a method are in a task, of the samples with a region.

    Args:
        hits: float64 `[samples]`: whether the peak is in the region.
        low: Lower end of the 95 % interval of the share of hits; `high` likewise.
        chance: The mean share of the image that the region takes up.
        centre: How often the middle of the image is in the region.
        p: One-sided, of random peaks; corrected by Holm for the tasks.
    """

    hits: Floats
    low: float
    high: float
    chance: float
    centre: float
    p: float

    @property
    def share(self) -> float:
        """The share of hits."""
        return float(self.hits.mean())


@dataclass(frozen=True, slots=True)
class Worth:
    """All of it, by task and method; of methods, those with the largest gap first."""

    faith: Mapping[str, Mapping[str, Faith]]
    peaks: Mapping[str, Mapping[str, Peaks]]


def worth(measured: Measured, seed: int, draws: int) -> Worth:
    """What the maps are worth.

    Args:
        measured: The maps and their curves.
        seed: Of resampling.
        draws: Bootstrap resamples.
    """
    tasks = measured.by_task()
    faith: dict[str, dict[str, Faith]] = {task: {} for task in tasks}
    peaks: dict[str, dict[str, Peaks]] = {}
    for method, own in measured.curves.items():
        for task, one in zip(tasks, _faith(measured, own, tasks, seed, draws), strict=True):
            faith[task][method] = one
    placed = {
        task: [i for i in rows if measured.regions[i] is not None] for task, rows in tasks.items()
    }
    placed = {task: rows for task, rows in placed.items() if rows}
    for method in measured.maps:
        for task, found in _peaks(measured, method, placed, seed, draws).items():
            peaks.setdefault(task, {})[method] = found
    ranked = {
        task: dict(sorted(own.items(), key=lambda pair: -pair[1].gap))
        for task, own in faith.items()
    }
    return Worth(ranked, peaks)


def _faith(
    measured: Measured,
    own: Sequence[Curves],
    tasks: Mapping[str, Sequence[int]],
    seed: int,
    draws: int,
) -> list[Faith]:
    random = np.array([one.gap for one in measured.curves[RANDOM]])
    is_random = own is measured.curves[RANDOM]
    areas = np.array([[area_under(one.deletion), area_under(one.insertion)] for one in own])
    raw, found = [], []
    for rows in tasks.values():
        members = _members(measured, rows)
        gap = areas[rows, 1] - areas[rows, 0]
        low, high = _interval(gap, members, seed, draws)
        over = gap - random[rows]
        raw.append(
            1.0
            if is_random
            else float(sign_flip_p((over @ members)[None], generator(seed, "occlusion-signs"))[0])
        )
        found.append((areas[rows, 0], areas[rows, 1], low, high, float(over.mean())))
    corrected = np.full(len(raw), np.nan) if is_random else holm(raw)
    return [Faith(*one, p=float(p)) for one, p in zip(found, corrected, strict=True)]


def _peaks(
    measured: Measured, method: str, tasks: Mapping[str, Sequence[int]], seed: int, draws: int
) -> dict[str, Peaks]:
    raw, found = [], []
    for rows in tasks.values():
        regions = [_region(measured, i) for i in rows]
        hits = np.array(
            [one.hit(measured.maps[method][i]) for one, i in zip(regions, rows, strict=True)]
        )
        chance, centre = (
            np.array([getattr(one, name) for one in regions]) for name in ("share", "centre")
        )
        members = _members(measured, rows)
        raw.append(_p_of_random_peaks(hits, chance, members, seed))
        low, high = _interval(hits, members, seed, draws)
        found.append((hits, low, high, float(chance.mean()), float(centre.mean())))
    corrected = holm(np.array(raw)) if raw else np.zeros(0)
    return {
        task: Peaks(*one, p=float(p)) for task, one, p in zip(tasks, found, corrected, strict=True)
    }


def _p_of_random_peaks(hits: Floats, chance: Floats, members: Floats, seed: int) -> float:
    """As many hits from random pixels; samples of one group hit together or not at all."""
    sizes = members.sum(0)
    rng = generator(seed, "occlusion-peaks")
    drawn = rng.random((_DRAWN, members.shape[1])) < (chance @ members) / sizes
    return permutation_p(float(((hits @ members) / sizes).sum()), drawn.sum(1).astype(np.float64))


def _interval(values: Floats, members: Floats, seed: int, draws: int) -> tuple[float, float]:
    """The percentile interval of a mean; groups are resampled."""
    weights = bootstrap_weights(members.shape[1], draws, generator(seed, "occlusion"))
    low, high = interval((weights @ (values @ members)) / (weights @ members.sum(0)))
    return float(low), float(high)


def _members(measured: Measured, rows: Sequence[int]) -> Floats:
    """float64 `[samples, groups]`: 1 where a sample is of a group."""
    owners = [measured.aims[i].sample.split_group for i in rows]
    _, place = np.unique(owners, return_inverse=True)
    return np.eye(place.max() + 1)[place]


def _region(measured: Measured, number: int) -> Region:
    found = measured.regions[number]
    assert found is not None  # noqa: S101
    return found
