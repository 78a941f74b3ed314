"""The site in a real browser: it asks no other host for anything, and its search finds pages."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests._browser import needs_browser
from tests.end_to_end.test_site import site

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Route

__all__ = ["site"]  # a fixture

pytestmark = needs_browser


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def address(site: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_pages_ask_no_other_host_and_search_works(browser: Browser, address: str) -> None:
    asked: list[str] = []
    said: list[str] = []

    def refuse(route: Route) -> None:
        asked.append(route.request.url)
        route.abort()

    context = browser.new_context(viewport={"width": 390, "height": 800})
    context.route(lambda url: not url.startswith(address), refuse)
    page = context.new_page()
    page.on("console", lambda message: said.append(message.text))
    for name in ("index", "gallery", "coming-from", "api/vlmlens.abc"):
        page.goto(f"{address}/{name}.html")
        assert page.locator("article h1").count() == 1
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 390, f"{name} is {wide} pixels wide on a phone"
    page.set_viewport_size({"width": 1280, "height": 800})
    page.goto(f"{address}/index.html")
    page.locator(".md-search__input").fill("occlusion")
    found = page.locator(".md-search-result__link").first
    found.wait_for(timeout=60_000)
    assert "occlusion" in found.inner_text().lower()
    context.close()
    assert asked == []
    assert [text for text in said if "favicon" not in text] == []
