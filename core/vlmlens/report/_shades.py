"""Maps of patches in the terminal: a picture's patches as shades, one layer of one sample."""

from __future__ import annotations

from collections.abc import Sequence

from vlmlens.report._sheets import Box, box_of
from vlmlens.report._text import finite, one_line
from vlmlens.results import Figure, Sheet

_SHADES = " ·░▒▓█"
_ACROSS, _LEAST, _MOST = 32, 4, 32
"""Characters of a map across, and down; a character is about twice as high as it is wide."""


def shades(figure: Figure) -> list[str]:
    """The first sheet of a figure of kind "patches" at the layer with the highest values, as lines.

    Empty where no patch has a place in the picture.
    """
    sheet = next((each for each in figure.sheets if any(_boxes(each))), None)
    if sheet is None:
        return []
    boxes = _boxes(sheet)
    means = [_mean(row) for row in sheet.cells]
    layer = max(range(len(means)), key=means.__getitem__)
    values = [finite(value) for value in sheet.cells[layer]]
    top = max((value for value in values if value is not None), default=0.0)
    frame, down = "─" * _ACROSS, _height(boxes)
    rows = [_line(boxes, values, top, (i + 0.5) / down) for i in range(down)]
    named = f"{one_line(figure.title)}: {one_line(sheet.name)}, {one_line(figure.y[layer])}"
    scale = f"{_SHADES[1]} 0  {_SHADES[-1]} {top:.2g} {one_line(figure.y_label)}"
    return [named, f"┌{frame}┐", *(f"│{row}│" for row in rows), f"└{frame}┘", scale]


def _boxes(sheet: Sheet) -> list[Box | None]:
    return [box_of(sheet, patch) for patch in range(len(sheet.boxes))]


def _height(boxes: Sequence[Box | None]) -> int:
    """Lines of a map, if the first patch is a square of the picture."""
    left, top, right, bottom = next(box for box in boxes if box is not None)
    down = round(_ACROSS / 2 * (right - left) / (bottom - top))
    return min(max(down, _LEAST), _MOST)


def _line(boxes: Sequence[Box | None], values: Sequence[float | None], top: float, y: float) -> str:
    return "".join(_shade((i + 0.5) / _ACROSS, y, boxes, values, top) for i in range(_ACROSS))


def _shade(
    x: float, y: float, boxes: Sequence[Box | None], values: Sequence[float | None], top: float
) -> str:
    for box, value in zip(boxes, values, strict=True):
        if box is not None and value is not None and box[0] <= x < box[2] and box[1] <= y < box[3]:
            share = max(value, 0.0) / top if top > 0 else 0.0
            return _SHADES[1 + min(int(share * (len(_SHADES) - 1)), len(_SHADES) - 2)]
    return _SHADES[0]


def _mean(row: Sequence[float | None]) -> float:
    known = [value for value in map(finite, row) if value is not None]
    return sum(known) / len(known) if known else float("-inf")
