"""The sample browser in a real browser: by keyboard, on a phone, with hostile data."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from tests._browser import needs_browser
from tests.unit._view_pages import make_run, planted, planted_results

from tests import _program

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

MARK = "document.documentElement.dataset.pwned='yes'"
EVIL = f"""'"></title></style></svg></option><script>{MARK}</script><img src=x onerror="{MARK}">"""

pytestmark = needs_browser
Open = Callable[..., "Page"]


@pytest.fixture(scope="module")
def score(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    return np.asarray(planted(tmp_path_factory.mktemp("again"))[1]["score"])


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("view")
    samples, values = planted(folder / "pictures")
    odd = {"prompt": EVIL, "label": EVIL, "task": EVIL, "attributes": {EVIL: EVIL}}
    samples[11] = replace(samples[11], choices=(EVIL, "javascript:alert(1)"), **odd)
    samples[13] = replace(samples[13], prompt="W" * 4_000, label="\u202egnp.exe")
    results = planted_results(samples, values)
    table = replace(results[1].tables[0], title=EVIL)
    results[1] = replace(results[1], title=EVIL, tables=[table])
    run = make_run(folder / "run", samples, results)
    with _program.started("view", run.path, "--no-open", cwd=folder) as program:
        program.until(lambda: "\n" in program.said()[0])
        found = re.search(r"http://\S+", program.said()[0])
        assert found
        yield found[0]
        os.kill(program.pid, signal.SIGINT)
        program.wait(20)


@pytest.fixture
def show(browser: Browser, address: str) -> Iterator[Open]:
    """Opens a page of the app, on which nothing may be reported to the console."""
    said: list[str] = []
    contexts = []

    def opened(path: str, width: int = 1280, quiet: bool = True, **options: object) -> Page:
        size = {"width": width, "height": 844}
        context = browser.new_context(viewport=size, **options)  # type: ignore[arg-type]
        contexts.append(context)
        page = context.new_page()
        if quiet:
            page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        assert context.request.get(address).ok  # the context holds the token then
        page.goto(f"{address.partition('/?')[0]}{path}")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert said == []


def listed(page: Page) -> list[int]:
    return [int(each.get_attribute("value") or -1) for each in page.locator("ol.rows > li").all()]


def wait_for(page: Page, count: int) -> None:
    page.get_by_text(f"{count} of 240 samples").first.wait_for()


def test_a_sample_is_found_and_left_by_keyboard_alone(show: Open, score: np.ndarray) -> None:
    page = show("/runs/0/samples")
    assert listed(page) == list(range(50))
    page.keyboard.press("/")
    page.keyboard.type("thing 2")
    wait_for(page, 51)
    page.locator('[data-role="column"]').focus()
    page.locator('[data-role="column"]').select_option(label="score")
    page.locator('[data-role="value"]').focus()
    page.keyboard.type("0.5")
    page.keyboard.press("Enter")
    numbers = [i for i in range(240) if f"thing {i}".startswith("thing 2") and score[i] >= 0.5]
    wait_for(page, len(numbers))
    assert listed(page) == numbers
    asked = parse_qs(urlsplit(page.url).query)
    assert asked == {"q": ["thing 2"], "where": ["blind-test/answers/score>=0.5"]}
    page.reload()
    assert listed(page) == numbers
    page.locator("h1").click()
    for key in ("ArrowDown", "ArrowDown", "j", "k", "Enter"):
        page.keyboard.press(key)
    page.locator(".one-sample").wait_for()
    page.wait_for_load_state()
    assert f"/samples/{numbers[1]}?" in page.url
    page.keyboard.press("ArrowRight")
    page.wait_for_url(f"**/samples/{numbers[2]}?*")
    page.keyboard.press("ArrowLeft")
    page.wait_for_url(f"**/samples/{numbers[1]}?*")


def test_more_samples_come_below_and_the_first_new_one_is_reached(show: Open) -> None:
    page = show("/runs/0/samples?task=color")
    page.locator("a.more").focus()
    page.keyboard.press("Enter")
    page.locator("ol.rows > li").nth(99).wait_for()
    assert listed(page) == list(range(0, 200, 2))
    assert page.evaluate("document.activeElement.closest('li').value") == 100
    page.locator("a.more").click()
    page.locator("ol.rows > li").nth(118).wait_for()
    assert page.locator("a.more").count() == 0


def test_a_wrong_condition_is_told_and_can_be_mended(show: Open) -> None:
    page = show("/runs/0/samples", quiet=False)
    page.locator('[data-role="column"]').select_option(label="score")
    page.locator('[data-role="sign"]').select_option(">=")
    page.locator('[data-role="value"]').fill("lots")
    with page.expect_response("**/samples/rows?*") as found:
        page.locator('[data-role="add"]').click()
    assert found.value.status == 422
    page.get_by_text("is no number").first.wait_for()
    page.locator('[data-role="task"]').select_option("color")
    wait_for(page, 120)


def test_the_first_slices_need_no_scripts(show: Open) -> None:
    page = show("/runs/0/samples?task=color", java_script_enabled=False)
    assert listed(page) == list(range(0, 100, 2))
    page.locator("a.more").click()
    assert listed(page) == list(range(100, 200, 2))
    page.locator("ol.rows a").first.click()
    assert "What color has thing 100?" in page.locator("main").inner_text()


def test_pages_fit_and_nothing_in_the_data_runs(show: Open) -> None:
    """On a phone, too: no script of the pages asks how wide the screen is."""
    page = show("/runs/0/samples?where=blind-test/answers/right=wrong")
    for number in (None, 0, 1, 11, 13):
        if number is not None:
            page.goto(re.sub(r"/samples.*", f"/samples/{number}", page.url))
        page.wait_for_load_state("networkidle")
        for width in (390, 1280):
            page.set_viewport_size({"width": width, "height": 844})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert not page.evaluate("'pwned' in document.documentElement.dataset")


def test_patches_and_regions_are_shown_and_hidden(show: Open) -> None:
    page = show("/runs/0/samples/1")
    grid, region = page.locator("path.patch-grid"), page.locator("path.region")
    assert not grid.is_visible()
    assert region.is_visible()
    page.locator("input.show-g0").check()
    page.locator("input.show-regions").uncheck()
    assert grid.is_visible()
    assert not region.is_visible()
    assert page.evaluate("[...document.querySelectorAll('.pictured image')].length") == 1
