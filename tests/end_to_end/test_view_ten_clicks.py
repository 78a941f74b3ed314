"""`vlmlens view` as a new user meets it: what is seen and ignored, and an answer that flips."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import pytest
from safetensors.numpy import save_file
from tests._browser import needs_browser
from tests._demo_run import demo_run

from tests import _program

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

SECONDS = 120.0
WIDTH = 128

pytestmark = [pytest.mark.slow, needs_browser]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address that `vlmlens view` prints for the demo run; at the end it is told to stop."""
    run = demo_run(tmp_path_factory.mktemp("view"))
    about = {"vlmlens direction 1": json.dumps({"site": "llm.block.0", "rows": "last"})}
    vector = np.linspace(-1, 1, WIDTH, dtype=np.float32)
    save_file({"direction": vector}, run / "results" / "planted.safetensors", about)
    with _program.started("view", run, "--no-open", cwd=run.parent) as program:
        program.until(lambda: "\n" in program.said()[0])
        printed = program.said()[0]
        found = re.search(r"http://\S+", printed)
        assert found, printed
        yield found[0]
        os.kill(program.pid, signal.SIGINT)
        program.wait(20)


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page on which nothing may be reported to the console."""
    said: list[str] = []
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    made = context.new_page()
    made.on("console", lambda message: said.append(message.text))
    made.on("pageerror", lambda error: said.append(str(error)))
    yield made
    context.close()
    assert said == []


class Clicks:
    """Clicks that are counted; a drag is one."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.count = 0

    def on(self, place: Locator) -> None:
        place.click()
        self.count += 1

    def drag(self, over: Locator, rows: tuple[int, int], columns: tuple[int, int]) -> None:
        """Over the patches of rows and columns (from, to; both included), in one stroke."""
        box = over.bounding_box()
        assert box is not None
        mouse, (left, right) = self.page.mouse, columns

        def to(row: int, column: int, steps: int) -> None:
            x = box["x"] + (column + 0.5) / 8 * box["width"]
            mouse.move(x, box["y"] + (row + 0.5) / 8 * box["height"], steps=steps)

        to(rows[0], left, 1)
        mouse.down()
        for row in range(rows[0], rows[1] + 1):
            ways = (left, right) if row % 2 else (right, left)
            for column in ways:
                to(row, column, 12)
        mouse.up()
        self.count += 1


def until(page: Page, holds: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < end, page.inner_text("main")
        page.wait_for_timeout(50)


def open_live(page: Page, address: str) -> None:
    """Open the live page of the first sample, with the token, and wait for its answer."""
    assert page.context.request.get(address).ok
    page.goto(address.split("/?", maxsplit=1)[0] + "/live?run=0&sample=0")
    until(page, lambda: page.locator("#answer").is_visible())


def part(page: Page, role: str) -> Locator:
    return page.locator(f'[data-role="{role}"]')


def test_what_is_seen_and_ignored_is_found_and_an_answer_flips(address: str, page: Page) -> None:
    page.goto(address)
    assert "token" not in page.url
    clicks = Clicks(page)
    row = page.locator("main tbody tr", has=page.locator("th", has_text="surface"))
    assert "encoded" in row.inner_text()
    assert "ignores the image" in row.inner_text()
    assert "answered no better than by guessing" in page.locator(".notable").inner_text()

    clicks.on(row.locator("td a").last)
    assert "surface" in page.inner_text("main")
    clicks.on(page.get_by_role("link", name="Samples", exact=True))
    clicks.on(page.locator('main a[href*="/samples/0"]').first)
    clicks.on(page.get_by_role("link", name="Ask the model live"))
    until(page, lambda: page.locator("#answer").is_visible())
    assert part(page, "unedited").locator(".said").inner_text() == "red"

    clicks.drag(page.locator(".cover-grid"), (1, 6), (1, 6))
    until(page, lambda: "answer" in part(page, "difference").inner_text())
    until(page, lambda: page.locator('[aria-pressed="true"][data-patch]').count() == 36)
    until(page, lambda: "0.125,0.125,0.875,0.875" in page.inner_text('[data-command="shell"]'))
    assert "“red” became" in part(page, "difference").inner_text()
    assert part(page, "edited").locator(".said").inner_text() != "red"
    assert clicks.count <= 10


def test_patches_answer_to_keys_and_edits_can_be_taken_back(address: str, page: Page) -> None:
    open_live(page, address)
    assert "Cover patches" in part(page, "difference").inner_text()

    page.locator('[data-patch="0"]').focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Space")
    assert page.locator('[data-patch="9"]').get_attribute("aria-pressed") == "true"
    until(page, lambda: "stays" in part(page, "difference").inner_text())
    part(page, "uncover").click()
    until(page, lambda: "Cover patches" in part(page, "difference").inner_text())

    page.locator(".changes summary").click()
    part(page, "edit").fill("llm.block.0/image = zero")
    part(page, "add").click()
    until(page, lambda: "became" in part(page, "difference").inner_text())
    assert "--edit" in page.inner_text('[data-command="shell"]')
    part(page, "edits").get_by_role("button").click()
    until(page, lambda: "Cover patches" in part(page, "difference").inner_text())

    part(page, "edit").fill("llm.blok.0/image = zero")
    part(page, "add").click()
    until(page, lambda: "llm.blok.0" in part(page, "state").inner_text())


def test_a_closer_look_is_drawn(address: str, page: Page) -> None:
    open_live(page, address)
    for kind in ("lens", "attention", "occlusion"):
        page.locator(f'[data-view="{kind}"]').click()
        until(page, lambda: part(page, "view").locator("figure").count() > 0)
        assert part(page, "view-state").inner_text() == ""
        assert part(page, "view").locator("svg, table").count() > 0
        assert page.evaluate("document.documentElement.scrollWidth") <= 1280


def test_a_slider_moves_its_edit_and_what_is_shown_is_told_to_be_old(
    address: str, page: Page
) -> None:
    open_live(page, address)
    page.locator('[data-view="lens"]').click()
    until(page, lambda: part(page, "view").locator("figure").count() > 0)
    assert page.locator(".outdated").count() == 0

    page.locator(".changes summary").click()
    until(page, lambda: part(page, "steer").is_visible())
    for strength in ("4", "6"):
        part(page, "strength").fill(strength)
        if strength == "4":
            part(page, "steer").click()
        until(page, lambda s=strength: f", {s})" in page.inner_text('[data-command="shell"]'))
        assert part(page, "edits").locator("li").count() == 1
        assert page.locator(".outdated").get_attribute("id") == "views"
    part(page, "edits").get_by_role("button").click()
    until(page, lambda: page.locator(".outdated").count() == 0)

    part(page, "blocks").press("Enter")
    part(page, "edit").fill("llm.block.0/image = zero")
    part(page, "edit").press("Enter")
    assert part(page, "edits").locator("li").count() == 2
    part(page, "choices").fill("red, or so\ngreen")
    assert page.locator(".outdated").count() == 2
    part(page, "choices").press("Enter")
    until(page, lambda: page.locator("#answer.outdated").count() == 0)
    assert "choices=['red, or so', 'green']" in page.inner_text('[data-command="python"]')
