"""The viewer's pages of figures in a real browser: data never runs, the keyboard reaches all.

One Chromium for all of them; skipped where there is none.
"""

from __future__ import annotations

import asyncio
import re
import runpy
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn
from tests._browser import needs_browser
from tests.unit import _view_figures as planted
from tests.unit._view_pages import make_run

from vlmlens.results import Glance
from vlmlens.samples import Sample
from vlmlens.view.access import Access
from vlmlens.view.app import make_app
from vlmlens.view.shown_run import ShownRun
from vlmlens.view.viewer import Viewer

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

    from vlmlens.runs.run import Run

UNIT = Path(__file__).parents[1] / "unit"
MARK = "document.documentElement.dataset.pwned='yes'"
EVIL = (
    f"""'"></title></style></svg><script>{MARK}</script><img src=x onerror="{MARK}">{"x" * 150}"""
)
LOOKS = [(1280, 800, "light"), (390, 844, "dark")]
PAGES = [
    "/runs/0", "/runs/0/analyses/probe?subject=color", "/runs/0/analyses/sae", "/runs/0/features",
    "/beside?runs=0,1", "/beside?runs=0,1&tests=1", "/runs/0/analyses/nothing",
]  # fmt: skip

pytestmark = needs_browser


@contextmanager
def served(*runs: Run) -> Iterator[Access]:
    """The app on a free port of this machine, in a thread."""
    with socket.socket() as at:
        at.bind(("127.0.0.1", 0))
        access = Access("127.0.0.1", at.getsockname()[1])
        shown = [ShownRun(run, number) for number, run in enumerate(runs)]
        config = uvicorn.Config(
            make_app(Viewer(shown), access), log_level="error", lifespan="off", access_log=False
        )
        server = uvicorn.Server(config)
        serving = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[at])))
        serving.start()
        yield access
        server.should_exit = True
        serving.join()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """One with many analyses, one with other answers, and one with scripts in all data."""
    folder = tmp_path_factory.mktemp("runs")
    many = [replace(planted.small(), analysis=f"probe:{i}") for i in range(20)]
    results = [planted.small(), planted.drawn(), planted.answered(["red", "blue", "red"]), *many]
    html_tests = runpy.run_path(str(UNIT / "test_report_html.py"))
    cells = [Glance(EVIL, EVIL, EVIL, beside=EVIL)]
    bad = [replace(html_tests["evil_result"](EVIL), overview=cells)]
    seen = Sample(EVIL, EVIL, planted.SAMPLES[0].images, EVIL, task=EVIL)
    return [
        make_run(folder / "many", planted.SAMPLES, results),
        make_run(folder / "other", planted.SAMPLES, [planted.answered(["red", "red", "blue"])]),
        make_run(folder / "evil", [seen], bad),
        make_run(folder / "evil2", [seen], bad),
    ]


@pytest.fixture(scope="module")
def access(runs: list[Run]) -> Iterator[Access]:
    with served(*runs) as known:
        yield known


@contextmanager
def opened(browser: Browser, access: Access, **options: Any) -> Iterator[tuple[Page, str]]:
    """A page that holds the token, and the app's address; nothing is said, nor asked elsewhere."""
    said: list[str] = []
    root = f"http://127.0.0.1:{access.port}"
    size = {"width": 1280, "height": 800}
    context: BrowserContext = browser.new_context(**{"viewport": size, **options})
    page = context.new_page()
    page.set_default_timeout(30_000)
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: said.append(request.url))
    assert context.request.get(access.url).ok  # the context holds the token then
    yield page, root
    context.close()
    wanted = ("data:", root, "Failed to load resource: the server responded with a status of 404")
    assert [text for text in said if not text.startswith(wanted)] == []


UNREADABLE = """() => {
  const part = (c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (color) => {
    const [r, g, b] = numbers(color).map((each) => part(each / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const color = getComputedStyle(each).backgroundColor;
      if (numbers(color)[3] !== 0) return color;
    }
    return getComputedStyle(document.body).backgroundColor;
  };
  const other = "svg, .unseen, caption, :disabled, script";
  const isText = (node) => node.nodeType === 3 && node.textContent.trim();
  const found = new Set();
  for (const element of document.querySelectorAll("body *")) {
    if (![...element.childNodes].some(isText) || element.closest(other)) continue;
    if (!element.checkVisibility()) continue;
    const sides = [getComputedStyle(element).color, ground(element)].map(light);
    const contrast = (Math.max(...sides) + 0.05) / (Math.min(...sides) + 0.05);
    const said = `${element.tagName} ${element.className} ${element.textContent}`;
    if (contrast < 4.5) found.add(`${contrast.toFixed(2)} ${said.slice(0, 60)}`);
  }
  return [...found];
}"""
UNNAMED = """() => [...document.querySelectorAll("a, button, input:not([type=hidden]), select")]
  .filter((each) => each.checkVisibility() && !each.textContent.trim())
  .filter((each) => !each.labels?.length && !each.ariaLabel).length"""
MOVING = """() => [...document.querySelectorAll("*")]
  .filter((each) => parseFloat(getComputedStyle(each).transitionDuration) > 0).length"""
WIDTHS = """() => Promise.all([...document.querySelectorAll(".feature-page image")].map((each) => {
  const shown = new Image();
  shown.src = each.getAttribute("href");
  return shown.decode().then(() => shown.naturalWidth);
}))"""


@pytest.mark.parametrize(("width", "height", "scheme"), LOOKS)
def test_pages_fit_and_can_be_read(
    browser: Browser, access: Access, width: int, height: int, scheme: str
) -> None:
    size = {"width": width, "height": height}
    with opened(browser, access, viewport=size, color_scheme=scheme) as (page, root):
        for address in PAGES:
            page.goto(root + address)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), address
            assert page.evaluate(UNREADABLE) == [], address
            assert page.locator("h1").count() == 1
            assert page.evaluate(UNNAMED) == 0, f"{address}: controls without a name"
        page.evaluate(
            "document.querySelector('h1').style.cssText = 'color: #999; background: #aaa'"
        )
        assert len(page.evaluate(UNREADABLE)) == 1, "the check sees what cannot be read"


def test_nothing_in_data_runs(browser: Browser, access: Access) -> None:
    addresses = ["/runs/2", "/runs/2/features", "/beside?runs=2,3&tests=1", "/runs/2/samples"]
    """Nor do long words make a page wider than a phone."""
    size = {"width": 390, "height": 844}
    with opened(browser, access, viewport=size) as (page, root):
        page.goto(f"{root}/runs/2")
        links = page.locator("a[href*='/analyses/']").all()
        addresses += [str(link.get_attribute("href")) for link in links]
        for address in dict.fromkeys(addresses):
            page.goto(root + address)
            for summary in page.locator("main summary").all():
                summary.click()
            page.evaluate(
                "for (const each of document.querySelectorAll('main thead button, figure button'))"
                " each.click()"
            )
            page.wait_for_timeout(100)
            assert "<script>" in page.locator("body").inner_text(), address
            assert not page.evaluate("'pwned' in document.documentElement.dataset"), address
            assert page.locator("main script:not([type])").count() == 0
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), address


def test_a_cell_leads_to_its_finding_and_its_table_to_other_rows(
    browser: Browser, access: Access
) -> None:
    from playwright.sync_api import expect

    with opened(browser, access) as (page, root):
        page.goto(f"{root}/runs/0")
        row = page.locator(".overview tbody tr", has_text="color")
        cell = row.locator("a.evidence[href*=probe]").first
        cell.focus()
        cell.press("Enter")
        page.wait_for_url("**/analyses/probe*")
        assert "color is read." in page.locator("li:target").inner_text()
        table = page.locator("#table-0")
        table.locator("summary").press("Enter")
        first, count = table.locator("tbody tr").first, table.locator(".pager .count")
        table.get_by_role("button", name="Next").press("Enter")
        count.get_by_text("51 to 100 of 1,234").wait_for()
        assert first.locator("td").last.inner_text() == "50"
        table.get_by_role("button", name="score").click()
        count.get_by_text("1 to 50 of 1,234").wait_for()
        assert first.locator("td").first.inner_text() == "0"
        head = table.locator("th[aria-sort]")
        assert head.get_attribute("aria-sort") == "ascending"
        table.get_by_role("button", name="score").click()
        expect(first.locator("td").first).to_have_text("123.3", timeout=30_000)
        assert head.get_attribute("aria-sort") == "descending"
        table.get_by_label("rows with").fill("Word 12")
        count.get_by_text(re.compile("1 to 50 of 9")).wait_for()
        table.get_by_label("rows with").fill("nothing")
        count.get_by_text("No row fits.").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_commands_are_copied_and_it_is_said(browser: Browser, access: Access) -> None:
    allowed = ["clipboard-read", "clipboard-write"]
    with opened(browser, access, permissions=allowed) as (page, root):
        page.goto(f"{root}/runs/0/analyses/probe")
        button = page.get_by_role("button", name="Copy as command")
        button.press("Enter")
        page.locator("#said", has_text="Copied").wait_for()
        command = page.locator("#repeat code").first.inner_text()
        assert page.evaluate("navigator.clipboard.readText()") == command
        assert command.startswith("vlmlens analyze ")


def test_the_keyboard_reaches_the_content_and_the_pages(browser: Browser, access: Access) -> None:
    size = {"width": 390, "height": 844}
    with opened(browser, access, viewport=size, reduced_motion="reduce") as (page, root):
        page.goto(f"{root}/runs/0")
        page.keyboard.press("Tab")
        skip = page.locator(".skip")
        assert skip.evaluate("(each) => each === document.activeElement")
        assert (skip.bounding_box() or {})["y"] >= 0
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        inside = page.evaluate("document.querySelector('main').contains(document.activeElement)")
        assert inside
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid"
        assert not page.locator("nav").is_visible()
        menu = page.get_by_role("button", name="Pages")
        menu.press("Enter")
        assert page.locator("nav a").count() > 24
        last = page.locator("nav a").last
        last.scroll_into_view_if_needed()
        box = last.bounding_box() or {}
        assert 0 < box["y"] < 844
        page.keyboard.press("Escape")
        assert not page.locator("nav").is_visible()
        assert menu.evaluate("(each) => each === document.activeElement")
        assert page.evaluate(MOVING) == 0


def test_features_are_searched(browser: Browser, access: Access) -> None:
    with opened(browser, access) as (page, root):
        page.goto(f"{root}/runs/0/features")
        assert page.locator(".feature-page h4").inner_text().startswith("Feature 7")
        field = page.get_by_label("number, name, label")
        field.fill("40")
        field.press("Enter")
        page.wait_for_url("**/features?of=0&find=40")
        assert page.locator(".feature-page h4").inner_text().startswith("Feature 40")
        assert page.locator(".list button").count() == 1
        assert page.get_by_label("number, name, label").input_value() == "40"
        images = page.locator(".feature-page image")
        assert images.count() > 0
        sizes = page.evaluate(WIDTHS)
        assert min(sizes) > 0
        page.locator("select[name=active]").select_option("never")
        page.wait_for_url("**active=never*")
        page.get_by_text("0 features of 3").wait_for()
