"""Groups of samples, resampled: intervals of anything that is a sum over samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vlmlens_plugins.analysis._statistics import bootstrap_weights, generator, interval

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """A number with the ends of its 95 % interval; NaN where it is not known."""

    value: float
    low: float
    high: float


UNKNOWN = Interval(float("nan"), float("nan"), float("nan"))


@dataclass(frozen=True, slots=True)
class Resampling:
    """Groups of samples, drawn again and again.

    Args:
        weights: float64 `[draws, samples]`: how often each sample's group stands in each draw.
        groups: How many groups there are.
    """

    weights: Floats
    groups: int

    @classmethod
    def of(cls, groups: Sequence[str], draws: int, seed: int) -> Resampling:
        """Draw groups with replacement (Efron 1979).

        Args:
            groups: Per sample, its group.
            draws: How often.
            seed: Of the draws.
        """
        names = {name: place for place, name in enumerate(dict.fromkeys(groups))}
        drawn = bootstrap_weights(len(names), draws, generator(seed, "sae", "groups"))
        return cls(drawn[:, [names[name] for name in groups]], len(names))

    def interval(self, value: float, drawn: Floats) -> Interval:
        """The 95 % interval of a value from its draws; none of a single group."""
        known = drawn[np.isfinite(drawn)]
        if self.groups < 2 or not len(known) or not np.isfinite(value):
            return Interval(value, float("nan"), float("nan"))
        low, high = interval(known)
        return Interval(value, float(low), float(high))
