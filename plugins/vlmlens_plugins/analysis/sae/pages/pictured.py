"""What the rows of a shown sample stand for: patches of pictures, and tokens in context."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from vlmlens.abc import ModelAdapter
from vlmlens.results import FeatureMap, FeaturePlaces
from vlmlens.tokens import TokenKind, TokenLayout
from vlmlens_plugins.analysis._patches import Box
from vlmlens_plugins.analysis.logit_lens.words import row_text

_AT_PATCH = 6
_MOST_TOKENS = 240
_DIGITS = 4


@dataclass(frozen=True, slots=True)
class View:
    """The patches of one view of a picture.

    Args:
        image: Which of the sample's images.
        view: The view's name.
        rows: int64 `[n]`, the rows of the column.
        boxes: `[n]`, where they lie.
    """

    image: int
    view: str
    rows: npt.NDArray[np.int64]
    boxes: list[Box | None]


def views(layout: TokenLayout) -> list[View]:
    """The views of a sample's pictures; none where the family has no grid."""
    grid = layout.patches
    if grid is None:
        return []
    rows = layout.positions(TokenKind.IMAGE)
    keys = list(zip(grid.image.tolist(), grid.view, strict=True))
    found = []
    for image, view in dict.fromkeys(keys):
        own = np.array([i for i, key in enumerate(keys) if key == (image, view)])
        found.append(View(image, view, rows[own], [_box(row) for row in grid.box[own]]))
    return found


def maps(own: Sequence[View], codes: npt.NDArray[np.float32]) -> list[FeatureMap]:
    """Where a feature fires.

    Args:
        own: The sample's views.
        codes: `[rows]`, its codes.
    """
    made = []
    for view in own:
        lit = [
            (box, codes[i]) for box, i in zip(view.boxes, view.rows, strict=True) if codes[i] > 0
        ]
        values = [short(value) for _, value in lit]
        made.append(FeatureMap(view.image, view.view, [box for box, _ in lit], values))
    return made


def places(own: Sequence[View], codes: csr_array, numbers: Sequence[int]) -> list[FeaturePlaces]:
    """The strongest of some features in each patch.

    Args:
        own: The sample's views.
        codes: `[rows, numbers]`.
        numbers: The features.
    """
    return [
        FeaturePlaces(
            view.image,
            view.view,
            view.boxes,
            [_strongest(codes, int(row), numbers) for row in view.rows],
        )
        for view in own
    ]


def tokens(
    vlm: ModelAdapter, layout: TokenLayout, codes: npt.NDArray[np.float32]
) -> tuple[list[str], list[float | None]]:
    """The rows that are no patches, in reading order, with a feature's codes.

    Rows of pictures are named together. Of a long text a part around the strongest row is given.
    Rows that are no tokens, such as CLS, are given only where one of them fires.

    Args:
        vlm: Decodes tokens.
        layout: Of the column's rows.
        codes: `[rows]`.
    """
    listed = list(_listed(vlm, layout, codes))
    unnamed = layout.token_ids is None and not any(value for _, value in listed)
    if unnamed or all(value is None for _, value in listed):
        return [], []
    best = max(range(len(listed)), key=lambda i: listed[i][1] or 0.0)
    start = max(0, min(best - _MOST_TOKENS // 2, len(listed) - _MOST_TOKENS))
    kept = listed[start : start + _MOST_TOKENS]
    before, after = start > 0, start + len(kept) < len(listed)
    cut: list[tuple[str, float | None]] = [("…", None)]
    whole = cut * before + kept + cut * after
    return [text for text, _ in whole], [value for _, value in whole]


def short(value: float | np.floating) -> float:
    """A number with as many digits as a page needs."""
    return float(f"{value:.{_DIGITS}g}")


def _listed(
    vlm: ModelAdapter, layout: TokenLayout, codes: npt.NDArray[np.float32]
) -> Iterator[tuple[str, float | None]]:
    row, ids = 0, layout.token_ids
    while row < len(layout):
        if layout.kinds[row] != TokenKind.IMAGE:
            text = f"[row {row + 1}, no patch]" if ids is None else row_text(vlm, layout, row)
            yield text, short(codes[row])
            row += 1
            continue
        end = row
        while end < len(layout) and layout.kinds[end] == TokenKind.IMAGE:
            end += 1
        yield f"[{end - row} image rows]", None
        row = end


def _strongest(codes: csr_array, row: int, numbers: Sequence[int]) -> list[tuple[int, float]]:
    start, end = codes.indptr[row : row + 2]
    pairs = zip(codes.indices[start:end], codes.data[start:end], strict=True)
    lit = [(numbers[int(i)], short(value)) for i, value in pairs if value > 0]
    return sorted(lit, key=lambda each: -each[1])[:_AT_PATCH]


def _box(row: npt.NDArray[np.float32]) -> Box | None:
    if np.isnan(row).any():
        return None
    left, top, right, bottom = (round(float(edge), _DIGITS) for edge in row)
    return left, top, right, bottom
