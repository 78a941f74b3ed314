"""How well a score tells bad samples from good ones: AUROC, average precision, risk-coverage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vlmlens_plugins.analysis._statistics import bootstrap_weights, interval

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Compared:
    """Which samples are compared: each bad one with the good ones of its stratum.

    Args:
        bad: bool `[n]`.
        strata: int `[n]`: only samples of one stratum are compared.
    """

    bad: Bools
    strata: npt.NDArray[np.int64]

    @classmethod
    def of(cls, bad: Bools, strata: Sequence[str]) -> Compared:
        """From strata by name."""
        names = {name: i for i, name in enumerate(dict.fromkeys(strata))}
        return cls(bad, np.array([names[name] for name in strata], np.int64))

    def take(self, rows: npt.NDArray[np.generic]) -> Compared:
        """Some of the samples."""
        return Compared(self.bad[rows], self.strata[rows])

    @property
    def pairs(self) -> Floats:
        """`[bad, good]`: 1 where the two are of one stratum."""
        bad, good = self.strata[self.bad], self.strata[~self.bad]
        same: Bools = bad[:, None] == good[None]
        return same.astype(np.float64)

    @property
    def counts(self) -> tuple[int, int]:
        """How many bad and good samples have one to be compared with."""
        pairs = self.pairs
        return int(pairs.any(1).sum()), int(pairs.any(0).sum())

    def auroc(self, scores: Floats, weights: Floats | None = None) -> Floats:
        """The share of pairs in which the bad sample has the higher score; ties count half.

        Within strata, pooled by their pairs. NaN where there is no pair.

        Args:
            scores: `[n]`, higher for bad samples.
            weights: `[draws, n]`, how often each sample counts; None: once.

        >>> one = Compared.of(np.array([True, False, True, False]), ["a", "a", "b", "b"])
        >>> float(one.auroc(np.array([2.0, 1.0, 5.0, 5.0]))[0])
        0.75
        """
        own, others = scores[self.bad][:, None], scores[~self.bad][None]
        pairs = self.pairs
        won = pairs * ((own > others) + 0.5 * (own == others))
        times = np.ones((1, len(scores))) if weights is None else weights
        left, right = times[:, self.bad], times[:, ~self.bad]
        with np.errstate(divide="ignore", invalid="ignore"):
            found: Floats = ((left @ won) * right).sum(1) / ((left @ pairs) * right).sum(1)
        return found


def resamples(names: Sequence[str], draws: int, rng: np.random.Generator) -> Floats:
    """`[draws, n]`: how often each sample counts when what it belongs to is drawn again.

    Args:
        names: Per sample, its group, or its object.
        draws: How many resamples.
        rng: Of the draws.
    """
    numbers = {name: i for i, name in enumerate(dict.fromkeys(names))}
    weights = bootstrap_weights(len(numbers), draws, rng)
    return weights[:, [numbers[name] for name in names]]


@dataclass(frozen=True, slots=True)
class Spread:
    """How sure a number is, under several ways of resampling: the least sure one counts.

    Args:
        low: Lower end of the widest 95 % interval; `high` likewise.
        p: The largest share of resamples in which the number is not above 0.
    """

    low: float
    high: float
    p: float

    @classmethod
    def of(cls, drawn: Sequence[Floats]) -> Spread:
        """From the resampled numbers; NaN ones are left out.

        p is (1 + reached) / (1 + draws), after Phipson and Smyth (2010).
        """
        found = []
        for each in drawn:
            finite = each[np.isfinite(each)]
            if len(finite):
                ends = interval(finite)
                p = (1 + np.count_nonzero(finite <= 0)) / (1 + len(finite))
                found.append(cls(float(ends[0]), float(ends[1]), float(p)))
        if not found:
            return cls(np.nan, np.nan, 1.0)
        widest = max(found, key=lambda one: one.high - one.low)
        return cls(widest.low, widest.high, max(one.p for one in found))


def average_precision(bad: Bools, scores: Floats) -> float:
    """The mean precision over bad samples, of taking all samples with at least that score."""
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(bad, scores))


def risks(bad: Bools, scores: Floats) -> Floats:
    """`[n]`: the share of bad samples among the k with the lowest scores, for k = 1 to n.

    Of equal scores any order is as likely, so each counts with their mean.

    >>> risks(np.array([True, False, False]), np.array([3.0, 1.0, 1.0])).round(2).tolist()
    [0.0, 0.0, 0.33]
    """
    values, place = np.unique(scores, return_inverse=True)
    share = np.bincount(place, bad, len(values)) / np.bincount(place, minlength=len(values))
    expected = share[np.sort(place)]
    found: Floats = np.cumsum(expected) / np.arange(1, len(bad) + 1)
    return found


def area_of_risk(bad: Bools, scores: Floats) -> float:
    """The area under the risk-coverage curve: the mean of `risks`; the base rate for no signal.

    Y. Geifman and R. El-Yaniv, "Selective classification for deep neural networks" (2017, arXiv
    1705.08500).
    """
    return float(risks(bad, scores).mean())


def threshold(bad: Bools, scores: Floats) -> float:
    """The score above which samples are called bad, for the largest balanced accuracy."""
    cuts = np.unique(scores)
    middle = np.concatenate([[-np.inf], (cuts[1:] + cuts[:-1]) / 2])
    called = scores[None] > middle[:, None]
    balanced = called[:, bad].mean(1) - called[:, ~bad].mean(1)
    return float(middle[int(balanced.argmax())])


def balanced_accuracy(bad: Bools, called: Bools) -> float:
    """The mean of the shares of bad samples that are called so, and of good ones that are not.

    NaN with one kind of samples only.
    """
    if not bad.any() or bad.all():
        return np.nan
    return float((called[bad].mean() + (~called[~bad]).mean()) / 2)
