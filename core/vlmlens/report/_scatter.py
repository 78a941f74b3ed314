"""Points in spaces of two or three axes: an SVG that the page's script turns and reads out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import hypot
from typing import Any

from vlmlens._clean import clean
from vlmlens.report._charts import MARKER_PATHS, legend, series_class
from vlmlens.report._embed import Words, data_block, rounded
from vlmlens.report._markup import Markup, join, tag
from vlmlens.report._pictures import TINY, Pictures
from vlmlens.report._text import cut, one_line, plural
from vlmlens.report._theme import MARKERS
from vlmlens.results import Figure, ScatterPoint, ScatterSpace, Series

MOST_POINTS = 1000
_SIDE = 420.0
_EDGE = 18.0
_LONGEST, _LONGEST_AXIS = 240, 40
_TURN, _TILT = {"min": "-180", "max": "180"}, {"min": "-90", "max": "90"}


def draw_scatter(figure: Figure, pictures: Pictures) -> Markup:
    """A figure of kind "scatter"; its first points if there are very many.

    Args:
        figure: What to draw.
        pictures: The samples' pictures.
    """
    if not figure.points or not figure.spaces:
        return tag("p", "Nothing to draw.", class_="muted")
    points = figure.points[:MOST_POINTS]
    left_out = len(figure.points) - len(points)
    note = f"{plural(left_out, 'more point')} are in the results only." if left_out else ""
    tip = tag("div", class_="tip", role="status")
    return join(
        [
            legend(_as_series(figure)),
            tag("div", *_controls(figure), class_="live controls"),
            tag("div", _drawn(figure, points), tag("div", tip, class_="live"), class_="shown"),
            tag("p", note, class_="muted") if note else "",
            data_block(_data(figure, points, pictures), "scatter-data"),
        ]
    )


def scaled(space: ScatterSpace) -> list[list[float]]:
    """The places of a space, at most 1 away from the middle of its axes, by one scale for all."""
    columns = list(zip(*space.places, strict=True))
    middles = [(min(column) + max(column)) / 2 for column in columns]
    moved = [[x - m for x, m in zip(place, middles, strict=True)] for place in space.places]
    far = max((hypot(*place) for place in moved), default=0.0) or 1.0
    return [[x / far for x in place] for place in moved]


def _as_series(figure: Figure) -> Figure:
    """The kinds as series, for their legend."""
    return replace(figure, x=(), points=(), spaces=(), series=[Series(n, ()) for n in figure.x])


def _controls(figure: Figure) -> list[Markup]:
    names = [one_line(space.name) for space in figure.spaces]
    options = [tag("option", name, value=str(i)) for i, name in enumerate(names)]
    parts = [_control("in", tag("select", *options, data_role="space"))]
    if any(len(space.axes) > 2 for space in figure.spaces):
        for role, ends in (("turn", _TURN), ("tilt", _TILT)):
            slider = tag("input", type="range", data_role=role, step="5", value="0", **ends)
            parts.append(_control(role, slider))
    return parts


def _control(name: str, element: Markup) -> Markup:
    return tag("label", tag("span", name), element)


def _drawn(figure: Figure, points: Sequence[ScatterPoint]) -> Markup:
    """The first two axes of the first space."""
    space = figure.spaces[0]
    marks = [
        _mark(figure, point, place) for point, place in zip(points, scaled(space), strict=False)
    ]
    across, up = (cut(one_line(name), _LONGEST_AXIS) for name in space.axes[:2])
    return tag(
        "svg",
        tag("text", up, class_="axis-name up", x=0.0, y=11.0),
        tag("text", across, class_="axis-name across", x=_SIDE, y=_SIDE - 2, text_anchor="end"),
        tag("path", class_="base", d=f"M0 {_SIDE / 2}H{_SIDE}M{_SIDE / 2} {_EDGE}V{_SIDE - _EDGE}"),
        *marks,
        viewBox=f"0 0 {_SIDE:.0f} {_SIDE:.0f}",
        width=_SIDE,
        height=_SIDE,
        role="img",
        aria_label=_summary(figure, points),
    )


def _summary(figure: Figure, points: Sequence[ScatterPoint]) -> str:
    kinds = ", ".join(
        f"{sum(point.kind == number for point in points)} of {one_line(name)}"
        for number, name in enumerate(figure.x)
    )
    return f"{one_line(figure.title)}. {plural(len(points), 'point')}: {kinds}."


def _mark(figure: Figure, point: ScatterPoint, place: Sequence[float]) -> Markup:
    x, y = (
        _SIDE / 2 + sign * (_SIDE / 2 - _EDGE) * v
        for sign, v in zip((1, -1), place[:2], strict=True)
    )
    kind = one_line(figure.x[point.kind])
    told = tag("title", cut(one_line(f"{point.sample}: {kind}"), _LONGEST))
    look = series_class(point.kind, Series("", ()))
    shape = MARKER_PATHS[MARKERS[point.kind % len(MARKERS)]]
    mark = tag("path", told, class_="mark", d=shape)
    return tag("g", mark, transform=f"translate({x:.1f} {y:.1f})", **look)


def _data(figure: Figure, points: Sequence[ScatterPoint], pictures: Pictures) -> dict[str, Any]:
    words = Words()
    return {
        "points": [
            [
                words.number(cut(one_line(point.sample), _LONGEST)),
                words.number(cut(clean(point.tip), _LONGEST)),
                pictures.number(point.sample, 0, TINY),
            ]
            for point in points
        ],
        "kinds": [one_line(name) for name in figure.x],
        "spaces": [
            {
                "axes": [cut(one_line(name), _LONGEST_AXIS) for name in space.axes],
                "places": [
                    [rounded(x, 3) for x in place] for place in scaled(space)[: len(points)]
                ],
            }
            for space in figure.spaces
        ],
        "words": words.listed(),
        "middle": _SIDE / 2,
        "reach": _SIDE / 2 - _EDGE,
    }
