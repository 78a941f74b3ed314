"""Other places of equal area for a region."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
Shift = tuple[int, int]
_TRIED = 256
"""So many places are looked at for each sample."""
_CELLS = 128
"""Overlaps are counted on at most so many cells along a side."""
_TOO_MUCH = 0.5


@dataclass(frozen=True, slots=True)
class Places:
    """Places of equal area for a region.

    Args:
        shifts: How far (right, down) the region is moved.
        overlap: The share of it that is still inside it then, on average.
    """

    shifts: tuple[Shift, ...] = ()
    overlap: float = np.nan


def places(inside: Sequence[Bools], count: int, rng: np.random.Generator) -> Places:
    """Random places for a region, as little on it as possible.

    It is moved at random inside its image, and of many draws those are taken that overlap it
    least. If even these overlap more than half of it, what leaves the image on one side comes in
    on the other.

    Args:
        inside: Which pixels of each image the region holds.
        count: How many places.
        rng: Draws them.
    """
    first = next(one for one in inside if one.any())
    rows, columns = np.flatnonzero(first.any(1)), np.flatnonzero(first.any(0))
    height, width = first.shape
    near = _least(
        inside,
        rng.integers(-columns[0], width - columns[-1], _TRIED),
        rng.integers(-rows[0], height - rows[-1], _TRIED),
        count,
    )
    if len(near.shifts) == count and near.overlap <= _TOO_MUCH:
        return near
    return _least(inside, rng.integers(0, width, _TRIED), rng.integers(0, height, _TRIED), count)


def overlap(inside: Sequence[Bools], shift: Shift) -> float:
    """The share of a region that is still in it when it is moved."""
    right, down = shift
    both = sum(int((one & np.roll(one, (down, right), (0, 1))).sum()) for one in inside)
    return both / sum(int(one.sum()) for one in inside)


def _least(
    inside: Sequence[Bools],
    right: npt.NDArray[np.int64],
    down: npt.NDArray[np.int64],
    count: int,
) -> Places:
    """Of some moves, those with the least overlap; never one that stays."""
    pairs = dict.fromkeys(zip(right.tolist(), down.tolist(), strict=True))
    moves = [move for move in pairs if move != (0, 0)]
    step = max(1, max(max(one.shape) for one in inside) // _CELLS)
    coarse = [one[::step, ::step] for one in inside]
    if not any(one.any() for one in coarse):
        step, coarse = 1, list(inside)
    found = [overlap(coarse, (round(x / step), round(y / step))) for x, y in moves]
    best = np.argsort(found, kind="stable")[:count]
    mean = float(np.mean([found[i] for i in best])) if len(best) else np.nan
    return Places(tuple(moves[i] for i in best), mean)
