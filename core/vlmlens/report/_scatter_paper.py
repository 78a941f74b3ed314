"""Points on paper: each pair of axes of a figure's first space, by matplotlib."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

from vlmlens.report._text import cut, one_line
from vlmlens.report._theme import SERIES_LIGHT
from vlmlens.results import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Paper

_SIDE, _LEGEND = 2.6, 1.4
"""Of a panel, and beside them, in inches."""
_MARKERS = "os^D"
_LONGEST = 30


def scatter_size(figure: Figure) -> tuple[float, float]:
    """Width and height of the file in inches."""
    return max(len(_pairs(figure)), 1) * _SIDE + _LEGEND, _SIDE + 0.4


def draw_scatter_paper(figure: Figure, paper: Paper) -> None:
    """One panel for each pair of axes, with equal scales."""
    names = [figure.title, *(space.name for space in figure.spaces[:1])]
    paper.suptitle(": ".join(map(one_line, names)), fontsize=8.0, parse_math=False)
    pairs = _pairs(figure)
    for place, pair in enumerate(pairs, 1):
        _panel(figure, pair, paper.add_subplot(1, len(pairs), place))
    if pairs:
        found = paper.axes[-1].legend(
            loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=7
        )
        for text in found.get_texts():
            name = cut(one_line(figure.x[int(text.get_text())]), _LONGEST)
            text.set_parse_math(False)
            text.set_text(name)


def _pairs(figure: Figure) -> list[tuple[int, int]]:
    axes = len(figure.spaces[0].axes) if figure.spaces else 0
    return list(combinations(range(axes), 2))


def _panel(figure: Figure, pair: tuple[int, int], axes: Axes) -> None:
    space = figure.spaces[0]
    for kind in range(len(figure.x)):
        own = [
            [place[axis] for axis in pair]
            for point, place in zip(figure.points, space.places, strict=True)
            if point.kind == kind
        ]
        across = [place[0] for place in own]
        up = [place[1] for place in own]
        axes.scatter(
            across, up, s=9, label=str(kind), marker=_MARKERS[kind % len(_MARKERS)],
            color=SERIES_LIGHT[kind % len(SERIES_LIGHT)], linewidths=0, alpha=0.75,
        )  # fmt: skip
    axes.set_aspect("equal", adjustable="datalim")
    names = [cut(one_line(space.axes[axis]), _LONGEST) for axis in pair]
    axes.set_xlabel(names[0], parse_math=False, fontsize=7)
    axes.set_ylabel(names[1], parse_math=False, fontsize=7)
    axes.tick_params(labelsize=6)
