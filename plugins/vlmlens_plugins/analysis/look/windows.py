"""Parts of pictures: windows that overlap, the cells where a map is high, others of their size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from vlmlens_plugins.analysis._altered import Area

Floats = npt.NDArray[np.float64]
Size = tuple[int, int]
SHARES: Final = (1 / 16, 1 / 8, 1 / 4, 3 / 8, 1 / 2)
"""Shares of the picture that are covered, those first that matter most."""

_WIDE = 2
"""Cells along each side of a window."""
_TRIES = 200
_APART = 0.34
"""Another part of the same size shares at most so much of its cells with the part itself."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some cells of a picture that is cut into `steps` rows and columns.

    Args:
        size: (width, height) of the picture.
        steps: See above.
        cells: (row, column) of each cell.
        image: Number of the picture in its sample.
    """

    size: Size
    steps: int
    cells: tuple[tuple[int, int], ...]
    image: int = 0

    @property
    def boxes(self) -> list[tuple[float, float, float, float]]:
        """(left, top, right, bottom) of each cell, in pixels."""
        wide, high = self.size[0] / self.steps, self.size[1] / self.steps
        return [
            (column * wide, row * high, (column + 1) * wide, (row + 1) * high)
            for row, column in self.cells
        ]

    @property
    def pixels(self) -> Area:
        """Its pixels."""
        return Area(boxes=tuple((self.image, *box) for box in self.boxes))

    @property
    def share(self) -> float:
        """The share of the picture that it takes up."""
        return len(self.cells) / self.steps**2

    @property
    def middle(self) -> tuple[float, float]:
        """(x, y) of its middle, in shares of the picture's width and height."""
        row, column = np.mean(self.cells, 0)
        return (float(column) + 0.5) / self.steps, (float(row) + 0.5) / self.steps

    @property
    def where(self) -> str:
        """Where its middle lies, in words.

        >>> Part((8, 8), 8, ((0, 0), (0, 1))).where, Part((8, 8), 8, ((3, 4),)).where
        ('top left', 'in the middle')
        """
        x, y = self.middle
        across = "left" if x < 1 / 3 else "right" if x > 2 / 3 else ""
        down = "top" if y < 1 / 3 else "bottom" if y > 2 / 3 else ""
        return " ".join(filter(None, (down, across))) or "in the middle"


def windows(size: Size, steps: int, image: int = 0) -> list[Part]:
    """Windows of two by two cells, moved cell by cell, also over the edges; row by row.

    So every cell is in four of them.
    """
    places = range(1 - _WIDE, steps)
    return [_window(size, steps, row, column, image) for row in places for column in places]


def mapped(values: Floats, steps: int) -> Floats:
    """float64 `[steps, steps]`: per cell, the mean over the windows that hold it.

    Args:
        values: Of each of `windows`.
        steps: Rows and columns.
    """
    side = steps + _WIDE - 1
    views = np.lib.stride_tricks.sliding_window_view(values.reshape(side, side), (_WIDE, _WIDE))
    found: Floats = views.mean((-2, -1))
    return found


def highest(values: Floats, size: Size, image: int) -> list[Part]:
    """The cells where a map is highest, for each of `SHARES`."""
    steps = len(values)
    order = np.argsort(-values.ravel(), kind="stable")
    cells = [(int(i) // steps, int(i) % steps) for i in order]
    return [Part(size, steps, tuple(cells[: _count(share, steps)]), image) for share in SHARES]


def others(part: Part, count: int, rng: np.random.Generator) -> list[Part]:
    """Rectangles of about as many cells elsewhere in the picture; fewer where there is no room.

    Args:
        part: The part.
        count: How many.
        rng: Draws them.
    """
    steps, wanted = part.steps, len(part.cells)
    sides = [(h, round(wanted / h)) for h in range(1, steps + 1)]
    fitting = [(h, w) for h, w in sides if 1 <= w <= steps and abs(h * w - wanted) <= wanted / 5]
    own, found = set(part.cells), []
    for _ in range(_TRIES if count and fitting else 0):
        high, wide = fitting[int(rng.integers(len(fitting)))]
        row, column = (int(rng.integers(steps - side + 1)) for side in (high, wide))
        cells = tuple((row + i, column + j) for i in range(high) for j in range(wide))
        if len(own & set(cells)) <= _APART * len(cells):
            found.append(Part(part.size, steps, cells, part.image))
        if len(found) == count:
            break
    return found


def _window(size: Size, steps: int, row: int, column: int, image: int) -> Part:
    rows, columns = (range(max(first, 0), min(first + _WIDE, steps)) for first in (row, column))
    return Part(size, steps, tuple((r, c) for r in rows for c in columns), image)


def _count(share: float, steps: int) -> int:
    return max(1, round(share * steps**2))
