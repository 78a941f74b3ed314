"""Pages of features in a real browser: searching, clicking a patch, keys, a phone's width."""

from __future__ import annotations

import io
import runpy
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.end_to_end import test_report_browser as report
from tests.unit import _report_features as examples

from vlmlens.report import html
from vlmlens.results import Result

UNIT = Path(__file__).parents[1] / "unit"
SAMPLES = runpy.run_path(str(UNIT / "test_report_examples.py"))["samples"](3)
FIGURE = examples.features(SAMPLES)

pytestmark = report.pytestmark
show = report.show


def source() -> str:
    results = [Result("sae", "Features", figures=[FIGURE])]
    return html.render(results, title="t", facts={}, spec_yaml="", samples=SAMPLES)


def listed(page: Any) -> list[str]:
    buttons = page.locator("figure.features .list button b")
    return [str(text) for text in buttons.all_inner_texts()]


def click_patch(page: Any, row: int, col: int, card: int = 0) -> None:
    picture = page.locator("figure.features svg.seen").nth(card)
    place = picture.bounding_box()
    at = {"x": place["width"] * (col + 0.5) / 4, "y": place["height"] * (row + 0.5) / 4}
    picture.click(position=at)


@pytest.mark.parametrize("width", [1280, 390])
def test_a_clicked_patch_leads_to_the_features_that_fire_there(
    show: report.Open, width: int
) -> None:
    page = show(source(), width=width)
    assert listed(page) == ["7", "40", "41"]
    click_patch(page, 1, 1)
    assert listed(page) == ["40", "7"], "strongest first"
    assert page.locator(".list button i").all_inner_texts() == ["2", "1.5"]
    assert page.locator(".found").inner_text() == "Fires in patch 6 of demo-0-color:"
    assert page.locator(".list").bounding_box()["y"] >= 0
    assert page.locator("rect.chosen").count() == 1
    page.locator(".list button").first.click()
    assert page.locator(".feature-page h4").inner_text().startswith("Feature 40")
    click_patch(page, 3, 3)
    assert listed(page) == []
    assert "none of these features" in page.locator(".found").inner_text()
    page.locator(".clear").click()
    assert listed(page) == ["7", "40", "41"]
    assert page.locator("rect.chosen").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_features_are_searched_by_attribute_sample_number_and_token(show: report.Open) -> None:
    page = show(source())
    page.locator("[data-role=feature-label]").select_option("color: red")
    assert listed(page) == ["7"]
    assert page.locator(".list button i").inner_text() == "AUC 0.99"
    assert page.locator("[data-role=feature-label] option").count() == 2, "only what is significant"
    page.locator(".clear").click()
    page.locator("[data-role=feature-sample]").select_option("demo-0-number")
    assert listed(page) == ["40", "7"]
    page.locator(".clear").click()
    for typed, found in {
        "40": ["40"],
        "color: red": ["7"],
        "\u2423red": ["7", "40"],
        "zz": [],
    }.items():
        page.locator("[data-role=feature-search]").fill(typed)
        assert listed(page) == found, typed
    assert page.locator(".found").inner_text() == "No feature fits."


def test_a_page_shows_numbers_samples_and_what_the_explainer_says(show: report.Open) -> None:
    page = show(source())
    shown = page.locator(".feature-page")
    text = shown.inner_text()
    for part in (
        "Feature 7", "color: red (AUC 0.99)", "best for color: red", "6.3 % of 128 rows",
        "mine.py:tell says, which nothing here tests", "Something red.\nReally.", "100 %",
        "\u2423red", "demo-0-color", "top 1", "Other samples where it fires",
    ):  # fmt: skip
        assert part in text, part
    assert shown.locator(".bar").count() == 2
    assert shown.locator(".context .lit").all_inner_texts() == ["color?"]
    shown.locator("button.near").click()
    assert shown.locator("h4").inner_text().startswith("Feature 40")
    assert "no name" in shown.locator("h4").inner_text()
    assert shown.locator(".lit-patch").count() == 4
    page.locator(".list button").nth(2).click()
    assert "It fires in none of the samples" in shown.inner_text()
    assert "No readout." in shown.inner_text()


def test_lists_and_pictures_are_used_with_the_keyboard(show: report.Open) -> None:
    page = show(source())
    page.locator(".list button").first.focus()
    page.keyboard.press("ArrowDown")
    assert page.locator(".feature-page h4").inner_text().startswith("Feature 40")
    picture, tip = page.locator("svg.seen").first, page.locator(".card .tip").first
    picture.focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp", "ArrowUp"):
        page.keyboard.press(key)
    assert tip.inner_text() == "patch 1: does not fire"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    assert tip.inner_text() == "patch 6: 2"
    page.keyboard.press("Enter")
    assert listed(page) == ["40", "7"]
    page.keyboard.press("ArrowRight")
    assert tip.inner_text() == "patch 7: 1.75", "the picture keeps the focus"


def test_what_fires_is_bright_and_the_rest_is_dark(show: report.Open) -> None:
    page = show(source())
    picture = page.locator("svg.seen").first
    with Image.open(io.BytesIO(picture.screenshot())) as opened:
        grey = opened.convert("L")
        wide, high = grey.size
        inside = [grey.getpixel((wide * x // 16, high * y // 16)) for x, y in ((6, 6), (7, 7))]
        outside = grey.getpixel((wide // 16, high // 16))
    plain = SAMPLES[0].open_images()[0].convert("L")
    side = plain.size[0]
    right = [plain.getpixel((side * x // 16, side * y // 16)) for x, y in ((6, 6), (7, 7))]
    assert inside == pytest.approx(right, abs=3), "what fires keeps its colours"
    assert outside == pytest.approx(0.38 * plain.getpixel((side // 16, side // 16)), abs=4)


def test_without_scripts_all_features_are_in_a_table(show: report.Open) -> None:
    page = show(source(), java_script_enabled=False)
    assert page.locator("figure.features tbody tr:visible").count() == 3
    assert page.locator("figure.features .looked:visible").count() == 0
