"""A weight of sparsity that is moved until k features fire."""

from __future__ import annotations

import math

from vlmlens_plugins.sae.training.kinds import Sparsity

_GAIN, _FOLLOW, _START = 0.01, 0.1, 0.2


class Adapting(Sparsity):
    """Kinds whose codes are made sparse by a penalty of a given or a searched weight.

    The search moves the logarithm of the weight by 0.01 times that of (features that fire / k),
    step by step, and ever less as the learning rate falls.
    """

    @property
    def weight(self) -> float:
        """The weight of the penalty now."""
        if self.recipe.coefficient is not None:
            return self.recipe.coefficient
        return self.numbers.setdefault("coefficient", _START * self.setting.unit)

    def adapt(self, fired: float, pace: float) -> None:
        """Move the weight towards k.

        Args:
            fired: How many features fired in a row, on average.
            pace: The learning rate's part of its highest.
        """
        if self.recipe.coefficient is not None:
            return
        known = self.numbers.get("fired", fired)
        known += _FOLLOW * (fired - known)
        off = math.log(max(known, 1e-3) / self.recipe.k)
        change = _GAIN * pace * max(-1.0, min(1.0, off))
        self.numbers |= {"fired": known, "coefficient": self.weight * math.exp(change)}
