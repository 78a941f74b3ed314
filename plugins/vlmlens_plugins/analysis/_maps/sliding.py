"""Sliding a window over the cells of images, and widening it where it hides too little."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from vlmlens_plugins.analysis._maps.aims import Aim
from vlmlens_plugins.analysis._maps.cells import Cells, Ints

Floats = npt.NDArray[np.float64]
Asked: TypeAlias = Sequence[tuple[Aim, Cells]]

Scored: TypeAlias = Callable[[Sequence[int], Sequence[Sequence[Ints]]], list[list[Floats]]]
"""From the numbers of some samples, and for each the sets of its cells that are hidden in turn, to
the log-probabilities of its answers for each set."""

_WIDER = 1.5
_ENOUGH = 0.5


def sizes(window: int, side: int) -> list[int]:
    """The windows that are tried, in cells along each side.

    >>> sizes(4, 8), sizes(1, 2), sizes(8, 8)
    ([4, 6], [1, 2], [8])
    """
    return list(dict.fromkeys((window, min(side, max(window + 1, round(_WIDER * window))))))


def slid(asked: Asked, window: int, scored: Scored) -> list[Floats]:
    """How far the score falls where cells are hidden: per sample float64 `[cells]`.

    The value of a cell is the mean of what the windows over it do, see `Cells.of_windows`.

    Hiding a part of what the answer rests on may do nothing. So where no window takes from the
    probability of the answer half of what hiding everything takes, windows one and a half times as
    wide are moved instead.

    Args:
        asked: Per sample, what is followed, and the cells.
        window: Cells along each side of a window.
        scored: Hides cells.
    """
    found: dict[int, Floats] = {}
    rest = list(range(len(asked)))
    for size in sizes(window, max((cells.side for _, cells in asked), default=window)):
        hidden = [
            [np.arange(0), np.arange(len(cells)), *cells.windows(size)]
            for _, cells in (asked[i] for i in rest)
        ]
        small = []
        for i, logs in zip(rest, scored(rest, hidden), strict=True):
            aim, cells = asked[i]
            falls = [aim.score(logs[0]) - aim.score(one) for one in logs[2:]]
            found[i] = cells.of_windows(falls, size)
            left = [aim.probability(one) for one in logs]
            if left[0] - min(left[2:]) < _ENOUGH * (left[0] - left[1]):
                small.append(i)
        rest = small
        if not rest:
            break
    return [found[i] for i in range(len(asked))]


def units_of_windows(images: int, side: int, window: int) -> int:
    """How often a map hides something, at most."""
    return sum(2 + images * (side + size - 1) ** 2 for size in sizes(window, side))
