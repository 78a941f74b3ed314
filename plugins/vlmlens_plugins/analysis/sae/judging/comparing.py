"""Whether an SAE is better than what nobody trained, and by how much."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student

from vlmlens.statistics import holm
from vlmlens_plugins.analysis.sae.judging.judged import (
    ALPHA,
    EXPLAINED,
    Basis,
    Compared,
    Kind,
    Peers,
    Recovered,
    Role,
)
from vlmlens_plugins.analysis.sae.judging.resampling import Interval, Resampling
from vlmlens_plugins.analysis.sae.judging.seen import Passed
from vlmlens_plugins.analysis.sae.judging.single import Singles
from vlmlens_plugins.analysis.sae.judging.variance import gain

Floats = npt.NDArray[np.float64]
BASELINES = (Role.UNTRAINED, Role.EXAMPLES, Role.NEURONS, Role.PRINCIPAL)


def compared(
    peers: Sequence[Peers], bases: Mapping[str, Basis], held: Passed, drawn: Resampling
) -> tuple[Compared, ...]:
    """Every SAE beside each of its baselines, with intervals over the same groups of samples.

    To tell a concept better than a baseline, features must also tell it better than chance does:
    the p-value is the larger one of both tests. Tests of one kind against one kind of baseline
    are corrected together, those of all SAEs.
    """
    found: list[Compared] = []
    for role in BASELINES:
        pairs = [(sae, one.baselines[role]) for one in peers for sae in one.saes]
        found += _corrected(
            [_explained(sae, bases[name], held, drawn) for sae, name in pairs], drawn
        )
        for limited in (True, False):
            told = [
                each
                for sae, name in pairs
                for each in _concepts(bases[sae], bases[name], drawn, limited=limited)
            ]
            found += _corrected(told, drawn)
    return tuple(found)


def losses_compared(
    peers: Sequence[Peers], loss: Sequence[Recovered], drawn: Resampling
) -> tuple[Compared, ...]:
    """Every SAE beside its baselines by the loss of the answers, where both stood for rows.

    Args:
        peers: Which baselines belong to which SAE.
        loss: Of SAEs and baselines.
        drawn: Groups of the samples of `loss`.
    """
    known = {(each.basis, each.rows): each for each in loss}
    parts = tuple(dict.fromkeys(each.rows for each in loss))
    found: list[Compared] = []
    for role in BASELINES:
        told = [
            _loss(known[sae, part], known[one.baselines[role], part], drawn)
            for one in peers
            for sae in one.saes
            for part in parts
            if {(sae, part), (one.baselines[role], part)} <= known.keys()
        ]
        found += _corrected(told, drawn)
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Between:
    """How much a number differs between dictionaries that were drawn at random.

    Args:
        variance: Of one more draw less the mean of those that were drawn.
        freedom: Degrees of freedom behind it.
    """

    variance: float
    freedom: int

    @classmethod
    def of(
        cls, values: Sequence[Sequence[float]], noise: Sequence[float] | None = None
    ) -> Between | None:
        """From the numbers of each draw, of several measures together; None of single draws.

        Args:
            values: By measure, the number of each draw.
            noise: By measure, the variance that they have because samples are few, which is taken
                away: it is in the error over groups already.
        """
        less = [0.0] * len(values) if noise is None else noise
        known = [
            (each, own)
            for each, own in zip(values, less, strict=True)
            if len(each) > 1 and np.isfinite([*each, own]).all()
        ]
        if not known:
            return None
        variance = float(np.mean([np.var(each, ddof=1) - own for each, own in known]))
        draws = len(known[0][0])
        return cls(max(0.0, variance) * (1 + 1 / draws), len(known) * (draws - 1))

    def widened(self, found: Interval) -> Interval:
        """An interval over groups of samples, made one over draws of dictionaries too."""
        margin = float(student.ppf(0.975, self.freedom)) * math.sqrt(self.variance)
        low, high = (math.hypot(found.value - end, margin) for end in (found.low, found.high))
        return Interval(found.value, found.value - low, found.value + high)


def chance(value: float, draws: Floats, groups: int, between: Between | None = None) -> float:
    """Two-sided p-value of a difference of 0, from its standard error over resampled groups.

    Of n groups it is never below 2 / 2^n, the smallest that flips of their signs can give.

    Args:
        value: The difference.
        draws: float64 `[draws]`: the same in resamples; NaN where it is not known.
        groups: How many groups there are.
        between: How it differs between draws of a dictionary, which is added to the error; the
            degrees of freedom are those of Welch (1947).

    >>> round(chance(1.96, np.random.default_rng(0).normal(size=100_000), 50), 2)
    0.05
    """
    known = draws[np.isfinite(draws)]
    if groups < 2 or len(known) < 2 or not math.isfinite(value):
        return float("nan")
    square = float(known.var())
    error, freedom = math.sqrt(square), math.inf
    if between is not None and between.variance > 0:
        error = math.sqrt(square + between.variance)
        freedom = between.freedom * ((square + between.variance) / between.variance) ** 2
    p = 2 * float(student.sf(abs(value) / error, freedom)) if error else float(value == 0)
    return min(1.0, max(p, 2.0 ** (1 - groups)))


def _explained(sae: str, baseline: Basis, held: Passed, drawn: Resampling) -> Compared:
    difference, draws = gain(held, sae, baseline.name, drawn)
    between = Between.of([baseline.each])
    p = chance(difference.value, draws, drawn.groups, between)
    shown = difference if between is None else between.widened(difference)
    return Compared(sae, baseline.name, Kind.VARIANCE, EXPLAINED, shown, p)


def _concepts(sae: Basis, baseline: Basis, drawn: Resampling, *, limited: bool) -> list[Compared]:
    others = baseline.singles if limited else baseline.unlimited
    told = list(others.values())
    between = Between.of([each.each for each in told], [each.noise for each in told])
    found = []
    for name, other in others.items():
        own = sae.singles[name]
        draws, value = own.drawn - other.drawn, own.auc.value - other.auc.value
        p = chance(value, draws, drawn.groups, between)
        if value > 0:
            p = max(p, _over_half(own, drawn))
        interval = drawn.interval(value, draws)
        shown = interval if between is None else between.widened(interval)
        found.append(Compared(sae.name, baseline.name, Kind.CONCEPT, name, shown, p, limited))
    return found


def _over_half(own: Singles, drawn: Resampling) -> float:
    """The p-value of features that tell nothing; 1 if they tell less than chance does."""
    above = own.auc.value - 0.5
    return chance(above, own.drawn - 0.5, drawn.groups) if above > 0 else 1.0


def _loss(sae: Recovered, baseline: Recovered, drawn: Resampling) -> Compared:
    gains = baseline.replaced - sae.replaced
    draws, value = drawn.means(gains), float(gains.mean())
    interval, p = drawn.interval(value, draws), chance(value, draws, drawn.groups)
    return Compared(sae.basis, baseline.basis, Kind.LOSS, sae.rows, interval, p)


def _corrected(found: Sequence[Compared], drawn: Resampling) -> list[Compared]:
    """Corrected by Holm; not known where so few groups could make no test of them significant."""
    raw = np.array([each.p for each in found])
    known = np.isfinite(raw)
    if known.sum() * 2.0 ** (1 - drawn.groups) >= ALPHA:
        raw[:], known = np.nan, np.zeros_like(known)
    raw[known] = holm(raw[known])
    return [replace(each, p=float(p)) for each, p in zip(found, raw, strict=True)]
