"""Whether an SAE is better than what nobody trained, and by how much."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from vlmlens.statistics import holm
from vlmlens_plugins.analysis.sae.judging.judged import EXPLAINED, Basis, Compared, Setting
from vlmlens_plugins.analysis.sae.judging.seen import Passed
from vlmlens_plugins.analysis.sae.judging.single import Singles
from vlmlens_plugins.analysis.sae.judging.variance import Resampling, gain

Floats = npt.NDArray[np.float64]


def compared(
    settings: Sequence[Setting], bases: Mapping[str, Basis], held: Passed, drawn: Resampling
) -> tuple[Compared, ...]:
    """Every SAE beside each of its baselines, with intervals over the same groups of samples."""
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
        sae, baseline, EXPLAINED, difference, chance(difference.value, draws, drawn.groups)
    )


def _concepts(
    sae: str, baseline: str, own: Mapping[str, Singles], other: Mapping[str, Singles],
    drawn: Resampling, *, limited: bool,
) -> list[Compared]:  # fmt: skip
    pairs = {name: (own[name], other[name]) for name in other}
    draws = [one.drawn - two.drawn for one, two in pairs.values()]
    values = [one.auc.value - two.auc.value for one, two in pairs.values()]
    raw = [chance(v, d, drawn.groups) for v, d in zip(values, draws, strict=True)]
    known = np.isfinite(raw)
    p = np.full(len(raw), np.nan)
    p[known] = holm(np.array(raw)[known])
    return [
        Compared(sae, baseline, name, drawn.interval(value, each), float(one), limited)
        for name, value, each, one in zip(pairs, values, draws, p, strict=True)
    ]


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
