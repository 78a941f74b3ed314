"""Ratios and shares with intervals; groups of samples are resampled, for all numbers alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vlmlens_plugins.analysis._statistics import bootstrap_weights, exact_ends, interval

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95 % interval; NaN where there is none, as of a single group.

    Args:
        value: The number.
        low: Lower end; `high` likewise.
        groups: How many groups of samples are behind it.
    """

    value: float
    low: float
    high: float
    groups: int


NOTHING = Estimate(np.nan, np.nan, np.nan, 0)


class Resampled:
    """Numbers over the same resamples of groups, so that their differences are paired.

    Args:
        groups: The group of each sample.
        draws: How many resamples.
        rng: Draws them, once.
    """

    def __init__(self, groups: Sequence[str], draws: int, rng: np.random.Generator) -> None:
        numbers = {name: i for i, name in enumerate(dict.fromkeys(groups))}
        self._of = np.array([numbers[name] for name in groups])
        self._weights = bootstrap_weights(len(numbers), draws, rng)

    def ratio(self, above: Floats, below: Floats) -> Estimate:
        """The ratio of the means of two values `[samples]`, over samples that have both."""
        both = np.isfinite(above) & np.isfinite(below)
        if not both.any():
            return NOTHING
        top, bottom = self.sums(np.where(both, above, 0)), self.sums(np.where(both, below, 0))
        with np.errstate(divide="ignore", invalid="ignore"):
            value = top.sum() / bottom.sum()
            drawn = (self._weights @ top) / (self._weights @ bottom)
        groups = len(np.unique(self._of[both]))
        drawn = drawn[np.isfinite(drawn)]
        low, high = interval(drawn) if groups > 1 and len(drawn) else (np.nan, np.nan)
        return Estimate(float(value), float(low), float(high), groups)

    def mean(self, values: Floats) -> Estimate:
        """The mean of values `[samples]` that are finite."""
        return self.ratio(values, np.ones(len(values)))

    def share(self, values: Floats) -> Estimate:
        """The mean of values `[samples]` from 0 to 1.

        Where all are 0, or all are 1, resampling would claim certainty; the exact interval of a
        share says what so many groups can tell.
        """
        found = self.mean(values)
        if found.value not in (0.0, 1.0):
            return found
        low, high = exact_ends(found.value, found.groups)
        return Estimate(found.value, low, high, found.groups)

    def sums(self, values: Floats) -> Floats:
        """float64 `[groups]`: sums of values `[samples]`, those that are not finite left out."""
        sums = np.zeros(self._weights.shape[1])
        np.add.at(sums, self._of, np.where(np.isfinite(values), values, 0))
        return sums
