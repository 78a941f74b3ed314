"""The HTML report in a real browser: data never runs, the page's own script does, it fits a phone.

Needs a Chromium binary (`apt-get install chromium`); skipped where there is none.
"""

from __future__ import annotations

import html as escaping
import os
import re
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from vlmlens.report import _markup, html

UNIT = Path(__file__).parents[1] / "unit"
EXAMPLES = runpy.run_path(str(UNIT / "test_report_examples.py"))
HTML_TESTS = runpy.run_path(str(UNIT / "test_report_html.py"))
BINARIES = ("chromium", "chromium-browser", "google-chrome", "chrome")
BINARY = next(filter(None, map(shutil.which, BINARIES)), None)
MARK = "document.documentElement.dataset.pwned='yes'"
EVIL = f"""'"></title></style></svg><script>{MARK}</script><img src=x onerror="{MARK}">"""
POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')

pytestmark = pytest.mark.skipif(
    BINARY is None, reason=f"none of {', '.join(BINARIES)} is installed"
)


def browse(profile: Path, page: Path, *flags: str) -> str:
    """What Chromium prints for a page."""
    command = [
        str(BINARY), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
        "--no-first-run", "--disable-background-networking", "--disable-component-update",
        "--disable-sync", "--hide-scrollbars", f"--user-data-dir={profile}",
        "--virtual-time-budget=3000", *flags, page.as_uri(),
    ]  # fmt: skip
    environment = {"PATH": os.environ["PATH"], "HOME": str(profile)}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=True, env=environment
    )
    return done.stdout


def dom(folder: Path, source: str) -> str:
    """The page's document after its scripts have run."""
    page = folder / "page.html"
    page.write_text(source, encoding="utf-8")
    return browse(folder / "profile", page, "--dump-dom")


def report() -> str:
    return html.render(
        EXAMPLES["examples"](),
        title="demo on demo:scenes",
        facts=EXAMPLES["FACTS"],
        spec_yaml=EXAMPLES["SPEC"],
        samples=EXAMPLES["samples"](),
    )


def without_policy(source: str) -> str:
    changed = POLICY.sub("", source)
    assert changed != source
    return changed


def unescaped_page(monkeypatch: pytest.MonkeyPatch) -> str:
    with monkeypatch.context() as patch:
        patch.setattr(_markup, "escape", lambda value, quote: value)
        return str(HTML_TESTS["evil_page"](EVIL))


def test_the_pages_own_script_runs_under_its_policy(tmp_path: Path) -> None:
    assert re.search(r'<html[^>]*class="js"', dom(tmp_path, report()))


def test_markup_in_data_does_not_run_even_without_the_policy(tmp_path: Path) -> None:
    made = dom(tmp_path, without_policy(HTML_TESTS["evil_page"](EVIL)))
    assert "data-pwned" not in made
    assert re.search(r'<html[^>]*class="js"', made), "scripts could have run"


def test_without_escaping_it_would_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = dom(tmp_path, without_policy(unescaped_page(monkeypatch)))
    assert 'data-pwned="yes"' in made


def test_without_escaping_the_policy_still_stops_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = unescaped_page(monkeypatch)
    assert POLICY.search(source)
    assert "data-pwned" not in dom(tmp_path, source)


CLICKS = """
const isWanted = (table) => table.caption.textContent.startsWith("Accuracy");
const table = [...document.querySelectorAll("table")].find(isWanted);
const button = table.tHead.rows[0].cells[2].querySelector("button");
const order = () => [...table.tBodies[0].rows].map((row) => row.cells[2].textContent).join(" ");
button.click(); document.documentElement.dataset.up = order();
button.click(); document.documentElement.dataset.down = order();
const figure = document.querySelector("figure");
figure.querySelector(".legend button").click();
document.documentElement.dataset.faded = figure.querySelectorAll(".wide .faded").length;
"""


def test_tables_sort_and_legends_highlight(tmp_path: Path) -> None:
    source = without_policy(report()).replace("</body>", f"<script>{CLICKS}</script></body>")
    made = dom(tmp_path, source)
    assert 'data-up="0.210 0.260 0.330 0.500 0.500 0.800"' in made
    assert 'data-down="0.800 0.500 0.500 0.330 0.260 0.210"' in made
    assert 'data-faded="6"' in made


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_is_as_wide_as_the_screen(tmp_path: Path, width: int) -> None:
    source = report()
    assert measured(tmp_path, source, width) == width
    broken = without_policy(source).replace("<h1>", '<h1 style="width: 3000px">')
    assert measured(tmp_path, broken, width) > width


def measured(folder: Path, source: str, width: int) -> int:
    """How wide the page is when the window has that width."""
    frame = (
        f'<iframe width="{width}" height="900" style="border:0" srcdoc="{escaping.escape(source)}">'
    )
    measure = (
        "<script>onload = () => { document.documentElement.dataset.wide ="
        " frames[0].document.documentElement.scrollWidth }</script>"
    )
    made = dom(folder, f"<!doctype html><html><body>{frame}</iframe>{measure}</body></html>")
    found = re.search(r'data-wide="(\d+)"', made)
    assert found
    return int(found[1])


@pytest.mark.parametrize(("scheme", "is_dark"), [(0, True), (1, False)])
def test_dark_screens_get_a_dark_page(tmp_path: Path, scheme: int, is_dark: bool) -> None:
    page, picture = tmp_path / "page.html", tmp_path / "page.png"
    page.write_text(report(), encoding="utf-8")
    flags = (f"--blink-settings=preferredColorScheme={scheme}", "--window-size=900,700")
    browse(tmp_path / "profile", page, *flags, f"--screenshot={picture}")
    with Image.open(picture) as opened:
        pixels = opened.convert("L")
        assert (pixels.getpixel((3, 3)) < 60) is is_dark
        low, high = pixels.getextrema()
        assert high - low > 150, "there is something to read"
