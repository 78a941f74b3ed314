"""Deletion and insertion curves: how faithful a map is to the model.

V. Petsiuk, A. Das, K. Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box
Models", BMVC 2018, arXiv 1806.07421. Cells are hidden from the highest value down (deletion), or
shown in that order on a blurred image (insertion), and the probability of the answer is followed.
Of a faithful map, the first curve falls early and the second rises early.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vlmlens.abc import AnalysisContext
from vlmlens_plugins.analysis._altered import Alteration, Fill, Question, ask
from vlmlens_plugins.analysis._maps.aims import Aim
from vlmlens_plugins.analysis._maps.cells import Cells, Ints

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CurveFills:
    """What hidden cells are filled with.

    Args:
        deletion: In deletion.
        insertion: In insertion.
        blur: Radius of the fill "blur", as a share of the longer side.
    """

    deletion: Fill = "mean"
    insertion: Fill = "blur"
    blur: float = 0.1


@dataclass(frozen=True, slots=True)
class Curves:
    """The curves of one order of one sample's cells.

    Args:
        deletion: float64 `[steps + 1]`: the answer's probability with none to all cells hidden.
        insertion: float64 `[steps + 1]`: with none to all cells shown.
    """

    deletion: Floats
    insertion: Floats

    @classmethod
    def mean(cls, several: Sequence[Curves]) -> Curves:
        """The mean of several curves."""
        return cls(
            np.mean([one.deletion for one in several], 0),
            np.mean([one.insertion for one in several], 0),
        )

    @property
    def gap(self) -> float:
        """The area under the insertion curve less that under the deletion curve, -1 to 1."""
        return area_under(self.insertion) - area_under(self.deletion)


def area_under(curve: Floats) -> float:
    """The area under a curve over equal steps from 0 to 1, by the trapezoidal rule.

    >>> area_under(np.array([1.0, 0.5, 0.0]))
    0.5
    """
    return float((curve[:-1] + curve[1:]).sum() / (2 * (len(curve) - 1)))


def curves(
    context: AnalysisContext,
    asked: Sequence[tuple[Aim, Cells, Sequence[Ints]]],
    steps: int,
    fills: CurveFills,
) -> list[list[Curves]]:
    """Run deletion and insertion.

    Args:
        context: The context of the analysis.
        asked: Per sample, what is followed, its cells, and orders of them, each int64 `[cells]`.
        steps: Steps of each curve.
        fills: What hidden cells are filled with.

    Returns:
        Per sample and order, its curves.
    """
    questions: list[Question] = []
    for aim, cells, orders in asked:
        for order in orders:
            questions += _questions(aim, cells, order, steps, fills)
    found = iter(ask(context, questions))
    return [
        [_curves([aim.probability(next(found)) for _ in range(2 * steps + 2)]) for _ in orders]
        for aim, _, orders in asked
    ]


def units_of_curves(orders: int, steps: int) -> int:
    """How many questions the curves of a sample ask; the ends are the same for all orders."""
    return 2 * (steps - 1) * orders + 3


def _questions(
    aim: Aim, cells: Cells, order: Ints, steps: int, fills: CurveFills
) -> list[Question]:
    """Deletion from nothing to everything hidden; then insertion from nothing to all shown."""
    cuts = [round(k * len(order) / steps) for k in range(steps + 1)]
    deleted = [(order[:k], fills.deletion) for k in cuts]
    inserted = [(order[k:], fills.insertion) for k in cuts]
    return [
        aim.question(Alteration(hide=cells.area(hidden), fill=fill, blur=fills.blur))
        if len(hidden)
        else aim.question()
        for hidden, fill in deleted + inserted
    ]


def _curves(scores: Sequence[float]) -> Curves:
    middle = len(scores) // 2
    return Curves(np.array(scores[:middle]), np.array(scores[middle:]))
