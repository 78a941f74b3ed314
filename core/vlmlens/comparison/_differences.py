"""Tests on a difference of means: paired, unpaired, or from two intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import erfc, sqrt
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
_NORMAL_95 = 1.959964
_AT_ONCE = 2_000_000
"""Random numbers that are held at a time."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What one number of a run is more than the same number of another.

    Args:
        reference: The mean in the run that is compared with; `value` likewise, in the other.
        difference: `value - reference`.
        low: Lower end of its 95 % interval; `high` likewise.
        p: Two-sided p-value, not corrected; None: not tested.
        test: How it was tested.
        samples: How many pairs, or how many samples of both runs together.
    """

    reference: float
    value: float
    difference: float
    low: float
    high: float
    p: float | None
    test: Literal["paired", "unpaired", "intervals"]
    samples: int


def paired(
    reference: Floats, value: Floats, groups: Sequence[str], rng: np.random.Generator, draws: int
) -> Difference:
    """The same samples in both runs: signs of whole groups' differences are flipped at random.

    Args:
        reference: float64 `[n]`.
        value: float64 `[n]`, of the same samples.
        groups: `[n]`, samples of one group are flipped and resampled together.
        rng: Where randomness comes from.
        draws: Of the permutation test and of the bootstrap each.
    """
    change = value - reference
    sums, counts = _by_group(change, groups)
    observed = float(change.mean())
    null = [
        (rng.integers(0, 2, (size, len(sums))) * 2 - 1) @ sums / len(change)
        for size in _portions(draws, len(sums))
    ]
    low, high = _interval(_resampled(sums, counts, rng, draws))
    p = _two_sided(observed, np.concatenate(null))
    means = float(reference.mean()), float(value.mean())
    return Difference(*means, observed, low, high, p, "paired", len(change))


def unpaired(
    reference: Floats,
    value: Floats,
    groups: tuple[Sequence[str], Sequence[str]],
    rng: np.random.Generator,
    draws: int,
) -> Difference:
    """Other samples in the two runs: whole groups change runs at random.

    Args:
        reference: float64 `[n]`.
        value: float64 `[m]`.
        groups: The samples' groups in the one and the other.
        rng: Where randomness comes from.
        draws: Of the permutation test and of the bootstrap each.
    """
    first, second = _by_group(reference, groups[0]), _by_group(value, groups[1])
    sums, counts = (np.concatenate(pair) for pair in zip(first, second, strict=True))
    observed = float(value.mean() - reference.mean())
    null = np.concatenate(
        [
            _split_difference(sums, counts, len(second[0]), rng, size)
            for size in _portions(draws, len(sums))
        ]
    )
    spread = _resampled(*second, rng, draws) - _resampled(*first, rng, draws)
    low, high = _interval(spread)
    means = float(reference.mean()), float(value.mean())
    p, total = _two_sided(observed, null), len(reference) + len(value)
    return Difference(*means, observed, low, high, p, "unpaired", total)


LEAST_OF_INTERVALS = 50
"""Samples that each side needs: with fewer, a bootstrap interval is too narrow."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A number with its 95 % interval.

    Args:
        value: The number.
        low: Lower end of its interval; `high` likewise.
        samples: How many independent samples it is of.
    """

    value: float
    low: float
    high: float
    samples: int

    @property
    def variance(self) -> float:
        """Of a single sample, as the interval's width tells."""
        return self.samples * ((self.high - self.low) / (2 * _NORMAL_95)) ** 2


def from_intervals(reference: Measured, value: Measured) -> Difference | None:
    """From two numbers with their 95 % intervals, taken as independent and normal.

    If the runs do not differ, their samples have one variance. So neither side's error is taken as
    smaller than the variance of both sides together tells: few samples that happen to be alike give
    an interval without a width. Runs on the same samples are positively dependent as a rule, which
    makes the test cautious.

    Returns:
        Without a p-value where a side has fewer than `LEAST_OF_INTERVALS` samples. None where the
        numbers differ and neither interval has a width: nothing tells by how much they could have
        differed by chance.
    """
    sides, total = (reference, value), reference.samples + value.samples
    pooled = sum(each.samples * each.variance for each in sides) / max(total, 1)
    error = sqrt(sum(max(each.variance, pooled) / max(each.samples, 1) for each in sides))
    change = value.value - reference.value
    if error == 0 and change != 0:
        return None
    p = erfc(abs(change) / error / sqrt(2)) if error > 0 else 1.0
    reach = _NORMAL_95 * error
    enough = min(each.samples for each in sides) >= LEAST_OF_INTERVALS
    ends = change - reach, change + reach
    means = reference.value, value.value
    return Difference(*means, change, *ends, p if enough else None, "intervals", total)


def _by_group(values: Floats, groups: Sequence[str]) -> tuple[Floats, Floats]:
    """Sum and number of samples of each group."""
    numbers = {name: i for i, name in enumerate(dict.fromkeys(groups))}
    places = np.array([numbers[name] for name in groups])
    sums: Floats = np.bincount(places, weights=values).astype(np.float64)
    counts: Floats = np.bincount(places).astype(np.float64)
    return sums, counts


def _split_difference(
    sums: Floats, counts: Floats, second: int, rng: np.random.Generator, draws: int
) -> Floats:
    """Differences of means where `second` groups, taken at random, make up the second run."""
    order = rng.random((draws, len(sums))).argpartition(second - 1, axis=1)[:, :second]
    of_second, n_second = sums[order].sum(1), counts[order].sum(1)
    of_first, n_first = sums.sum() - of_second, counts.sum() - n_second
    difference: Floats = of_second / n_second - of_first / n_first
    return difference


def _resampled(sums: Floats, counts: Floats, rng: np.random.Generator, draws: int) -> Floats:
    """Means of bootstrap resamples of whole groups."""
    even = np.full(len(sums), 1 / len(sums))
    parts = []
    for size in _portions(draws, len(sums)):
        taken = rng.multinomial(len(sums), even, size=size)
        parts.append((taken @ sums) / (taken @ counts))
    return np.concatenate(parts)


def _portions(draws: int, width: int) -> list[int]:
    size = max(1, _AT_ONCE // max(width, 1))
    return [min(size, draws - start) for start in range(0, draws, size)]


def _two_sided(observed: float, null: Floats) -> float:
    """Phipson and Smyth (2010): a permutation p-value is never zero."""
    reached = np.count_nonzero(np.abs(null) >= abs(observed) - 1e-9)
    return float((1 + reached) / (1 + len(null)))


def _interval(draws: Floats) -> tuple[float, float]:
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)
