"""Bootstraps and random swaps of whole groups."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vlmlens.samples import Sample
from vlmlens_plugins.analysis._statistics import bootstrap_weights, exact_ends, interval

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
_CHUNK = 1000
_LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float

    def less(self, known: float) -> Estimate:
        """The number less one that is known."""
        return Estimate(self.value - known, self.low - known, self.high - known)


class Groups:
    """The groups of some samples: what is drawn, or swapped, as one.

    Args:
        samples: At least one.
        draws: Bootstrap resamples.
        rng: Draws them, once.
    """

    def __init__(self, samples: Sequence[Sample], draws: int, rng: np.random.Generator) -> None:
        names = [sample.split_group for sample in samples]
        number = {name: i for i, name in enumerate(dict.fromkeys(names))}
        self.of: Ints = np.array([number[name] for name in names])
        self.count = len(number)
        self.weights = bootstrap_weights(self.count, draws, rng)
        """float64 `[draws, groups]`."""

    def sums(self, values: Floats) -> Floats:
        """float64 `[groups, ...]`: sums over the samples of values `[n, ...]`."""
        sums = np.zeros((self.count, *values.shape[1:]))
        np.add.at(sums, self.of, values)
        return sums

    def totals(self, values: Floats) -> Floats:
        """float64 `[draws, ...]`: sums of values `[n, ...]` over each resample."""
        return np.asarray(self.weights @ self.sums(values))

    def mean(self, values: Floats) -> Estimate:
        """The mean of values `[n]` between 0 and 1.

        Where all are 0, or all are 1, resampling would claim certainty; the exact interval of a
        share says what so many groups can tell.
        """
        value = float(values.mean())
        if value in (0.0, 1.0):
            return Estimate(value, *exact_ends(value, self.count, _LEVEL))
        return self.ratio(values, np.ones(len(values)))

    def ratio(self, above: Floats, below: Floats) -> Estimate:
        """The sum of `above` over that of `below`, both `[n]`; 0 where there is nothing below.

        Where resampling has nothing to vary, the ends of a ratio of 0 or 1 are those of a share.
        """
        value = float(_divided(above.sum(keepdims=True), below.sum(keepdims=True))[0])
        low, high = interval(_divided(self.totals(above), self.totals(below)), _LEVEL)
        if low == high and value in (0.0, 1.0):
            units = max(1, len(np.unique(self.of[below > 0])))
            least, most = exact_ends(value, units, _LEVEL)
            return Estimate(value, least if value else -most, most)
        return Estimate(value, float(low), float(high))


def signs(draws: int, units: int, rng: np.random.Generator) -> Iterator[Floats]:
    """Chunks of random signs, `[draws, units]` in all."""
    for start in range(0, draws, _CHUNK):
        yield rng.integers(0, 2, (min(_CHUNK, draws - start), units)).astype(np.float64) * 2 - 1


def _divided(above: Floats, below: Floats) -> Floats:
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)
