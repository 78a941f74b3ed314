"""A graph as inline SVG for the page, and as text: layers upward, lanes beside each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from vlmlens.report._axis import SIZE
from vlmlens.report._heatmap import scale_bar
from vlmlens.report._markup import Markup, join, tag
from vlmlens.report._text import cut, finite, one_line, plural, show, width
from vlmlens.report._theme import level
from vlmlens.results import Figure, GraphEdge, GraphNode

_ROW, _BOX, _GAP, _PAD = 58.0, 24.0, 14.0, 18.0
_TOP, _BOTTOM = 58.0, 10.0
_THINNEST, _THICKEST = 1.0, 7.0
_LONGEST_LABEL, _LONGEST_LAYER = 14, 26
_LISTED = 24


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a graph is drawn, in pixels.

    Args:
        wide: The whole width; `high` likewise.
        left: Where the first lane begins.
        lanes: Where each lane begins and ends.
        boxes: Per node, the middle of its box (x, y), and its width.
        rows: Per layer, the height of its middle.
    """

    wide: float
    high: float
    left: float
    lanes: Sequence[tuple[float, float]]
    boxes: Sequence[tuple[float, float, float]]
    rows: Sequence[float]


def layout_of(figure: Figure, total: float) -> Layout:
    """The places of nodes: each layer a row, the first one at the bottom; each lane a column.

    Args:
        figure: The figure.
        total: The width to fill; a graph with crowded layers is wider.
    """
    box = max([40.0, *(width(_label(node), SIZE) + 16 for node in figure.nodes)])
    most = [1] * len(figure.x)
    for _, members in _cells(figure):
        lane = figure.nodes[members[0]].lane
        most[lane] = max(most[lane], len(members))
    names = (cut(one_line(name), _LONGEST_LAYER) for name in figure.y)
    left = max((width(name, SIZE) for name in names), default=0.0) + 12
    needed = [count * (box + _GAP) - _GAP + 2 * _PAD for count in most]
    stretch = max((total - left) / (sum(needed) or 1.0), 1.0)
    lanes, x = [], left
    for room in needed:
        lanes.append((x, x + room * stretch))
        x += room * stretch
    high = _TOP + _ROW * len(figure.y) + _BOTTOM
    rows = [high - _BOTTOM - _ROW * (layer + 0.5) for layer in range(len(figure.y))]
    boxes = [(0.0, 0.0, box)] * len(figure.nodes)
    for layer, members in _cells(figure):
        low, end = lanes[figure.nodes[members[0]].lane]
        slot = (end - low - 2 * _PAD + _GAP) / len(members)
        for place, number in enumerate(members):
            middle = low + _PAD - _GAP / 2 + slot * (place + 0.5)
            boxes[number] = (middle, rows[layer], box)
    return Layout(x, high, left, lanes, boxes, rows)


def draw_graph(figure: Figure, total: float) -> Markup:
    """A graph in its natural size, at least `total` pixels wide."""
    drawn = layout_of(figure, total)
    order = sorted(figure.edges, key=lambda edge: abs(edge.value))
    return tag(
        "svg",
        _legend(figure),
        *_lanes(figure, drawn),
        *_layers(figure, drawn),
        tag("g", *(_edge(figure, drawn, edge) for edge in order)),
        tag("g", *(_node(figure, drawn, i) for i in range(len(figure.nodes)))),
        viewBox=f"0 0 {drawn.wide:.0f} {drawn.high:.0f}",
        width=round(drawn.wide),
        height=round(drawn.high),
        role="img",
        aria_label=f"{one_line(figure.title)}. Graph with {plural(len(figure.nodes), 'node')} and "
        f"{plural(len(figure.edges), 'edge')}, from the bottom to the top; the numbers are in the "
        "tables.",
    )


def node_limits(figure: Figure) -> tuple[float, float]:
    """The limits of the colours of nodes: as given, else from 0 to the highest value."""
    if figure.y_range:
        return figure.y_range
    values = [finite(node.value) for node in figure.nodes]
    return 0.0, max([abs(value) for value in values if value is not None] or [1.0]) or 1.0


def strength(figure: Figure, edge: GraphEdge) -> float:
    """How strong an edge is among those of the figure, 0 to 1."""
    most = max((abs(other.value) for other in figure.edges), default=0.0)
    return abs(edge.value) / most if most else 0.0


def curve_of(drawn: Layout, edge: GraphEdge) -> list[tuple[float, float]]:
    """The four points of an edge's cubic curve; one that passes other rows goes around boxes."""
    (x1, y1, box), (x2, y2, _) = drawn.boxes[edge.source], drawn.boxes[edge.target]
    start, end = y1 - _BOX / 2, y2 + _BOX / 2
    bend, rows = max((start - end) * 0.45, 10.0), (y1 - y2) / _ROW
    aside = 0.0
    if abs(x1 - x2) < box / 2 and rows > 1.5:
        aside = (box * 0.75 + 9 * rows) * (-1 if edge.source % 2 else 1)
    return [(x1, start), (x1 + aside, start - bend), (x2 + aside, end + bend), (x2, end)]


def graph_lines(figure: Figure) -> list[str]:
    """A graph as lines of text: the layers from the top down, then the strongest edges."""
    lines = [one_line(figure.title)]
    across = max((len(name) for name in map(one_line, figure.y)), default=0)
    for layer in reversed(range(len(figure.y))):
        lanes = []
        for lane, name in enumerate(figure.x):
            here = [n for n in figure.nodes if (n.layer, n.lane) == (layer, lane)]
            if here:
                lanes.append(f"{one_line(name)}: {', '.join(_said(node) for node in here)}")
        lines.append(f"  {one_line(figure.y[layer]):{across}}  {'   '.join(lanes)}".rstrip())
    order = sorted(figure.edges, key=lambda edge: -abs(edge.value))
    for edge in order[:_LISTED]:
        ends = (_place(figure, number) for number in (edge.source, edge.target))
        lines.append(f"  {' -> '.join(ends)}  {show(float(edge.value))}")
    if len(order) > _LISTED:
        lines.append(f"  and {plural(len(order) - _LISTED, 'weaker edge')}")
    return lines


def _cells(figure: Figure) -> Iterator[tuple[int, list[int]]]:
    """Per layer and lane that have nodes: the layer, and their numbers."""

    def place(number: int) -> tuple[int, int]:
        return figure.nodes[number].layer, figure.nodes[number].lane

    for (layer, _), members in groupby(sorted(range(len(figure.nodes)), key=place), place):
        yield layer, list(members)


def _label(node: GraphNode) -> str:
    return cut(one_line(node.label), _LONGEST_LABEL)


def _said(node: GraphNode) -> str:
    value = finite(node.value)
    return one_line(node.label) if value is None else f"{one_line(node.label)} {value:z.2f}"


def _place(figure: Figure, number: int) -> str:
    node = figure.nodes[number]
    layer, label, lane = map(one_line, (figure.y[node.layer], node.label, figure.x[node.lane]))
    inner = [] if label in (lane, layer) or layer.endswith(f" {label}") else [label]
    return ", ".join([layer, *inner, lane])


def _lanes(figure: Figure, drawn: Layout) -> list[Markup]:
    parts = []
    for number, (name, (low, end)) in enumerate(zip(figure.x, drawn.lanes, strict=True)):
        room = max(int((end - low) / (0.54 * SIZE)), 3)
        shape = {"x": low + 2, "y": _TOP - 6, "width": end - low - 4, "height": drawn.high - _TOP}
        parts.append(tag("rect", class_=f"lane l{number % 2}", rx=6.0, **shape))
        shown = join([tag("title", one_line(name)), cut(one_line(name), room)])
        middle = (low + end) / 2
        parts.append(
            tag("text", shown, class_="group", x=middle, y=_TOP - 14, text_anchor="middle")
        )
    return parts


def _layers(figure: Figure, drawn: Layout) -> list[Markup]:
    parts = []
    for name, y in zip(figure.y, drawn.rows, strict=True):
        shown = join([tag("title", one_line(name)), cut(one_line(name), _LONGEST_LAYER)])
        parts.append(tag("line", class_="grid", x1=drawn.left, x2=drawn.wide, y1=y, y2=y))
        parts.append(tag("text", shown, x=drawn.left - 8, y=y + 4, text_anchor="end"))
    return parts


def _edge(figure: Figure, drawn: Layout, edge: GraphEdge) -> Markup:
    start, *points = curve_of(drawn, edge)
    share = strength(figure, edge)
    look = "edge against" if edge.value < 0 else "edge"
    curve = " ".join(f"{x:.1f} {y:.1f}" for x, y in points)
    ends = f"{_place(figure, edge.source)} → {_place(figure, edge.target)}"
    said = f"{ends}: {show(float(edge.value))}{f'. {one_line(edge.tip)}' if edge.tip else ''}"
    return tag(
        "path",
        tag("title", said),
        class_=look,
        d=f"M{start[0]:.1f} {start[1]:.1f}C{curve}",
        stroke_width=_THINNEST + (_THICKEST - _THINNEST) * share,
        stroke_opacity=0.25 + 0.65 * share,
        data_from=str(edge.source),
        data_to=str(edge.target),
    )


def _node(figure: Figure, drawn: Layout, number: int) -> Markup:
    node, (x, y, box) = figure.nodes[number], drawn.boxes[number]
    value = finite(node.value)
    look = "n" if value is None else str(level(value, *node_limits(figure)))
    value_said = "" if value is None else f": {show(value)}"
    said = f"{_place(figure, number)}{value_said}{f'. {one_line(node.tip)}' if node.tip else ''}"
    shape = {"x": x - box / 2, "y": y - _BOX / 2, "width": box, "height": _BOX, "rx": 5.0}
    return tag(
        "g",
        tag("title", said),
        tag("rect", class_=f"h{look}", **shape),
        tag("text", _label(node), class_=f"cell t{look}", x=x, y=y + 4),
        class_="node",
        data_node=str(number),
    )


def _legend(figure: Figure) -> Markup:
    """What colours and lines mean."""
    name = cut(one_line(figure.y_label), 40)
    bar, x = scale_bar(node_limits(figure), width(name, SIZE) + 10)
    parts = [tag("text", name, class_="axis-name", x=0.0, y=12.0), bar]
    if figure.edges:
        most = max(abs(edge.value) for edge in figure.edges)
        label = f"{cut(one_line(figure.x_label), 44)}, up to {show(float(most))}"
        x += 26
        line = tag("path", class_="edge", d=f"M{x:.1f} 8h26", stroke_width=_THICKEST * 0.6)
        parts += [line, tag("text", label, class_="axis-name", x=x + 32, y=12.0)]
        if any(edge.value < 0 for edge in figure.edges):
            x += 44 + width(label, SIZE)
            line = tag("path", class_="edge against", d=f"M{x:.1f} 8h26", stroke_width=3.0)
            parts += [line, tag("text", "against", class_="axis-name", x=x + 32, y=12.0)]
    return join(parts)
