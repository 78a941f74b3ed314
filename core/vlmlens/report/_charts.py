"""Lines with bands and bars with error bars, as inline SVG for the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from vlmlens.report._axis import SIZE, Axis, draw_axis, left_room
from vlmlens.report._markup import Markup, join, tag
from vlmlens.report._scale import limits, ticks
from vlmlens.report._text import cut, finite, one_line, show, width
from vlmlens.report._theme import DASHES, MARKERS, SERIES_LIGHT
from vlmlens.results import Figure, Series

V = TypeVar("V")
_TIGHT = 16.0
_THICKEST = 42.0
_RIGHT = 8.0
MARKER_PATHS = {
    "circle": "M-3.2 0a3.2 3.2 0 1 0 6.4 0a3.2 3.2 0 1 0-6.4 0z",
    "square": "M-2.9-2.9h5.8v5.8h-5.8z",
    "triangle": "M0-3.9L3.8 2.9H-3.8z",
    "diamond": "M0-4.2L4.2 0L0 4.2L-4.2 0z",
}
"""Outlines around the origin, in pixels, by the name of a shape."""


@dataclass(frozen=True, slots=True)
class Plot:
    """Where the data is drawn: origin and size in pixels, limits in data units."""

    left: float
    top: float
    width: float
    height: float
    count: int
    low: float
    high: float

    @property
    def slot(self) -> float:
        """Pixels per position of the horizontal axis."""
        return self.width / max(self.count, 1)

    def x(self, index: float) -> float:
        """The middle of a position."""
        return self.left + (index + 0.5) * self.slot

    def y(self, value: float) -> float:
        """A value's height, clipped to just outside the plot."""
        share = (value - self.low) / (self.high - self.low)
        return self.top + self.height * (1 - min(max(share, -0.02), 1.02))


def draw_chart(figure: Figure, total: float) -> Markup:
    """A line or bar figure, `total` pixels wide."""
    plot = _plot(figure, total)
    axis = draw_axis(figure.x, plot.slot, figure.x_label)
    height = plot.top + plot.height + axis.height
    draw = _line if figure.kind == "line" else _bars
    drawn = [draw(_Drawn(index, item, figure, plot)) for index, item in enumerate(figure.series)]
    base = f"translate({plot.left:.1f} {plot.top + plot.height:.1f})"
    return tag(
        "svg",
        *_frame(figure, plot, axis),
        *drawn,
        tag("g", axis.markup, transform=base),
        viewBox=f"0 0 {total:.0f} {height:.0f}",
        width=total,
        height=round(height),
        data_left=plot.left,
        data_slot=plot.slot,
        data_count=plot.count,
        role="img",
        aria_label=_summary(figure),
    )


def legend(figure: Figure) -> Markup:
    """The names of the series as buttons; the page's script highlights the series on a click."""
    items = [_legend_item(index, item, figure.kind) for index, item in enumerate(figure.series)]
    return tag("div", *items, class_="legend") if items else Markup("")


def _summary(figure: Figure) -> str:
    names = ", ".join(one_line(item.name) for item in figure.series)
    return (
        f"{one_line(figure.title)}. {figure.kind} chart of {names}; the numbers are in the tables."
    )


def _plot(figure: Figure, total: float) -> Plot:
    low, high = limits(figure)
    labels = max((width(f"{value:g}", SIZE) for value in ticks(low, high)), default=0.0)
    left = left_room(figure.x, labels + 12, total - _RIGHT)
    top = 26.0 if figure.y_label else 10.0
    height = 190.0 if total < 600 else 240.0
    return Plot(left, top, total - left - _RIGHT, height, len(figure.x), low, high)


def _frame(figure: Figure, plot: Plot, axis: Axis) -> list[Markup]:
    right, bottom = plot.left + plot.width, plot.top + plot.height
    parts = []
    if figure.y_label:
        name = cut(one_line(figure.y_label), 60)
        parts.append(tag("text", name, class_="axis-name", x=0.0, y=11.0))
    for value in ticks(plot.low, plot.high):
        y = plot.y(value)
        parts.append(tag("line", class_="grid", x1=plot.left, x2=right, y1=y, y2=y))
        parts.append(tag("text", f"{value:g}", x=plot.left - 7, y=y + 4, text_anchor="end"))
    for border in axis.borders:
        x = plot.left + border
        parts.append(tag("line", class_="border", x1=x, x2=x, y1=plot.top, y2=bottom))
    parts.append(tag("line", class_="base", x1=plot.left, x2=right, y1=bottom, y2=bottom))
    parts.append(tag("line", class_="cross", x1=0.0, x2=0.0, y1=plot.top, y2=bottom))
    return parts


@dataclass(frozen=True, slots=True)
class _Drawn:
    """A series with what is needed to draw it."""

    index: int
    item: Series
    figure: Figure
    plot: Plot

    def interval(self, i: int) -> tuple[float, float] | None:
        """The interval at a position."""
        if self.item.low is None or self.item.high is None:
            return None
        low, high = finite(self.item.low[i]), finite(self.item.high[i])
        return None if low is None or high is None else (low, high)

    def tip(self, i: int, value: float) -> Markup:
        """The tooltip at a position."""
        ends = self.interval(i)
        between = f" [{show(ends[0])}, {show(ends[1])}]" if ends else ""
        where = one_line(self.figure.x[i])
        said = f"{one_line(self.item.name)}: {show(value)}{between} at {where}"
        return tag("title", said, data_i=str(i))

    def group(self, parts: Sequence[Markup]) -> Markup:
        """The drawn parts as one element."""
        return tag("g", *parts, **series_class(self.index, self.item))


def _line(drawn: _Drawn) -> Markup:
    item, plot = drawn.item, drawn.plot
    intervals = [(i, drawn.interval(i)) for i in range(len(item.y))]
    parts = [_band(run, plot) for run in runs(intervals)]
    points = [(i, finite(value)) for i, value in enumerate(item.y)]
    for run in runs(points):
        path = "M" + "L".join(f"{plot.x(i):.1f} {plot.y(y):.1f}" for i, y in run)
        parts.append(tag("path", class_="line", d=path))
    return drawn.group([*parts, *(_mark(drawn, i, y) for i, y in points if y is not None)])


def runs(points: Sequence[tuple[int, V | None]]) -> list[list[tuple[int, V]]]:
    """The points between gaps."""
    found: list[list[tuple[int, V]]] = [[]]
    for index, value in points:
        if value is not None:
            found[-1].append((index, value))
        elif found[-1]:
            found.append([])
    return [run for run in found if run]


def _band(run: Sequence[tuple[int, tuple[float, float]]], plot: Plot) -> Markup:
    over = [f"{plot.x(i):.1f} {plot.y(high):.1f}" for i, (_, high) in run]
    under = [f"{plot.x(i):.1f} {plot.y(low):.1f}" for i, (low, _) in reversed(run)]
    return tag("path", class_="band", d=f"M{'L'.join([*over, *under])}Z")


def _mark(drawn: _Drawn, i: int, value: float) -> Markup:
    plot, title = drawn.plot, drawn.tip(i, value)
    if drawn.item.dashed:
        radius = min(plot.slot / 2, 8.0)
        return tag("circle", title, class_="hit", cx=plot.x(i), cy=plot.y(value), r=radius)
    shape = MARKER_PATHS[MARKERS[drawn.index % len(MARKERS)]]
    small = " scale(.65)" if plot.slot < _TIGHT else ""
    place = f"translate({plot.x(i):.1f} {plot.y(value):.1f}){small}"
    return tag("path", title, class_="mark", d=shape, transform=place)


def _bars(drawn: _Drawn) -> Markup:
    """One series of bars; a dashed one is a short line across each position."""
    draw = _level_line if drawn.item.dashed else _bar
    values = [(i, finite(value)) for i, value in enumerate(drawn.item.y)]
    return drawn.group([draw(drawn, i, value) for i, value in values if value is not None])


def _level_line(drawn: _Drawn, i: int, value: float) -> Markup:
    plot = drawn.plot
    half, middle, y = plot.slot * 0.44, plot.x(i), plot.y(value)
    title = drawn.tip(i, value)
    return tag("line", title, class_="line", x1=middle - half, x2=middle + half, y1=y, y2=y)


def _bar(drawn: _Drawn, i: int, value: float) -> Markup:
    plot = drawn.plot
    solid = [index for index, item in enumerate(drawn.figure.series) if not item.dashed]
    thick = min(plot.slot * 0.8 / len(solid), _THICKEST)
    left = plot.x(i) + (solid.index(drawn.index) - len(solid) / 2 + 0.05) * thick
    zero = plot.y(min(max(0.0, plot.low), plot.high))
    top, bottom = sorted((plot.y(value), zero))
    shape = {"x": left, "y": top, "width": thick * 0.9, "height": max(bottom - top, 1.0)}
    bar = tag("rect", drawn.tip(i, value), class_="bar", **shape)
    return join([bar, _whisker(drawn.interval(i), left + thick * 0.45, thick, plot)])


def _whisker(ends: tuple[float, float] | None, x: float, thick: float, plot: Plot) -> Markup:
    if ends is None:
        return Markup("")
    bottom, top = plot.y(ends[0]), plot.y(ends[1])
    left, cap = x - min(thick * 0.22, 5.0), 2 * min(thick * 0.22, 5.0)
    caps = f"M{left:.1f} {top:.1f}h{cap:.1f}M{left:.1f} {bottom:.1f}h{cap:.1f}"
    return tag("path", class_="whisker", d=f"M{x:.1f} {top:.1f}V{bottom:.1f}{caps}")


def series_class(index: int, item: Series) -> dict[str, str]:
    """A series' colour; a baseline or chance level is black or white, with dashes of its own."""
    look = (
        f"reference dashed d{index % len(DASHES)}"
        if item.dashed
        else f"c{index % len(SERIES_LIGHT)}"
    )
    return {"class_": f"s {look}", "data_series": str(index)}


def _legend_item(index: int, item: Series, kind: str) -> Markup:
    look = series_class(index, item)
    swatch = tag("svg", _swatch(index, item, kind), width=22, height=12, aria_hidden="true")
    name = tag("span", one_line(item.name))
    return tag("button", swatch, name, type="button", aria_pressed="false", **look)


def _swatch(index: int, item: Series, kind: str) -> Markup:
    if kind == "bar" and not item.dashed:
        return tag("rect", class_="bar", x=5, y=1, width=11, height=10)
    line = tag("path", class_="line", d="M1 6H21")
    if item.dashed:
        return line
    shape = MARKER_PATHS[MARKERS[index % len(MARKERS)]]
    mark = tag("path", class_="mark", d=shape, transform="translate(11 6)")
    return mark if kind == "scatter" else join([line, mark])
