"""Groups of samples, resampled: intervals of anything that is a sum over samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vlmlens_plugins.analysis._statistics import bootstrap_weights, generator, interval

Floats = npt.NDArray[np.float64]
_FEWEST = 200
_ELEMENTS = 2**24


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
        weights: float64 `[draws, groups]`: how often each group stands in each draw.
        group: int64 `[samples]`: the group of each sample.
    """

    weights: Floats
    group: npt.NDArray[np.int64]

    @classmethod
    def of(cls, groups: Sequence[str], draws: int, seed: int) -> Resampling:
        """Draw groups with replacement (Efron 1979).

        Args:
            groups: Per sample, its group.
            draws: How often; of very many groups less often, but at least 200 times.
            seed: Of the draws.
        """
        names = {name: place for place, name in enumerate(dict.fromkeys(groups))}
        most = max(_FEWEST, _ELEMENTS // max(1, len(names)))
        rng = generator(seed, "sae", "groups")
        drawn = bootstrap_weights(len(names), min(draws, most), rng)
        return cls(drawn, np.array([names[name] for name in groups], np.int64))

    @property
    def groups(self) -> int:
        """How many groups there are."""
        return int(self.weights.shape[1])

    def sums(self, values: Floats) -> Floats:
        """float64 `[draws]`: the sum over samples of `values` `[samples]` in each draw."""
        found: Floats = self.weights @ np.bincount(self.group, values, minlength=self.groups)
        return found

    def means(self, values: Floats) -> Floats:
        """float64 `[draws]`: the mean over samples of `values` `[samples]` in each draw."""
        found: Floats = self.sums(values) / self.sums(np.ones(len(values)))
        return found

    def at(self, places: Sequence[int]) -> Floats:
        """float64 `[draws, n]`: how often each of some samples stands in each draw."""
        found: Floats = self.weights[:, self.group[list(places)]]
        return found

    def interval(self, value: float, drawn: Floats) -> Interval:
        """The 95 % interval of a value from its draws; none of a single group."""
        known = drawn[np.isfinite(drawn)]
        if self.groups < 2 or not len(known) or not np.isfinite(value):
            return Interval(value, float("nan"), float("nan"))
        low, high = interval(known)
        return Interval(value, float(low), float(high))
