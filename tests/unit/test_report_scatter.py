"""Points in spaces: on the page, on paper, and as data."""

from __future__ import annotations

import io
import json
import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.unit._report_scatter import points

from vlmlens.report._figure import draw_figures
from vlmlens.report._pictures import TINY, Pictures
from vlmlens.report._scatter import MOST_POINTS, scaled
from vlmlens.report.figures import figure_png, figure_svg
from vlmlens.report.files import to_json
from vlmlens.results import Figure, Result, ScatterPoint, ScatterSpace
from vlmlens.samples import Sample

EVIL = "\"'></title></script><script>x()</script>\x1b[31m$a_b$\n"
SAMPLES = [
    Sample(f"s{i}", "What?", (Image.new("RGB", (64, 48), (40 * i, 9, 9)),)) for i in range(5)
]
FIGURE = points(SAMPLES)


def data_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" class="scatter-data">(.*?)</script>', page)
    assert found is not None
    made: dict[str, Any] = json.loads(found[1])
    return made


def test_points_lie_where_their_first_two_axes_say() -> None:
    page = draw_figures([FIGURE], pictures=Pictures(SAMPLES))
    found = re.findall(r'<g transform="translate\(([-\d.]+) ([-\d.]+)\)" class="s c', page)
    places = [(float(x), float(y)) for x, y in found]
    assert len(places) == 5
    steps = np.diff(places, axis=0)
    np.testing.assert_allclose(steps[:, 1] / steps[:, 0], -2, atol=0.05)  # up is less
    assert (steps[:, 0] > 0).all()
    middle = np.mean(places, axis=0)
    np.testing.assert_allclose(middle, [210, 210], atol=0.1)


def test_one_scale_holds_for_all_axes() -> None:
    space = ScatterSpace("x", ("a", "b"), [(0.0, 0.0), (10.0, 1.0), (5.0, 0.5)])
    found = np.array(scaled(space))
    far = math.hypot(5, 0.5)
    np.testing.assert_allclose(found, [(-5 / far, -0.5 / far), (5 / far, 0.5 / far), (0, 0)])
    alone = ScatterSpace("x", ("a", "b"), [(3.0, 3.0)])
    assert scaled(alone) == [[0.0, 0.0]]


def test_the_page_says_what_it_shows_and_holds_each_picture_once() -> None:
    pictures = Pictures(SAMPLES)
    page = draw_figures([FIGURE, replace(FIGURE, name="again")], pictures=pictures)
    assert "Samples by color. 5 points: 3 of red, 2 of green." in page
    assert page.count('data-role="turn"') == page.count('data-role="tilt"') == 2
    found = data_of(page)
    assert [point[2] for point in found["points"]] == [0, 1, 2, 3, 4]
    assert pictures.shown(4)[1:] == (64, 48)
    assert len(json.loads(str(pictures.block()).partition(">")[2].rpartition("<")[0])) == 5
    flat = replace(FIGURE, spaces=FIGURE.spaces[:1])
    assert "data-role" in draw_figures([flat])
    assert "turn" not in draw_figures([flat])


def test_pictures_and_points_are_bounded() -> None:
    samples = [
        Sample(f"s{i}", "?", (Image.effect_noise((300, 300), 90),)) for i in range(7)
    ]  # fmt: skip
    pictures = Pictures(samples, most=1)
    numbers = [pictures.number(sample.id, 0, TINY) for sample in samples]
    assert numbers == [0, 1, 2, 3, 4, 5, None]
    assert len(pictures.shown(0)[0]) < 12_000
    many = [ScatterPoint("s0", 0)] * (MOST_POINTS + 5)
    space = ScatterSpace("x", ("a", "b"), [(0.0, 0.0)] * len(many))
    page = draw_figures([Figure("m", "M", "scatter", ["k"], points=many, spaces=[space])])
    assert "5 more points are in the results only." in page
    assert page.count('class="s c0" data-series="0"><path') == MOST_POINTS
    assert len(data_of(page)["points"]) == MOST_POINTS


def test_text_of_data_stays_text() -> None:
    page = draw_figures([points(SAMPLES, EVIL)], pictures=Pictures(SAMPLES))
    assert "<script>x()" not in page
    assert "\x1b" not in page
    assert any("x()" in word for word in data_of(page)["words"])
    drawn = figure_svg(points(SAMPLES, EVIL)).decode()
    assert "<script>" not in drawn
    assert "$a_b$" in drawn


def test_paper_has_a_panel_for_each_pair_of_axes() -> None:
    wide = replace(FIGURE, spaces=FIGURE.spaces[::-1])
    sizes = [Image.open(io.BytesIO(figure_png(each))).size for each in (FIGURE, wide)]
    assert sizes[1][0] > 2 * sizes[0][0] * 0.9
    assert sizes[0][1] == sizes[1][1]
    svg = figure_svg(wide).decode()
    assert [svg.count(f">PC{axis}<") for axis in (1, 2, 3)] == [2, 2, 2]
    assert "green" in svg
    empty = Figure("e", "E", "scatter", [])
    assert figure_svg(empty).startswith(b"<?xml")
    assert "Nothing to draw" in draw_figures([empty])


def test_json_brings_back_the_same() -> None:
    result = Result("concepts", "Near", figures=[FIGURE])
    text = to_json(result)
    back = Result.from_dict(json.loads(text))
    assert to_json(back) == text
    assert back.figures[0].points == tuple(FIGURE.points)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"points": [ScatterPoint("s", 2)] * 5}, "none of its 2 kinds"),
        ({"points": [ScatterPoint("s", -1)] * 5}, "none of its 2 kinds"),
        ({"spaces": [ScatterSpace("x", ("a",), [(1.0,)] * 5)]}, "neither two axes nor three"),
        ({"spaces": [ScatterSpace("x", ("a", "b"), [(1.0, 2.0)] * 4)]}, "does not place its 5"),
        ({"spaces": [ScatterSpace("x", ("a", "b"), [(1.0,)] * 5)]}, "does not place its 5"),
        ({"spaces": [ScatterSpace("x", ("a", "b"), [(1.0, math.nan)] * 5)]}, "not finite"),
    ],
)
def test_points_without_a_place_are_refused(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(FIGURE, **changed)
