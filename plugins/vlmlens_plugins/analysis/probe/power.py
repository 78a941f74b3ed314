"""How many samples are needed to show a gap.

Normal approximation: over repeated data sets the gap is normal, and all its deviations shrink with
the root of the number of groups. The verdict "encoded" asks for a gap above three limits (its
p-value's, its interval's, and the least gap that counts), so power is the chance to pass them all.
J. Cohen, "Statistical power analysis for the behavioral sciences" (1988), chapters 2 and 12. Two of
the limits rest on the deviation of a few controls' accuracies, which is itself known to a relative
error of about `1 / sqrt(2 (seeds - 1))` only; that adds to the spread.

The power at the gap that was seen is a function of its p-value and says nothing more (J. Hoenig and
D. Heisey, "The abuse of power", Am. Stat. 55, 2001). So two other numbers are reported: the
smallest gap that these samples would have shown, and the samples that this gap would need.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, hypot, inf, sqrt
from statistics import NormalDist

_NORMAL = NormalDist()
POWER = 0.8


@dataclass(frozen=True, slots=True)
class Noise:
    """How much a gap varies, and what is asked of it; all at the present size.

    Args:
        significant: The gap at which the p-value reaches its level.
        below: From the gap down to the lower end of its interval.
        spread: Standard deviation of the gap over repeated data sets.
        least: The least gap that counts, at any size.
        seeds: Controls that `significant` and `below` rest on, at least 2.
    """

    significant: float
    below: float
    spread: float
    least: float
    seeds: int

    def limit(self, factor: float = 1.0) -> float:
        """The gap that must be reached with `factor` times the samples."""
        return max(max(self.significant, self.below) / sqrt(factor), self.least)

    def power(self, gap: float, factor: float = 1.0) -> float:
        """The chance that "encoded" is the verdict, where `gap` is the true one.

        >>> Noise(significant=0.1, below=0.08, spread=0.05, least=0.05, seeds=20).power(0.1)
        0.5
        """
        total = self._total()
        if total <= 0:
            return float(gap >= self.limit(factor))
        return _NORMAL.cdf((gap - self.limit(factor)) * sqrt(factor) / total)

    def detectable(self, power: float = POWER) -> float:
        """The smallest true gap that these samples show with that chance."""
        return self.limit() + _NORMAL.inv_cdf(power) * self._total()

    def _total(self) -> float:
        """Deviation of the gap's distance to a limit."""
        unsure = max(self.significant, self.below, 0.0) / sqrt(2 * (self.seeds - 1))
        return hypot(self.spread, unsure)

    def factor_needed(self, gap: float, power: float = POWER) -> float:
        """How many times the present samples show `gap` with that chance; infinite for none.

        A gap that is not above the least one is not shown by any number of samples.
        """
        if gap <= self.least:
            return inf
        low, high = 1e-6, 1.0
        while self.power(gap, high) < power:
            low, high = high, 2 * high
        for _ in range(60):
            middle = sqrt(low * high)
            low, high = (low, middle) if self.power(gap, middle) >= power else (middle, high)
        return high

    def samples_needed(self, gap: float, samples: int, power: float = POWER) -> int | None:
        """As `factor_needed`, in samples; None where no number is enough."""
        factor = self.factor_needed(gap, power)
        return None if factor == inf else max(1, ceil(factor * samples))
