"""A Chromium of this machine, driven by Playwright (`apt-get install chromium`)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_BINARY = next(filter(None, map(shutil.which, _NAMES)), None)
_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]

needs_browser = pytest.mark.skipif(
    _BINARY is None, reason=f"none of {', '.join(_NAMES)} is installed"
)
"""Marks tests that are skipped where there is none."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for a module's tests.

    Not for a session's: while it is driven, the process has a running event loop.
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        made = driver.chromium.launch(executable_path=_BINARY, args=_FLAGS)
        yield made
        made.close()
