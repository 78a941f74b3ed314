"""Statistics that the analyses share; numpy only, all randomness from a given generator."""

from __future__ import annotations

import math
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
_WEIGHTS = 4_000_000


def generator(seed: int, *names: str) -> np.random.Generator:
    """A random generator for one named purpose, independent of those for other names.

    >>> bool(generator(0, "a").random() == generator(0, "b").random())
    False
    """
    return np.random.default_rng([seed, *(zlib.crc32(name.encode()) for name in names)])


def permutation_p(observed: float, null: Floats) -> float:
    """One-sided p-value of a Monte Carlo permutation test: `(1 + #{null >= observed}) / (1 + n)`.

    B. Phipson and G. Smyth, "Permutation p-values should never be zero", Stat. Appl. Genet. Mol.
    Biol. 9 (2010). Ties within rounding count as reached.
    """
    reached = np.count_nonzero(null >= observed - 1e-9)
    return float((1 + reached) / (1 + len(null)))


def bootstrap_weights(units: int, draws: int, rng: np.random.Generator) -> Floats:
    """float64 `[draws, units]`: how often each unit stands in each bootstrap resample.

    B. Efron, "Bootstrap methods: another look at the jackknife", Ann. Stat. 7 (1979).
    """
    return rng.multinomial(units, np.full(units, 1 / units), size=draws).astype(np.float64)


def resampled_means(
    sums: npt.NDArray[Any], counts: npt.NDArray[Any], draws: int, rng: np.random.Generator
) -> Floats:
    """float64 `[draws]`: means over all units when whole groups are resampled.

    Few resamples are held at a time, and all are those that `bootstrap_weights` draws at once.

    Args:
        sums: `[groups]`, the sum of each group's units.
        counts: `[groups]`, how many units each has.
        draws: How many resamples.
        rng: Draws them.
    """
    step = max(1, _WEIGHTS // len(counts))
    found = []
    for start in range(0, draws, step):
        weights = bootstrap_weights(len(counts), min(step, draws - start), rng)
        found.append((weights @ sums) / (weights @ counts))
    return np.concatenate(found)


def interval(draws: Floats, level: float = 0.95) -> tuple[Floats, Floats]:
    """The percentile interval along the first axis: (low, high)."""
    tail = (1 - level) / 2
    low, high = np.quantile(draws, [tail, 1 - tail], axis=0)
    return low, high


def total_variation(p: Floats, q: Floats) -> Floats:
    """`[...]`: half the summed absolute difference of distributions `[..., outcomes]`, 0 to 1.

    >>> float(total_variation(np.array([1.0, 0.0]), np.array([0.25, 0.75])))
    0.75
    """
    distance: Floats = 0.5 * np.abs(p - q).sum(-1)
    return distance


def jensen_shannon(p: Floats, q: Floats) -> Floats:
    """`[...]`: Jensen-Shannon distance (root of the divergence, base 2), 0 to 1.

    D. Endres and J. Schindelin, "A new metric for probability distributions", IEEE Trans. Inf.
    Theory 49 (2003).

    >>> float(jensen_shannon(np.array([1.0, 0.0]), np.array([0.0, 1.0])))
    1.0
    """
    middle = (p + q) / 2
    divergence = (_kullback_leibler(p, middle) + _kullback_leibler(q, middle)) / 2
    distance: Floats = np.sqrt(np.clip(divergence, 0.0, 1.0))
    return distance


def entropy(p: Floats) -> Floats:
    """`[...]`: Shannon entropy in bits of distributions `[..., outcomes]`.

    >>> float(entropy(np.array([0.5, 0.25, 0.25])))
    1.5
    """
    bits: Floats = -(p * np.log2(np.where(p > 0, p, 1.0))).sum(-1)
    return np.maximum(bits, 0.0)


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided exact p-value of as unequal a split of `gained + lost` by a fair coin.

    Q. McNemar, "Note on the sampling error of the difference between correlated proportions or
    percentages", Psychometrika 12 (1947), in its exact (binomial) form. It takes all samples to be
    independent.

    >>> round(mcnemar(9, 2), 4)
    0.0654
    """
    trials = gained + lost
    ways = math.lgamma(trials + 1) - trials * math.log(2)
    tail = math.fsum(
        math.exp(ways - math.lgamma(k + 1) - math.lgamma(trials - k + 1))
        for k in range(max(gained, lost), trials + 1)
    )
    return min(1.0, 2 * tail)


def exact_ends(share: float, units: int, level: float = 0.95) -> tuple[float, float]:
    """The exact interval of a share of 0 or 1, where resampling has nothing to vary: (low, high).

    C. Clopper and E. Pearson, "The use of confidence or fiducial limits", Biometrika 26 (1934).

    Args:
        share: 0 or 1.
        units: Independent units behind it.
        level: Of the interval.
    """
    end = ((1 - level) / 2) ** (1 / units)
    return (0.0, 1 - end) if share < 0.5 else (end, 1.0)


def _kullback_leibler(p: Floats, q: Floats) -> Floats:
    safe = np.where(p > 0, p, 1.0)
    ratio = safe / np.where(p > 0, q, 1.0)
    bits: Floats = (p * np.log2(ratio)).sum(-1)
    return bits
