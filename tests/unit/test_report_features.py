"""Pages of features: on the page, on paper, in the terminal, and as data."""

from __future__ import annotations

import io
import json
import re
import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console
from tests.unit import _report_features as examples
from tests.unit.test_report_sheets import blocks, page

from vlmlens.report._features import feature_lines
from vlmlens.report._figure import draw_figures
from vlmlens.report._pictures import MIDDLE, Pictures
from vlmlens.report._views import panels_of
from vlmlens.report.figures import figure_png, figure_svg
from vlmlens.report.files import to_json
from vlmlens.report.terminal import print_maps
from vlmlens.results import (
    FeatureMap,
    FeaturePage,
    FeaturePlaces,
    FeatureSample,
    FeatureScene,
    Figure,
    Result,
)
from vlmlens.samples import Sample

EXAMPLES = runpy.run_path(str(Path(__file__).with_name("test_report_examples.py")))
SAMPLES: list[Sample] = EXAMPLES["samples"](3)
FIGURE = examples.features(SAMPLES)
RESULT = Result("sae", "Features", figures=[FIGURE])
EVIL = "\"'></title><script>x()</script>\x1b[31m$a_b$\n"
BOX = (0.0, 0.0, 0.5, 0.5)


def data_of(figure: Figure, samples: list[Sample] = SAMPLES) -> dict[str, Any]:
    (found,) = blocks(page([Result("sae", "S", figures=[figure])], samples))["features-data"]
    assert isinstance(found, dict)
    return found


def test_pages_survive_json_and_older_results_have_none() -> None:
    data = json.loads(to_json(RESULT))
    again = Result.from_dict(data)
    assert to_json(again) == to_json(RESULT)
    assert again.figures[0].pages[0].samples[0].maps[0].boxes == [(0.25, 0.25, 0.5, 0.5)]
    assert again.figures[0].scenes[1].places[0].fires[5] == ((40, 2.0), (7, 1.5))
    del data["figures"][0]["pages"], data["figures"][0]["scenes"]
    assert Result.from_dict(data).figures[0].pages == ()


def with_sample(**changes: Any) -> dict[str, Any]:
    return {"samples": [replace(FIGURE.pages[0].samples[0], **changes)]}


WRONG: list[dict[str, Any]] = [
    {"number": -1},
    {"density": 1.5},
    {"density": float("nan")},
    {"edges": [0.5, 1.0]},
    {"edges": [0.5, 0.5, 1.0]},
    {"raised": [("a", float("inf"))]},
    {"nearest": [(1, float("nan"))]},
    with_sample(value=float("nan")),
    with_sample(tokens=["a"]),
    with_sample(maps=[FeatureMap(0, "", [BOX], [])]),
    with_sample(maps=[FeatureMap(0, "", [BOX], [float("inf")])]),
]


@pytest.mark.parametrize("change", WRONG, ids=str)
def test_pages_that_contradict_themselves_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"feature -?\d+: "):
        replace(FIGURE.pages[0], **change)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"pages": [FIGURE.pages[0], FIGURE.pages[0]]}, "two pages"),
        ({"scenes": [FeatureScene("a", [(8, 1.0)])]}, r"names features \[8\]"),
        ({"scenes": [FeatureScene("a", [(7, float("nan"))])]}, "not finite"),
        ({"scenes": [FeatureScene("a", [], [FeaturePlaces(0, "", [BOX], [])])]}, "without a box"),
    ],
)
def test_scenes_that_do_not_fit_their_figure_are_refused(
    change: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ValueError, match=f"figure 'features': .*{problem}"):
        replace(FIGURE, **change)


def test_the_page_holds_texts_and_boxes_once_and_features_by_place() -> None:
    data = data_of(FIGURE)
    assert [page["number"] for page in data["features"]] == [7, 40, 41]
    assert len(data["boxes"]) == 16
    assert len(set(data["words"])) == len(data["words"])
    first, second = data["features"][:2]
    assert data["words"][first["name"]] == "color: red (AUC 0.99)"
    assert second["samples"][0]["panels"][0]["values"] == [2.0, 1.75]
    boxes = [data["boxes"][i] for i in second["samples"][0]["panels"][0]["boxes"]]
    assert boxes == [[0.25, 0.25, 0.5, 0.5], [0.5, 0.25, 0.75, 0.5]]
    (panel,) = data["scenes"][0]["panels"]
    clicked = panel["boxes"].index(data["boxes"].index([0.25, 0.25, 0.5, 0.5]))
    assert panel["fires"][clicked] == [[1, 2.0], [0, 1.5]]


def test_pictures_are_shared_and_each_feature_has_its_first_ones() -> None:
    pictures = [Sample(f"s{i}", "?", (Image.new("RGB", (8, 8), (i, 0, 0)),)) for i in range(30)]
    page = FIGURE.pages[0]
    own = [
        [FeatureSample(f"s{number * 10 + i}", "top", 1.0, maps=[FeatureMap(0, "", [BOX], [1.0])])
         for i in range(10)]
        for number in range(3)
    ]  # fmt: skip
    pages = [replace(page, number=i, samples=each, nearest=()) for i, each in enumerate(own)]
    figure = Figure("f", "F", "features", [], pages=pages)
    known = Pictures(pictures, most=2)
    draw_figures([figure], pictures=known)
    shown = [f"s{i}" for i in range(30) if known.number(f"s{i}", 0, MIDDLE) is not None]
    assert shown == ["s0", "s1", "s2", "s3", "s10", "s11", "s12", "s20", "s21", "s22"]


def test_views_that_overlap_are_drawn_over_copies_of_the_picture() -> None:
    halves = [FeatureMap(0, f"tile {i}", [(i / 2, 0, i / 2 + 0.5, 1)], [1.0]) for i in range(2)]
    whole, other = FeatureMap(0, "global", [(0, 0, 1, 1)], [1.0]), FeatureMap(1, "", [BOX], [1.0])
    nowhere = FeatureMap(0, "x", [None], [1.0])
    panels = panels_of([halves[0], whole, halves[1], other, nowhere])
    assert [(panel.image, [view for _, view in panel.views]) for panel in panels] == [
        (0, ["tile 0", "tile 1", "x"]), (0, ["global"]), (1, [""]),
    ]  # fmt: skip
    assert [panel.name for panel in panels] == ["3 views", "global", ""]


def test_without_scripts_there_is_a_table_of_all_features() -> None:
    still = page([RESULT]).split('class="still"')[1].split("</table>")[0]
    assert still.count("<tr>") == 4
    assert "color: red (AUC 0.99)" in still
    assert "drawn at random" in still


def test_no_feature_is_said() -> None:
    empty = Figure("f", "F", "features", [])
    assert "No feature is shown." in draw_figures([empty])
    assert figure_svg(empty).startswith(b"<?xml")
    assert "features-data" not in draw_figures([empty])


def test_text_of_data_stays_text() -> None:
    figure = examples.features(SAMPLES, EVIL)
    drawn = draw_figures([figure], pictures=Pictures(SAMPLES))
    assert "<script>" not in drawn
    assert "\x1b" not in drawn
    assert "$a_b$" in drawn
    assert b"$a_b$" in figure_svg(figure)
    console = Console(file=io.StringIO(), width=400)
    print_maps(Result("sae", "S", figures=[figure]), console)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b" not in said
    assert len(said.splitlines()) == 1 + 2 * 3


def test_the_terminal_says_name_or_reason_samples_and_tokens() -> None:
    console = Console(file=io.StringIO(), width=100)
    print_maps(RESULT, console)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines[1] == "  7  color: red (AUC 0.99)  fires in 6.25% of rows"
    assert lines[2] == "      samples: demo-0-color 2, demo-0-number 1.5; raises: \u2423red"
    assert lines[5] == "  41  no name; drawn at random  fires in 0.00% of rows"
    many = [replace(FIGURE.pages[2], number=i) for i in range(30)]
    print_maps(Result("s", "S", figures=[replace(FIGURE, pages=many, scenes=())]), console)
    assert console.file.getvalue().endswith("and 6 more features\n")  # type: ignore[attr-defined]


def test_on_paper_each_feature_has_a_histogram_and_equal_figures_are_equal() -> None:
    assert figure_svg(FIGURE) == figure_svg(FIGURE)
    assert b"7 color: red (AUC 0.99)" in figure_svg(FIGURE)
    assert b"does not fire" in figure_svg(FIGURE)
    assert figure_png(FIGURE).startswith(b"\x89PNG")


@settings(max_examples=30)
@given(st.data())
def test_any_page_is_drawn(data: st.DataObject) -> None:
    number = st.floats(-1e30, 1e30)
    box = st.none() | st.tuples(*[st.floats(-1, 2) | st.just(float("nan"))] * 4)
    patches = data.draw(st.lists(st.tuples(box, number), max_size=4))
    boxes, values = [box for box, _ in patches], [value for _, value in patches]
    one = FeatureMap(0, data.draw(st.text(max_size=3)), boxes, values)
    tokens = data.draw(st.lists(st.tuples(st.text(max_size=3), st.none() | number), max_size=4))
    sample = FeatureSample(
        data.draw(st.sampled_from([SAMPLES[0].id, "gone"])), "top 1", data.draw(number), {}, [one],
        [text for text, _ in tokens], [value for _, value in tokens],
    )  # fmt: skip
    shown = FeaturePage(3, "c", "w", 0.0, 0, samples=[sample], raised=[("t", data.draw(number))])
    figure = Figure("f", "F", "features", [], pages=[shown])
    (found,) = blocks(draw_figures([figure], pictures=Pictures(SAMPLES)))["features-data"]
    assert found["features"][0]["number"] == 3
    assert all(0 <= edge <= 1 for box in found["boxes"] for edge in box)
    assert not re.search(r"\b(nan|inf)\b", "".join(feature_lines(figure)))
