"""The HTML report in a real browser: data never runs, the page's own script does, it fits a phone.

Playwright drives a Chromium that is installed on the machine (`apt-get install chromium`); skipped
where there is none.
"""

from __future__ import annotations

import re
import runpy
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image
from tests._browser import needs_browser
from tests.unit import _report_scatter as scatter
from tests.unit import _report_sheets as sheets

from vlmlens.report import _markup, html
from vlmlens.results import Finding, Result

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

UNIT = Path(__file__).parents[1] / "unit"
EXAMPLES = runpy.run_path(str(UNIT / "test_report_examples.py"))
HTML_TESTS = runpy.run_path(str(UNIT / "test_report_html.py"))
MARK = "document.documentElement.dataset.pwned='yes'"
EVIL = f"""'"></title></style></svg><script>{MARK}</script><img src=x onerror="{MARK}">"""
POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
SAMPLES = EXAMPLES["samples"](4)

pytestmark = needs_browser
Open = Callable[..., "Page"]


@pytest.fixture
def show(browser: Browser, tmp_path: Path) -> Iterator[Open]:
    """Opens a page; at the end of the test nothing must have been reported on its console."""
    said: list[str] = []
    contexts = []

    def opened(
        source: str, *, quiet: bool = True, width: int = 1280, height: int = 900, **options: object
    ) -> Page:
        path = tmp_path / "page.html"
        path.write_text(source, encoding="utf-8")
        size = {"width": width, "height": height}
        context = browser.new_context(viewport=size, offline=True, **options)  # type: ignore[arg-type]
        contexts.append(context)
        page = context.new_page()
        if quiet:
            page.on("console", lambda message: said.append(message.text))
            page.on("pageerror", lambda error: said.append(str(error)))
            page.on("request", lambda request: said.append(request.url))
        page.goto(path.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    own = [text for text in said if not text.startswith(("data:", tmp_path.as_uri()))]
    assert own == []


@cache
def report() -> str:
    lens = sheets.result([sheets.lens(SAMPLES), sheets.patches(SAMPLES, words=("red", "blue"))])
    return html.render(
        [*EXAMPLES["examples"](), lens],
        title="A look inside demo",
        lead=[
            "4 images, 8 questions of demo:scenes",
            "LlavaForConditionalGeneration",
            "1 May 2026",
        ],
        facts=EXAMPLES["FACTS"],
        spec_yaml=EXAMPLES["SPEC"],
        samples=SAMPLES,
    )


def without_policy(source: str) -> str:
    changed = POLICY.sub("", source)
    assert changed != source
    return changed


def pwned(page: Page) -> bool:
    page.wait_for_timeout(200)
    return bool(page.evaluate("'pwned' in document.documentElement.dataset"))


def unescaped_page(monkeypatch: pytest.MonkeyPatch) -> str:
    with monkeypatch.context() as patch:
        patch.setattr(_markup, "escape", lambda value, quote: value)
        return str(HTML_TESTS["evil_page"](EVIL))


def use_everything(page: Page) -> None:
    """Point at, type into and choose from whatever there is."""
    for select in page.locator("select:visible").all():
        select.select_option(index=select.locator("option").count() - 1)
        select.select_option(index=0)
    for slider in page.locator("input[type=range]").all():
        slider.fill("2")
    for cell in page.locator("[data-at]:visible, figure.heatmap rect, figure.graph path").all()[
        :40
    ]:
        cell.dispatch_event("click")
        cell.dispatch_event("pointerover")
    for button in reversed(page.locator("button:visible, summary:visible").all()):
        button.click()
    for chart in page.locator("svg[data-slot]:visible").all():
        chart.press("ArrowRight")
    for link in page.locator("a.behind").all():
        link.click()


SIZES = [(1280, 800), (390, 844)]


def lowest_row(page: Page) -> float:
    place = page.locator(".overview tbody tr").last.bounding_box()
    assert place is not None
    return float(place["y"] + place["height"])


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_the_first_screen_has_the_overview_and_contents_that_stay_and_lead_to_every_section(
    show: Open, width: int, height: int
) -> None:
    page = show(report(), width=width, height=height)
    assert page.locator(".overview tbody tr").count() == 6
    assert lowest_row(page) <= height
    assert page.evaluate("scrollY") == 0
    links = page.locator("nav a")
    assert links.count() == page.locator("section").count()
    for link in links.all():
        link.press("Enter")
        assert page.locator("nav").bounding_box()["y"] == pytest.approx(0, abs=1)  # type: ignore[index]
        section = page.locator(str(link.get_attribute("href")))
        place = section.locator("h2").bounding_box()
        assert place is not None
        assert page.locator("nav").bounding_box()["height"] <= place["y"] + 1  # type: ignore[index]
        assert place["y"] < height
    later = without_policy(report()).replace("<h1>", '<h1 style="height: 500px">')
    assert lowest_row(show(later, width=width, height=height)) > height


def test_markup_in_data_does_not_run_even_without_the_policy(show: Open) -> None:
    page = show(without_policy(HTML_TESTS["evil_page"](EVIL)))
    use_everything(page)
    assert not pwned(page)
    assert page.evaluate("document.documentElement.className") == "js", "scripts could have run"
    for part in (
        ".findings", "figure.lens .view", "figure.patches .tip", "figure.features .list",
        "figure.features .feature-page", "figure.features .context", ".browser .samples",
    ):  # fmt: skip
        assert "<script>" in page.locator(part).first.inner_text(), part
    assert page.locator("main script:not([type])").count() == 0


def test_without_escaping_it_would_run(show: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    assert pwned(show(without_policy(unescaped_page(monkeypatch)), quiet=False))


def test_without_escaping_the_policy_still_stops_it(
    show: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = unescaped_page(monkeypatch)
    assert POLICY.search(source)
    assert not pwned(show(source, quiet=False))


def test_a_node_of_a_graph_shows_its_edges(show: Open) -> None:
    graph = runpy.run_path(str(UNIT / "test_report_graphs.py"))["GRAPH"]
    results = [Result("circuit", "Circuit", figures=[graph])]
    page = show(html.render(results, title="t", facts={}, spec_yaml=""))
    nodes, faded = page.locator("figure.graph .node"), page.locator("figure.graph .edge.faded")
    readout = page.locator("figure.graph .readout")
    nodes.nth(2).click()
    page.mouse.move(0, 0)
    assert faded.count() == 2
    assert "head 3, text rows → block 1 MLP, text rows: -0.100" in readout.inner_text()
    nodes.nth(2).click()
    page.mouse.move(0, 0)
    assert faded.count() == 0
    nodes.nth(1).press("Enter")
    assert faded.count() == 0, "all edges are of this node"
    assert len(readout.inner_text().splitlines()) == 4
    wide = page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert wide


def test_points_are_turned_and_read_with_mouse_and_keys(show: Open) -> None:
    drawn = scatter.points(SAMPLES)
    results = [Result("concepts", "Near", figures=[replace(drawn, spaces=drawn.spaces[::-1])])]
    page = show(html.render(results, title="t", facts={}, spec_yaml="", samples=SAMPLES))
    figure = page.locator("figure.scatter")
    marks, tip = figure.locator("g.s"), figure.locator(".tip")
    svg, names = figure.locator(".shown svg"), figure.locator("svg .axis-name")

    def places() -> list[str | None]:
        return [mark.get_attribute("transform") for mark in marks.all()]

    before = places()
    svg.press("ArrowRight")
    svg.press("ArrowRight")
    assert tip.inner_text().splitlines() == [SAMPLES[1].id, "green", SAMPLES[1].prompt]
    assert tip.locator("img").evaluate("image => image.naturalWidth") > 0
    assert figure.locator("g.s.at").count() == 1
    marks.last.hover()
    assert tip.inner_text().startswith(SAMPLES[-1].id)
    figure.locator("[data-role=turn]").fill("90")
    across = [float(re.findall(r"[-\d.]+", str(place))[0]) for place in places()]
    assert across == sorted(across), "the third axis lies across"
    assert names.all_text_contents() == ["turned", "PC1, PC2, PC3"]
    figure.locator("[data-role=turn]").fill("0")
    assert places() == before
    box = svg.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 20, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + 80, box["y"] + 60)
    page.mouse.up()
    assert places() != before
    assert figure.locator("[data-role=turn]").input_value() == "30"
    figure.locator("[data-role=space]").select_option("1")
    assert names.all_text_contents()[1] == "PC1"
    figure.locator(".legend button").first.click()
    assert figure.locator("g.s.faded").count() == 4


def test_tables_sort_and_legends_highlight(show: Open) -> None:
    page = show(report())
    table = page.locator("table", has=page.locator("caption", has_text="Accuracy and")).first
    button, cells = table.locator("thead button").nth(2), table.locator("tbody tr td:nth-child(3)")
    button.click()
    assert cells.all_inner_texts() == ["0.210", "0.260", "0.330", "0.500", "0.500", "0.800"]
    button.click()
    assert cells.first.inner_text() == "0.800"
    figure = page.locator("figure.line").first
    figure.locator(".legend button").first.click()
    assert figure.locator(".wide .faded").count() == 6


def test_charts_tell_their_numbers(show: Open) -> None:
    page = show(report())
    figure = page.locator("figure.line").first
    chart, readout = figure.locator("svg[data-slot]:visible"), figure.locator(".readout")
    chart.hover(position={"x": 500, "y": 100})
    lines = readout.inner_text().split("\n")
    assert len(lines) == 7
    assert re.fullmatch(r"color: 0\.\d+ \[0\.\d+, 0\.\d+\] at projector/.*", lines[0])
    chart.press("ArrowRight")
    assert readout.inner_text().split("\n")[0] != lines[0]
    assert chart.locator(".cross.on").count() == 1


def test_a_lens_is_filtered_by_sample_and_marks_a_token(show: Open) -> None:
    page = show(report())
    figure = page.locator("figure.lens")
    sample, count = figure.locator("[data-role=sheet]"), figure.locator(".count")
    assert count.inner_text() == "8 of 8"
    figure.locator(".facets select").first.select_option("number")
    assert count.inner_text() == "4 of 8"
    figure.locator("[data-role=filter]").fill("demo-2")
    assert sample.locator("option").all_inner_texts() == ["demo-2-number"]
    assert figure.locator(".question").inner_text() == "How many objects?"
    assert figure.locator(".view thead th").all_inner_texts() == [
        "layer",
        "How",
        "many",
        "objects?",
    ]
    colours = figure.locator(".view tbody tr td:nth-child(2)").evaluate_all(
        "cells => cells.map((cell) => getComputedStyle(cell).backgroundColor)"
    )
    assert len(set(colours)) == 4, "the colour follows the probability"
    figure.locator("[data-role=find]").fill("cube")
    assert set(figure.locator("td.sought").all_inner_texts()) == {"cube"}
    figure.locator(".view td").first.hover()
    assert "0.500\nother" in figure.locator(".tip").inner_text()
    figure.locator("[data-role=filter]").fill("nothing like it")
    assert figure.locator(".question").inner_text() == "No sample fits."


def test_a_map_follows_its_layer_slider(show: Open) -> None:
    page = show(report())
    figure = page.locator("figure.patches")
    patch, slider = figure.locator('rect[data-at="14"]'), figure.locator("[data-role=layer]")
    assert figure.locator("rect[data-at]").count() == 15, "one patch has no place"
    looks = []
    for layer in range(4):
        slider.fill(str(layer))
        assert figure.locator(".layer").inner_text() == f"llm.block.{layer}"
        looks.append(patch.get_attribute("class"))
    assert looks == ["patch h0", "patch h6", "patch h12", "patch h17"]
    patch.hover()
    tip = figure.locator(".tip")
    assert tip.inner_text().startswith("llm.block.3, row 3, column 2\nred")
    slider.fill("0")
    assert tip.inner_text().startswith("llm.block.0, row 3, column 2\ncube")
    place, picture = (
        figure.locator(name).bounding_box() for name in ('rect[data-at="14"]', ".view image")
    )
    assert place is not None
    assert picture is not None
    assert place["x"] - picture["x"] == pytest.approx(picture["width"] / 2, abs=2)
    assert place["y"] - picture["y"] == pytest.approx(picture["height"] * 3 / 4, abs=2)
    assert figure.locator(".view text", has_text="cube").count() > 0
    figure.locator("[data-role=words]").uncheck()
    assert "".join(figure.locator(".view text").all_text_contents()) == ""
    figure.locator(".facets select").nth(2).select_option("blue")
    assert figure.locator(".count").inner_text() == "8 of 16"


def test_findings_lead_to_the_samples_behind_them(show: Open) -> None:
    found = [Finding("One.", subject="color"), Finding("Two.", samples=["demo-3-number"])]
    page = show(
        html.render([Result("a", "A", found)], title="t", facts={}, spec_yaml="", samples=SAMPLES)
    )
    cards, count = page.locator(".browser article"), page.locator(".browser .count")
    assert count.inner_text() == "8 of 8 samples."
    assert cards.count() == 4, "questions on one picture share a card"
    assert cards.first.locator("img").count() == 1
    assert cards.first.locator("li").count() == 2
    page.locator("a.behind").first.click()
    assert count.inner_text() == "4 of 8 samples."
    assert page.url.endswith("#samples")
    page.locator("a.behind").nth(1).click()
    assert "demo-3-number" in cards.inner_text()
    page.locator("[data-role=search]").fill("how many")
    assert count.inner_text() == "4 of 8 samples."
    assert cards.locator("img").first.evaluate("image => image.naturalWidth") == 64


def test_it_is_readable_without_scripts(show: Open) -> None:
    page = show(report(), java_script_enabled=False)
    assert page.locator(".live:visible").count() == 0
    assert page.locator("figure.lens .still td:visible").count() > 50
    assert page.locator("figure.patches .still use").count() == 4
    assert page.locator("#samples article:visible").count() == 4
    assert '"words"' not in page.locator("body").inner_text()


@pytest.mark.parametrize("width", [390, 1280])
def test_all_can_be_used_under_the_policy_and_the_page_stays_as_wide_as_the_screen(
    show: Open, width: int
) -> None:
    wide = "document.documentElement.scrollWidth"
    page = show(report(), width=width)
    assert page.evaluate("document.documentElement.className") == "js"
    use_everything(page)
    assert page.evaluate(wide) == width
    broken = without_policy(report()).replace("<h1>", '<h1 style="width: 3000px">')
    assert show(broken, width=width).evaluate(wide) > width


@pytest.mark.parametrize(("scheme", "is_dark"), [("dark", True), ("light", False)])
def test_dark_screens_get_a_dark_page(
    show: Open, tmp_path: Path, scheme: str, is_dark: bool
) -> None:
    picture = tmp_path / "page.png"
    show(report(), color_scheme=scheme).screenshot(path=picture)
    with Image.open(picture) as opened:
        pixels = opened.convert("L")
        assert (pixels.getpixel((3, 3)) < 60) is is_dark
        low, high = pixels.getextrema()
        assert high - low > 150, "there is something to read"
