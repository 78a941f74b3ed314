"""A heat map as inline SVG for the page: first row on top, texts in the cells where there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vlmlens.report._axis import SIZE, draw_axis, left_room
from vlmlens.report._labels import shortened
from vlmlens.report._markup import Markup, join, tag
from vlmlens.report._scale import limits
from vlmlens.report._text import cut, finite, one_line, show, width
from vlmlens.report._theme import LEVELS, level
from vlmlens.results import Figure

_ROW = 23.0
_LONGEST_TEXT = 12
_LONGEST_ROW = 30
_MANY_CELLS = 500


@dataclass(frozen=True, slots=True)
class _Grid:
    left: float
    top: float
    cell: float
    row: float


def draw_heatmap(figure: Figure, total: float) -> Markup:
    """A heat map in its natural size, at most stretched to `total` pixels."""
    texts = cell_texts(figure)
    rows = [cut(label, _LONGEST_ROW) for label in shortened(figure.y)]
    grid = _grid(figure, texts, rows, total)
    axis = draw_axis(figure.x, grid.cell, figure.x_label)
    bottom = grid.top + grid.row * len(figure.y)
    right = max(grid.left + grid.cell * len(figure.x) + 8, 220.0)
    height = bottom + axis.height + 4
    return tag(
        "svg",
        _scale_bar(figure),
        *_row_labels(figure, rows, grid),
        *_cells(figure, texts, grid),
        tag("g", axis.markup, transform=f"translate({grid.left:.1f} {bottom + 2:.1f})"),
        viewBox=f"0 0 {right:.0f} {height:.0f}",
        width=round(right),
        height=round(height),
        role="img",
        aria_label=f"{one_line(figure.title)}. heat map, {len(figure.y)} by {len(figure.x)}.",
    )


def cell_texts(figure: Figure) -> list[list[str]]:
    """What is printed in the cells: the figure's texts, else the numbers if they are few."""
    if figure.texts:
        return [[one_line(text) for text in row] for row in figure.texts]
    if len(figure.y) * len(figure.x) > _MANY_CELLS:
        return [["" for _ in row] for row in figure.cells]
    return [[_short_number(value) for value in row] for row in figure.cells]


def _short_number(value: float | None) -> str:
    number = finite(value)
    return "" if number is None else f"{number:z.2f}" if abs(number) < 100 else f"{number:.0f}"


def _grid(
    figure: Figure, texts: Sequence[Sequence[str]], rows: Sequence[str], total: float
) -> _Grid:
    longest = max((_text_width(text) for row in texts for text in row), default=0.0)
    labels = max((width(row, SIZE, mono=True) for row in rows), default=0.0) + 10
    wanted = longest + 12 if longest else 10.0
    room = (total - labels - 10) / max(len(figure.x), 1)
    cell = max(wanted, min(room, wanted * 1.6, 84.0))
    span = cell * len(figure.x)
    left = labels
    for _ in range(3):  # the axis keeps its length, so room on the left moves its end too
        left = left_room(figure.x, labels, left + span)
    return _Grid(left, 34.0, cell, _ROW if longest or len(rows) <= 30 else 11.0)


def _text_width(text: str) -> float:
    return width(cut(text, _LONGEST_TEXT), SIZE, mono=True)


def _cells(figure: Figure, texts: Sequence[Sequence[str]], grid: _Grid) -> list[Markup]:
    low, high = limits(figure)
    drawn = []
    for i, row in enumerate(figure.cells):
        for j, value in enumerate(row):
            number = finite(value)
            look = "n" if number is None else str(level(number, low, high))
            tip = _tip(figure, i, j, texts[i][j])
            drawn.append(_cell(grid, (i, j), look, texts[i][j], tip))
    return drawn


def _tip(figure: Figure, i: int, j: int, text: str) -> Markup:
    said = f"{text}, " if figure.texts and text else ""
    where = f"{one_line(figure.y[i])}, {one_line(figure.x[j])}"
    return tag("title", f"{where}: {said}{show(figure.cells[i][j])}")


def _cell(grid: _Grid, place: tuple[int, int], look: str, text: str, tip: Markup) -> Markup:
    x, y = grid.left + place[1] * grid.cell, grid.top + place[0] * grid.row
    shape = {"x": x, "y": y, "width": grid.cell - 1, "height": grid.row - 1}
    square = tag("rect", tip, class_=f"h{look}", **shape)
    if not text:
        return square
    middle, base = x + (grid.cell - 1) / 2, y + grid.row / 2 + 3.5
    shown = cut(text, _LONGEST_TEXT)
    return join([square, tag("text", shown, class_=f"cell t{look}", x=middle, y=base)])


def _row_labels(figure: Figure, rows: Sequence[str], grid: _Grid) -> list[Markup]:
    step = 1 if grid.row > 12 else 2
    parts = []
    for i, row in enumerate(rows):
        if i % step == 0:
            inner = join([tag("title", one_line(figure.y[i])), row])
            y = grid.top + (i + 0.5) * grid.row + 3.5
            parts.append(tag("text", inner, class_="row", x=grid.left - 6, y=y))
    return parts


def _scale_bar(figure: Figure) -> Markup:
    """The colour scale with its ends, and the name of the vertical axis."""
    name = cut(one_line(figure.y_label), 34)
    bar, _ = scale_bar(limits(figure), width(name, SIZE) + 10)
    return join([tag("text", name, class_="axis-name", x=0.0, y=12.0), bar])


def scale_bar(ends: tuple[float, float], x: float = 0.0, look: str = "") -> tuple[Markup, float]:
    """A colour scale with its ends, 14 pixels high, and where it stops.

    Args:
        ends: The lowest and the highest value.
        x: Where it begins.
        look: A class of its steps beside that of their colour.
    """
    low, high = (f"{value:.2g}" for value in ends)
    step, start = 96.0 / LEVELS, x + width(low, SIZE) + 10
    shape = {"y": 3.0, "width": step + 0.3, "height": 10.0}
    steps = [
        tag("rect", class_=f"{look} h{i}".strip(), x=start + i * step, **shape)
        for i in range(LEVELS)
    ]
    first = tag("text", low, x=start - 5, y=12.0, text_anchor="end")
    last = tag("text", high, x=start + 101, y=12.0)
    return join([first, *steps, last]), start + 106 + width(high, SIZE)
