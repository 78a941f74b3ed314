"""Maps of patches on paper: one small panel per layer, over the sample's picture."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING

from vlmlens.report._labels import shortened
from vlmlens.report._scale import limits
from vlmlens.report._sheets import Box, box_of
from vlmlens.report._text import cut, finite, one_line
from vlmlens.report._theme import RAMP_MAP, level, ramp
from vlmlens.results import Figure, Sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Paper
    from PIL.Image import Image

_ACROSS = 6
_PANEL = 1.3
"""Width of a panel in inches."""
_SOLID, _OVER = 1.0, 0.6
_LONGEST = 24
_LETTER, _LINE = 0.065, 0.13
"""Width of a letter and height of a line of the title in inches, rather too large."""


def map_size(figure: Figure, picture: Image | None) -> tuple[float, float]:
    """Width and height of the file in inches."""
    across = min(_ACROSS, max(len(figure.y), 1))
    down = -(-max(len(figure.y), 1) // across)
    tall = _PANEL * (picture.height / picture.width if picture else 1.0) + 0.25
    return max(across * _PANEL + 0.7, 2.4), down * tall + 0.5


def draw_maps(figure: Figure, sheet: Sheet, picture: Image | None, paper: Paper) -> None:
    """One panel per layer."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    across = min(_ACROSS, max(len(figure.y), 1))
    down = -(-max(len(figure.y), 1) // across)
    ends = limits(figure)
    panels = []
    for layer, name in enumerate(shortened(figure.y)):
        axes = paper.add_subplot(down, across, layer + 1)
        axes.set_title(cut(one_line(name), _LONGEST), fontsize=6.5, parse_math=False)
        _panel(sheet, layer, ends, picture, axes)
        panels.append(axes)
    title = f"{one_line(figure.title)}: {one_line(sheet.name)}"
    wide, high = paper.get_size_inches()
    lines = wrap(title, int(wide / _LETTER))
    paper.set_size_inches(wide, high + _LINE * (len(lines) - 1))
    paper.suptitle("\n".join(lines), fontsize=8.0, parse_math=False)
    if panels:
        scale = ScalarMappable(Normalize(*ends), ListedColormap(ramp(RAMP_MAP)))
        paper.colorbar(scale, ax=panels, fraction=0.03, pad=0.02)


def _panel(
    sheet: Sheet, layer: int, ends: tuple[float, float], picture: Image | None, axes: Axes
) -> None:
    from matplotlib.collections import PolyCollection

    wide, high = (picture.width, picture.height) if picture else (1, 1)
    if picture is not None:
        axes.imshow(picture, extent=(0, wide, high, 0))
    colours, shapes, taken = ramp(RAMP_MAP), [], []
    for i, value in enumerate(sheet.cells[layer]):
        box, number = box_of(sheet, i), finite(value)
        if box is not None and number is not None:
            shapes.append(_corners(box, wide, high))
            taken.append(colours[level(number, *ends)])
    alpha = _OVER if picture is not None else _SOLID
    axes.add_collection(PolyCollection(shapes, facecolors=taken, alpha=alpha, linewidths=0))
    axes.set(xlim=(0, wide), ylim=(high, 0), xticks=[], yticks=[], aspect="equal")
    axes.spines[:].set_visible(False)


def _corners(box: Box, wide: float, high: float) -> list[tuple[float, float]]:
    left, top, right, bottom = box[0] * wide, box[1] * high, box[2] * wide, box[3] * high
    return [(left, top), (right, top), (right, bottom), (left, bottom)]
