"""A graph on paper: the same places as on the page, by matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlmlens.report._graph import curve_of, layout_of, node_limits, strength
from vlmlens.report._text import cut, finite, one_line
from vlmlens.report._theme import RAMP_LIGHT, SERIES_LIGHT, ink, level, ramp
from vlmlens.results import Figure, GraphEdge

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Paper

    from vlmlens.report._graph import Layout

_WIDE = 620.0
_PIXELS = 110.0
"""Pixels of the layout per inch."""
_BOX = 24.0
_LONGEST_LAYER, _LONGEST_LABEL = 26, 14
_EMPTY = "#f2f2f0"


def graph_size(figure: Figure) -> tuple[float, float]:
    """Width and height of the file in inches."""
    drawn = layout_of(figure, _WIDE)
    return drawn.wide / _PIXELS, drawn.high / _PIXELS


def draw_graph_paper(figure: Figure, paper: Paper) -> None:
    """Draw a graph over a whole file."""
    drawn = layout_of(figure, _WIDE)
    axes = paper.add_subplot()
    axes.set(xlim=(0, drawn.wide), ylim=(drawn.high, 0), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.set_title(one_line(figure.title), parse_math=False, loc="left")
    plain = {"parse_math": False, "va": "center", "fontsize": 6.5}
    for name, (low, end) in zip(figure.x, drawn.lanes, strict=True):
        shown = cut(one_line(name), _LONGEST_LAYER)
        axes.text((low + end) / 2, 42, shown, ha="center", **plain)  # type: ignore[arg-type]
    for name, y in zip(figure.y, drawn.rows, strict=True):
        shown = cut(one_line(name), _LONGEST_LAYER)
        axes.text(drawn.left - 8, y, shown, ha="right", **plain)  # type: ignore[arg-type]
    for edge in sorted(figure.edges, key=lambda edge: abs(edge.value)):
        _edge(figure, drawn, edge, axes)
    for number in range(len(figure.nodes)):
        _node(figure, drawn, number, axes)


def _edge(figure: Figure, drawn: Layout, edge: GraphEdge, axes: Axes) -> None:
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    share, against = strength(figure, edge), edge.value < 0
    axes.add_patch(
        PathPatch(
            Path(curve_of(drawn, edge), [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4]),
            fill=False,
            edgecolor=SERIES_LIGHT[1 if against else 0],
            linestyle="--" if against else "-",
            linewidth=0.5 + 2.5 * share,
            alpha=0.25 + 0.65 * share,
        )
    )


def _node(figure: Figure, drawn: Layout, number: int, axes: Axes) -> None:
    from matplotlib.patches import FancyBboxPatch

    node, (x, y, box) = figure.nodes[number], drawn.boxes[number]
    value, colours = finite(node.value), ramp(RAMP_LIGHT)
    colour = _EMPTY if value is None else colours[level(value, *node_limits(figure))]
    corner = (x - box / 2 + 3, y - _BOX / 2 + 3)
    shape = FancyBboxPatch(
        corner, box - 6, _BOX - 6, boxstyle="round,pad=3", facecolor=colour, edgecolor="#888888",
        linewidth=0.5, zorder=3,
    )  # fmt: skip
    axes.add_patch(shape)
    label = cut(one_line(node.label), _LONGEST_LABEL)
    axes.text(
        x, y, label, ha="center", va="center", fontsize=6.0, color=ink(colour), parse_math=False,
        zorder=4,
    )  # fmt: skip
