"""CHAIR with its intervals, and beside texts that were exchanged between images.

A. Rohrbach et al., "Object Hallucination in Image Captioning" (2018, arXiv 1809.02156): CHAIR_i is
the share of mentions that are hallucinated, CHAIR_s the share of texts with at least one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vlmlens.statistics import holm
from vlmlens_plugins.analysis._statistics import bootstrap_weights, exact_ends, generator
from vlmlens_plugins.analysis.captions.said import Caption

Floats = npt.NDArray[np.float64]
RATIOS = {"chair_i": (0, 1), "chair_s": (2, 3), "recall": (4, 5)}
"""What is divided by what of `Caption.counts`."""


@dataclass(frozen=True, slots=True)
class Share:
    """A share with its 95 % interval; NaN where there is nothing to divide by."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Scores:
    """The scores of a task's texts.

    Args:
        task: The task.
        captions: The texts.
        shares: By name, see `RATIOS`.
        totals: `Caption.counts`, summed.
        groups: How many groups of samples there are.
        exchanged: CHAIR_i of texts that are given to other images, the mean over all other groups.
        p: Of so small a CHAIR_i among exchanges; 1 where nothing can be exchanged.
    """

    task: str
    captions: Sequence[Caption]
    shares: dict[str, Share]
    totals: list[int]
    groups: int
    exchanged: float
    p: float


def scores(task: str, captions: Sequence[Caption], *, seed: int, draws: int) -> Scores:
    """The scores of some texts; groups of samples are resampled and exchanged.

    Args:
        task: The task.
        captions: At least one text.
        seed: Of everything random.
        draws: Resamples, and exchanges.
    """
    names = {
        name: i for i, name in enumerate(dict.fromkeys(c.sample.split_group for c in captions))
    }
    group = np.array([names[name] for name in _groups(captions)])
    counts = np.zeros((len(names), len(captions[0].counts)))
    np.add.at(counts, group, np.array([one.counts for one in captions], np.float64))
    weights = bootstrap_weights(len(names), draws, generator(seed, "captions", task))
    drawn, totals = weights @ counts, counts.sum(0)
    shares = {}
    for name, (top, bottom) in RATIOS.items():
        shares[name] = _share(drawn[:, top], drawn[:, bottom], totals[[top, bottom]], len(names))
    exchanged, p = _exchanged(captions, group, len(names), totals, seed, draws)
    return Scores(task, captions, shares, totals.astype(int).tolist(), len(names), exchanged, p)


def corrected(found: Sequence[Scores]) -> list[float]:
    """The p-values of all tasks, corrected by Holm (1979)."""
    corrected_p: list[float] = holm(np.array([one.p for one in found])).tolist()
    return corrected_p


def _groups(captions: Sequence[Caption]) -> list[str]:
    return [one.sample.split_group for one in captions]


def _share(top: Floats, bottom: Floats, totals: Floats, groups: int) -> Share:
    if not totals[1]:
        return Share(np.nan, np.nan, np.nan)
    value = float(totals[0] / totals[1])
    if value in (0.0, 1.0):
        return Share(value, *exact_ends(value, groups))
    kept = bottom > 0
    low, high = np.quantile(top[kept] / bottom[kept], [0.025, 0.975])
    return Share(value, float(low), float(high))


def _exchanged(
    captions: Sequence[Caption], group: npt.NDArray[np.int64], groups: int,
    totals: Floats, seed: int, draws: int,
) -> tuple[float, float]:  # fmt: skip
    """CHAIR_i where each group's texts are about another group's images; and p, by permutations."""
    if groups == 1 or not totals[1]:
        return np.nan, 1.0
    table = captions[0].names
    objects = list(dict.fromkeys(one.object for c in captions for one in c.mentions))
    number = {name: i for i, name in enumerate(objects)}
    said = np.zeros((groups, len(objects)))
    there = np.zeros((groups, len(objects)))
    for g, one in zip(group, captions, strict=True):
        for mention in one.mentions:
            said[g, number[mention.object]] += 1
        there[g] = [table.is_true(name, one.there) for name in objects]
    rng = generator(seed, "captions", "exchange", captions[0].sample.task or "")
    null = np.array([(said * (1 - there[rng.permutation(groups)])).sum() for _ in range(draws)])
    reached = np.count_nonzero(null <= totals[0] + 1e-9)
    beside = said @ (1 - there).T
    foreign = (beside.sum() - np.trace(beside)) / (groups - 1)  # no group keeps its own texts
    return float(foreign / totals[1]), float((1 + reached) / (1 + draws))
