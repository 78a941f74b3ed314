"""Values over the patches of a picture, as sheets of figures of kind "patches"."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vlmlens.results import Sheet
from vlmlens.samples import Sample
from vlmlens.tokens import PatchGrid, Selector, TokenKind, TokenLayout

_DIGITS = 4
Box = tuple[float, float, float, float]
Floats = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]


def rounded(values: Floats) -> list[list[float | None]]:
    """Rows of numbers as JSON takes them, to four digits."""
    return [
        [None if np.isnan(value) else float(f"{value:.{_DIGITS}g}") for value in row]
        for row in values
    ]


def views(
    selector: Selector, layout: TokenLayout, count: int
) -> Iterator[tuple[str, Ints, PatchGrid | None]]:
    """A sample's patches by image and view; all at once where the family has no grid."""
    if layout.patches is None:
        yield "", np.arange(count), None
        return
    of_image = {int(row): i for i, row in enumerate(layout.rows[layout.positions(TokenKind.IMAGE)])}
    kept = np.array([of_image[int(row)] for row in selector.rows(layout)])
    grid = layout.patches.take(kept)
    labels = [(int(i), v) for i, v in zip(grid.image, grid.view, strict=True)]
    for image, view in dict.fromkeys(labels):
        where = np.array([i for i, label in enumerate(labels) if label == (image, view)])
        yield view, where, grid.take(where)


class Place:
    """Where a sample's patches lie.

    Args:
        sample: The sample.
        view: Which view of its image is cut into patches.
        grid: The patches of that view.
        count: How many there are.
    """

    def __init__(self, sample: Sample, view: str, grid: PatchGrid | None, count: int) -> None:
        self._sample, self._view = sample.id, view
        self._image = 0 if grid is None else int(grid.image[0])
        self._boxes = [None] * count if grid is None else [_box(row) for row in grid.box]
        self._names = [str(i) for i in range(count)]
        if grid is not None:
            pairs = zip(grid.row, grid.col, strict=True)
            self._names = [f"row {r + 1}, column {c + 1}" for r, c in pairs]

    def sheet(
        self,
        values: Floats,
        texts: Sequence[Sequence[str]],
        tips: Sequence[Sequence[str]],
        facets: dict[str, str],
    ) -> Sheet:
        """A sheet of values `[layers, patches]`."""
        view = {"view": self._view} if self._view not in ("", "image") else {}
        return Sheet(
            self._sample,
            rounded(values),
            texts=texts,
            tips=tips,
            x=self._names,
            boxes=self._boxes,
            image=self._image,
            facets={**facets, **view},
        )


def _box(row: Floats) -> Box | None:
    if np.isnan(row).any():
        return None
    left, top, right, bottom = (round(float(edge), _DIGITS) for edge in row)
    return left, top, right, bottom
