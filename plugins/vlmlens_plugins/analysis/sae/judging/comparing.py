"""Whether an SAE is better than what nobody trained, and by how much."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from vlmlens.statistics import holm
from vlmlens_plugins.analysis.sae.judging.judged import (
    EXPLAINED,
    Basis,
    Compared,
    Kind,
    Recovered,
    Setting,
)
from vlmlens_plugins.analysis.sae.judging.resampling import Resampling
from vlmlens_plugins.analysis.sae.judging.seen import Passed
from vlmlens_plugins.analysis.sae.judging.single import Singles
from vlmlens_plugins.analysis.sae.judging.variance import gain

Floats = npt.NDArray[np.float64]


def compared(
    settings: Sequence[Setting], bases: Mapping[str, Basis], held: Passed, drawn: Resampling
) -> tuple[Compared, ...]:
    """Every SAE beside each of its baselines, with intervals over the same groups of samples.

    To tell a concept better than a baseline, features must also tell it better than chance does:
    the p-value is the larger of both tests.
    """
    found: list[Compared] = []
    for setting in settings:
        for sae in setting.saes:
            for name in setting.baselines.values():
                found.append(_explained(sae, name, held, drawn))
                own, baseline = bases[sae].singles, bases[name]
                found += _concepts(sae, name, own, baseline.singles, drawn, limited=True)
                found += _concepts(sae, name, own, baseline.unlimited, drawn, limited=False)
    return tuple(found)


def _explained(sae: str, baseline: str, held: Passed, drawn: Resampling) -> Compared:
    difference, draws = gain(held, sae, baseline, drawn)
    return Compared(
        sae,
        baseline,
        Kind.VARIANCE,
        EXPLAINED,
        difference,
        chance(difference.value, draws, drawn.groups),
    )


def _concepts(
    sae: str, baseline: str, own: Mapping[str, Singles], other: Mapping[str, Singles],
    drawn: Resampling, *, limited: bool,
) -> list[Compared]:  # fmt: skip
    pairs = {name: (own[name], other[name]) for name in other}
    draws = [one.drawn - two.drawn for one, two in pairs.values()]
    values = [one.auc.value - two.auc.value for one, two in pairs.values()]
    p = _corrected([chance(v, d, drawn.groups) for v, d in zip(values, draws, strict=True)])
    tells = _corrected([_over_half(own[name], drawn) for name in pairs])
    p = np.where(np.array(values) > 0, np.maximum(p, tells), p)
    return [
        Compared(
            sae, baseline, Kind.CONCEPT, name, drawn.interval(value, each), float(one), limited
        )
        for name, value, each, one in zip(pairs, values, draws, p, strict=True)
    ]


def _over_half(own: Singles, drawn: Resampling) -> float:
    """The p-value of features that tell nothing; 1 if they tell less than chance."""
    above = own.auc.value - 0.5
    return chance(above, own.drawn - 0.5, drawn.groups) if above > 0 else 1.0


def losses_compared(
    settings: Sequence[Setting], loss: Sequence[Recovered], drawn: Resampling
) -> tuple[Compared, ...]:
    """Every SAE beside its baselines by the loss of the answers, where both stood for rows.

    Args:
        settings: Which baselines belong to which SAE.
        loss: Of SAEs and baselines.
        drawn: Groups of the samples of `loss`.
    """
    known = {(each.basis, each.rows): each for each in loss}
    parts = tuple(dict.fromkeys(each.rows for each in loss))
    found: list[Compared] = []
    for setting in settings:
        for sae in setting.saes:
            for name in setting.baselines.values():
                if all({(sae, part), (name, part)} <= set(known) for part in parts):
                    gains = [
                        known[name, part].replaced - known[sae, part].replaced for part in parts
                    ]
                    found += _losses(sae, name, dict(zip(parts, gains, strict=True)), drawn)
    return tuple(found)


def _losses(
    sae: str, baseline: str, gains: Mapping[str, Floats], drawn: Resampling
) -> list[Compared]:
    size = drawn.weights.sum(1)
    draws = [drawn.weights @ gain / size for gain in gains.values()]
    values = [float(gain.mean()) for gain in gains.values()]
    p = _corrected([chance(v, d, drawn.groups) for v, d in zip(values, draws, strict=True)])
    return [
        Compared(sae, baseline, Kind.LOSS, part, drawn.interval(value, each), float(one))
        for part, value, each, one in zip(gains, values, draws, p, strict=True)
    ]


def _corrected(raw: Sequence[float]) -> Floats:
    known = np.isfinite(raw)
    p = np.full(len(raw), np.nan)
    p[known] = holm(np.array(raw)[known])
    return p


def chance(value: float, draws: Floats, groups: int) -> float:
    """Two-sided p-value of a difference of 0, from its standard error over resampled groups.

    Of n groups it is never below 2 / 2^n, the smallest that flips of their signs can give.

    Args:
        value: The difference.
        draws: float64 `[draws]`: the same in resamples; NaN where it is not known.
        groups: How many groups there are.

    >>> round(chance(1.96, np.random.default_rng(0).normal(size=100_000), 50), 2)
    0.05
    """
    known = draws[np.isfinite(draws)]
    if groups < 2 or len(known) < 2 or not math.isfinite(value):
        return float("nan")
    error = float(known.std())
    p = math.erfc(abs(value) / error / math.sqrt(2)) if error else float(value == 0)
    return min(1.0, max(p, 2.0 ** (1 - groups)))
