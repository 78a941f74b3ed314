"""The numbers of a sweep, as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from vlmlens_plugins.analysis._sweeps.cells import Cell, Item

Floats = npt.NDArray[np.float64]
Which = Literal["edited", "base", "donor"]


@dataclass(frozen=True, slots=True)
class Swept:
    """What each cell did to the answer of each item.

    Args:
        cells: The cells.
        items: The items. All of them have two followed answers, or all have one.
        tokens: Per item, the token of each followed answer at the place where they differ.
        results: `[cells][items]`, from `CellWork`.
    """

    cells: Sequence[Cell]
    items: Sequence[Item]
    tokens: Sequence[Sequence[int]]
    results: Sequence[Sequence[Mapping[str, Any]]]

    def difference(self, which: Which = "edited") -> Floats:
        """float64 `[cells, items]`: logit of the first followed answer minus that of the second."""
        return self._of(lambda one: one[which]["logit"][0] - one[which]["logit"][1])

    def log_probability(self, which: Which = "edited", answer: int = 0) -> Floats:
        """float64 `[cells, items]`: natural logarithm of a followed answer's probability."""
        return self._of(lambda one: one[which]["logp"][answer])

    def probability(self, which: Which = "edited", answer: int = 0) -> Floats:
        """float64 `[cells, items]`: the probability of a followed answer, 0 to 1."""
        return np.exp(self.log_probability(which, answer))

    def divergence(self, of: Literal["base", "donor"]) -> Floats:
        """float64 `[cells, items]`: KL(base or donor || edited), in nats."""
        return self._of(lambda one: one[f"kl_{of}"])

    def says(self, answer: int, which: Which = "edited") -> npt.NDArray[np.bool_]:
        """Bool `[cells, items]`: whether the most probable token is that of a followed answer."""
        token = np.array([followed[answer] for followed in self.tokens])
        said: npt.NDArray[np.bool_] = self._of(lambda one: one[which]["top"]) == token
        return said

    def kept(self) -> npt.NDArray[np.bool_]:
        """Bool `[cells, items]`: whether the most probable token stayed the same."""
        return self._of(lambda one: one["edited"]["top"] == one["base"]["top"]).astype(bool)

    def unchanged(self) -> npt.NDArray[np.bool_]:
        """Bool `[cells, items]`: the logits of the followed answers did not change at all."""
        return self._of(lambda one: one["edited"]["logit"] == one["base"]["logit"]).astype(bool)

    def take(self, cells: Sequence[int]) -> Swept:
        """The sweep with these cells alone."""
        return Swept(
            [self.cells[i] for i in cells],
            self.items,
            self.tokens,
            [self.results[i] for i in cells],
        )

    def numbers(self, **about: str) -> list[int]:
        """The numbers of the cells with these entries in `Cell.about`."""
        return [
            number
            for number, cell in enumerate(self.cells)
            if all(cell.about.get(name) == value for name, value in about.items())
        ]

    def _of(self, value: Any) -> Floats:
        found: Floats = np.array(
            [[value(one) for one in row] for row in self.results], dtype=np.float64
        ).reshape(len(self.results), len(self.items))
        return found
